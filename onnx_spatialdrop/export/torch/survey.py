"""Run a module before it is exported, to learn what of its dropout shows in training mode only. Imports torch.

It runs a copy that shares the weights; the module itself, its buffers and torch's generator stay as they are.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from onnx_spatialdrop.export.torch import composites
from onnx_spatialdrop.export.torch.custom import Custom, is_leaf, read
from onnx_spatialdrop.export.torch.forwards import unfused
from onnx_spatialdrop.export.torch.functions import KINDS, replaced
from onnx_spatialdrop.export.torch.running import running

__all__ = ["DropoutCall", "Survey", "survey"]


@dataclass(frozen=True)
class DropoutCall:
    """A call of a dropout in training mode.

    Attributes:
        layer: the qualified name of the module that made it.
        kind: "feature", "elementwise", "feature_alpha" or "alpha", as functions.KINDS names torch's dropouts.
        ratio: fraction dropped.
    """

    layer: str
    kind: str
    ratio: float


@dataclass(frozen=True)
class Survey:
    """What a forward pass in training mode told of a module.

    Attributes:
        calls: every dropout of torch's that was called with a ratio above 0.
        forced: modules that pass their dropout on in training mode only, and do nothing else in another way then.
        hidden: modules that do pass it on in training mode only, and something else besides.
        custom: layers of a library's own that drop, and what they do to a tensor of each rank that they are called on.
        unknown: modules that draw random numbers in training mode in ways of their own, and by which operators.
        failure: why the module could not be run in training mode; "" where it could.
    """

    calls: tuple[DropoutCall, ...] = ()
    forced: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    custom: Mapping[str, Mapping[int, Custom]] = field(default_factory=dict)
    unknown: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    failure: str = ""


def survey(module: Any, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Survey:
    """Run a module on example inputs in inference and in training mode, and return what they tell.

    Dropout is noted and drops nothing, batch norm and its like stay in inference mode. A module that calls a dropout in
    training mode only (``dropout_p=self.p if self.training else 0.0``) is to be traced in training mode, alone of all,
    if the outputs are those of the inference mode then.
    """
    try:
        weights = [*module.parameters(), *(each for part in module.modules() for each in _made(part))]
        network = _Network(copy.deepcopy(module, {id(each): each for each in weights}), arguments, keywords)
        calm = network.run(frozenset())
    except Exception as error:  # noqa: BLE001, code of the user's own: the export will say what is wrong with it
        return Survey(failure=_one_line(error))
    try:
        lively, failure = network.run(network.trainable()), ""
    except Exception as error:  # noqa: BLE001, as above: some modules want more than their inputs for training
        lively, failure = calm, _one_line(error)
    late = {call.layer for call in (Counter(lively.calls) - Counter(calm.calls))}
    late |= network.attention()
    forced = network.harmless(late, calm)
    drawn = {name: ops - calm.drawn.get(name, Counter()) for name, ops in lively.drawn.items()}
    unknown = {name: tuple(sorted(ops)) for name, ops in drawn.items() if ops}
    layers = {name: network.custom(name, calm.ranks.get(name, ())) for name in unknown}
    found = {name: each for name, each in layers.items() if each}
    unknown = {name: ops for name, ops in unknown.items() if name not in found}
    if unknown and network.same(lively, network.run(network.trainable(), seed=1)):
        unknown = {}  # drawn and never used, such as the numbers of a LayerDrop of 0
    hidden = {call.layer for call in lively.calls if call.layer in late - forced}
    return Survey(tuple(lively.calls), forced, frozenset(hidden), found, unknown, failure)


@dataclass
class _Pass:
    calls: list[DropoutCall] = field(default_factory=list)
    drawn: dict[str, Counter[str]] = field(default_factory=dict)
    ranks: dict[str, list[int]] = field(default_factory=dict)
    outputs: list[Any] = field(default_factory=list)


class _Network:
    def __init__(self, module: Any, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        self.module, self.arguments, self.keywords = module, arguments, keywords
        self.parts: dict[str, Any] = dict(module.named_modules())

    def trainable(self) -> frozenset[str]:
        """Return the modules that may be in training mode: all that keep no statistics of what they see."""
        kept = ("running_mean", "running_var", "num_batches_tracked")
        return frozenset(name for name, part in self.parts.items() if not any(hasattr(part, each) for each in kept))

    def devices(self) -> list[int]:
        """Return the numbers of the GPUs that the module is on, whose generators a pass moves, too."""
        return sorted({weight.get_device() for weight in self.module.parameters() if weight.is_cuda})

    def attention(self) -> set[str]:
        """Return torch's own attention layers that drop, which call nothing of it in inference mode."""
        kind = torch.nn.MultiheadAttention
        return {name for name, part in self.parts.items() if isinstance(part, kind) and part.dropout > 0.0}

    def run(self, training: Collection[str], seed: int = 0) -> _Pass:
        found = _Pass()
        for name, part in self.parts.items():
            part.training = name in training
        arguments, keywords = copy.deepcopy((self.arguments, dict(self.keywords)))
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=self.devices()))
            stack.enter_context(torch.no_grad())
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            torch.manual_seed(seed)
            names = stack.enter_context(running(self.module))
            stack.enter_context(unfused())
            stack.enter_context(_noting(found, names))
            stack.enter_context(_ranks(found, self.parts))
            outputs = self.module(*arguments, **keywords)
        leaves = torch.utils._pytree.tree_leaves(outputs)
        found.outputs = [each for each in leaves if isinstance(each, torch.Tensor)]
        return found

    def harmless(self, names: Collection[str], calm: _Pass) -> frozenset[str]:
        """Return those of the modules whose training mode changes no output; by their classes, where not all do so."""
        if not names or self._unchanged(frozenset(names), calm):
            return frozenset(names)
        classes: dict[type, set[str]] = {}
        for name in names:
            classes.setdefault(type(self.parts[name]), set()).add(name)
        good = frozenset(name for each in classes.values() if self._unchanged(frozenset(each), calm) for name in each)
        return good if self._unchanged(good, calm) else frozenset()

    def _unchanged(self, names: frozenset[str], calm: _Pass) -> bool:
        try:
            seen = self.run(names)
        except Exception:  # noqa: BLE001, as in survey
            return False
        return self.same(seen, calm) and seen.drawn == calm.drawn

    def same(self, one: _Pass, other: _Pass) -> bool:
        """Return whether two passes gave the same outputs, but for rounding."""
        return len(one.outputs) == len(other.outputs) and all(map(_close, one.outputs, other.outputs))

    def custom(self, name: str, ranks: Collection[int]) -> dict[int, Custom]:
        """Return what a layer does to tensors of these ranks; nothing where that is not known of one of them."""
        found = {rank: read(self.parts[name], rank) for rank in dict.fromkeys(ranks)}
        return {rank: each for rank, each in found.items() if each is not None and None not in found.values()}


def _close(one: Any, other: Any) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return bool(torch.equal(one, other))
    largest = other[other.isfinite()].abs().max().item() if bool(other.isfinite().any()) else 0.0
    return bool(torch.allclose(one, other, rtol=0.0, atol=1e-6 * largest, equal_nan=True))


@contextmanager
def _noting(found: _Pass, names: list[tuple[str, ...]]) -> Iterator[None]:
    """Note dropouts, which do nothing, and whatever else draws random numbers."""

    def note(kind: str, ratio: float) -> None:
        if ratio > 0.0:
            found.calls.append(DropoutCall(names[-1][0], kind, float(ratio)))

    def standing_in(kind: str) -> Callable[..., Any]:
        def dropout(x: Any, p: float, train: bool) -> Any:
            del train
            note(kind, p)
            return x

        return dropout

    class Drawn(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
            del types
            if torch.Tag.nondeterministic_seeded in function.tags:
                found.drawn.setdefault(names[-1][0], Counter())[str(function)] += 1
            return function(*arguments, **(keywords or {}))

    functions = {f"{name}{end}": standing_in(kind) for name, kind in KINDS.items() for end in ("", "_")}
    with replaced(functions), composites.as_seen(lambda ratio: note("elementwise", ratio)), Drawn():
        yield


@contextmanager
def _ranks(found: _Pass, parts: Mapping[str, Any]) -> Iterator[None]:
    """Note the ranks of what each leaf of a library's own was called with, where it gave back what it got."""
    names = {id(part): name for name, part in parts.items() if is_leaf(part)}

    def hook(part: Any, inputs: tuple[Any, ...], output: Any) -> None:
        if id(part) in names and len(inputs) == 1 and isinstance(inputs[0], torch.Tensor):
            (x,) = inputs
            if isinstance(output, torch.Tensor) and torch.equal(x, output):
                found.ranks.setdefault(names[id(part)], []).append(x.dim())

    handle = torch.nn.modules.module.register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _made(part: Any) -> Iterator[Any]:
    """Return a module's tensors that were computed, which cannot be copied: old weight norms leave such."""
    return (each for each in vars(part).values() if isinstance(each, torch.Tensor) and not each.is_leaf)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
