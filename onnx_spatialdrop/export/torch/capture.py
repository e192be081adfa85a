"""Keep torch's dropouts through an export: each becomes an opaque op that nothing decomposes, merges or folds.

Imports torch, so it is loaded when an export is asked for and not before. What the op becomes in the file is the
business of placeholders.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import onnx
import torch

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export.finish import Dropout
from onnx_spatialdrop.export.torch.functions import replaced
from onnx_spatialdrop.export.torch.placeholders import DOMAIN, OP_TYPE, qualified
from onnx_spatialdrop.operator import spec

__all__ = ["KINDS", "Capture", "capturing", "description", "modes", "translation_table"]

_SCHEMA: Final = "Tensor x, str kind, int first, int rank, float ratio, float scale, int call, str layer"
_LIBRARY: Final = torch.library.Library(spec.DOMAIN, "FRAGMENT")
_LIBRARY.define(f"spatial_dropout({_SCHEMA}) -> Tensor", tags=(torch.Tag.nondeterministic_seeded,))
_LIBRARY.impl("spatial_dropout", lambda x, *_: x.clone(), "CompositeExplicitAutograd")
torch.library.register_fake(f"{spec.DOMAIN}::spatial_dropout", lambda x, *_: torch.empty_like(x), lib=_LIBRARY)

_PLACEHOLDER: Final = torch.ops.onnx_spatialdrop.spatial_dropout.default
#: torch's dropout operators, each with a twin that works in place, and the kind that placeholders call them.
KINDS: Final = {
    "feature_dropout": "feature",
    "feature_alpha_dropout": "feature_alpha",
    "dropout": "elementwise",
    "alpha_dropout": "alpha",
}


@dataclass
class Capture:
    """What one export does with dropouts.

    Attributes:
        dropout: "inference" takes them out; else they become placeholders.
        elementwise: whether nn.Dropout and F.dropout become placeholders too.
        keep_mode: whether the modules keep their modes; then element-wise dropouts that stay do as theirs say.
        programs: how many exported programs have been searched.
        refusal: why one of them cannot be exported; torch would wrap the error if it was raised at once.
    """

    dropout: Dropout = "op"
    elementwise: bool = False
    keep_mode: bool = False
    programs: int = 0
    refusal: SpatialDropError | None = None
    calls: Iterator[int] = field(default_factory=itertools.count)

    def fate(self, kind: str, ratio: float) -> Literal["capture", "off", "keep"]:
        """Return what becomes of a dropout of this kind, whatever its own ``training`` says.

        In inference mode ``training=self.training`` is False and looks as a False written by hand does; the model's
        switch decides when the model runs.
        """
        if self.dropout == "inference" or ratio == 0.0:
            return "off"
        if kind.startswith("feature") or self.elementwise:
            return "capture"
        return "keep" if self.keep_mode else "off"


def translation_table() -> dict[Any, Callable[..., Any]]:
    """Return torch.onnx's translation of the placeholder op."""
    from onnxscript import values

    schema_of = onnx.defs.OpSchema
    types = ["tensor(float16)", "tensor(bfloat16)", "tensor(float)", "tensor(double)"]
    schema = schema_of(
        OP_TYPE,
        DOMAIN,
        1,
        type_constraints=[("T", types, "")],
        inputs=[schema_of.FormalParameter("X", "T")],
        outputs=[schema_of.FormalParameter("Y", "T")],
        attributes=[
            schema_of.Attribute("kind", schema_of.AttrType.STRING),
            schema_of.Attribute("first", schema_of.AttrType.INT),
            schema_of.Attribute("rank", schema_of.AttrType.INT),
            schema_of.Attribute("ratio", schema_of.AttrType.FLOAT),
            schema_of.Attribute("scale", schema_of.AttrType.FLOAT),
            schema_of.Attribute("call", schema_of.AttrType.INT),
            schema_of.Attribute("layer", schema_of.AttrType.STRING),
        ],
    )
    placeholder = values.Op(values.Opset(DOMAIN, 1), OP_TYPE, schema)

    def translate(x: Any, kind: str, first: int, rank: int, ratio: float, scale: float, call: int, layer: str) -> Any:
        return placeholder(x, kind=kind, first=first, rank=rank, ratio=ratio, scale=scale, call=call, layer=layer)

    return {_PLACEHOLDER: translate}


@contextmanager
def capturing(capture: Capture) -> Iterator[None]:
    """Let the exporter built on torch.export write placeholders for dropouts, inside the context.

    torch decomposes ``aten.feature_dropout`` before it looks into a translation table; the graph in which it is still
    whole is the one that ``run_decompositions`` is called on, however that graph was made.
    """
    program = torch.export.ExportedProgram
    original = program.run_decompositions

    def run_decompositions(self: Any, *arguments: Any, **keywords: Any) -> Any:
        capture.programs += 1
        with _retargeted(self, capture):
            return original(self, *arguments, **keywords)

    program.run_decompositions = run_decompositions
    try:
        with _traced_as_training(capture):
            yield
    finally:
        program.run_decompositions = original


@contextmanager
def _traced_as_training(capture: Capture) -> Iterator[None]:
    """Let dropouts that become placeholders run in training mode while a graph is traced, inside the context.

    In inference mode torch's dropout returns its input, the very tensor. Tracers know tensors by identity and take
    every later use of the input for one of the output: ``drop(x) + x`` comes out as ``drop(x) + drop(x)``.
    """

    def traced(original: Callable[..., Any]) -> Callable[..., Any]:
        def dropout(x: Any, p: float, train: bool) -> Any:
            return original(x, p, train or torch.compiler.is_compiling() or torch.jit.is_tracing())

        return dropout

    names = [name for name, kind in KINDS.items() if capture.fate(kind, 0.5) == "capture"]
    with replaced({f"{name}{end}": traced(getattr(torch, f"{name}{end}")) for name in names for end in ("", "_")}):
        yield


@contextmanager
def modes(module: Any, capture: Capture) -> Iterator[None]:
    """Put every module in inference mode, inside the context, unless they are to keep their modes.

    The flags are set one by one: ``module.eval()`` may be overridden, and merge weights or worse. torch's generator is
    restored too, since a trace runs the module.
    """
    found = module.modules() if isinstance(module, torch.nn.Module) and not capture.keep_mode else ()
    flags = [(each, each.training) for each in found]
    try:
        for each, _ in flags:
            each.training = False
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for each, flag in flags:
            each.training = flag


@contextmanager
def _retargeted(program: Any, capture: Capture) -> Iterator[None]:
    """Let a program's dropouts call the placeholder, inside the context; the caller's program is as before after it."""
    undo: list[Callable[[], None]] = []
    graphs = [each for each in program.graph_module.modules() if isinstance(each, torch.fx.GraphModule)]
    try:
        for each in graphs:
            for node in list(each.graph.nodes):
                if node.op == "call_function" and node.target in _targets():
                    _retarget(node, capture, undo)
            each.recompile()
        yield
    finally:
        for step in reversed(undo):
            step()
        for each in graphs:
            each.recompile()


def _targets() -> dict[Any, tuple[str, bool]]:
    """Return the kind of each of torch's dropout operators, and whether it works in place."""
    packets = torch.ops.aten
    return {
        getattr(packets, f"{name}{suffix}").default: (kind, suffix == "_")
        for name, kind in KINDS.items()
        for suffix in ("", "_")
    }


def _retarget(node: Any, capture: Capture, undo: list[Callable[[], None]]) -> None:
    kind, in_place = _targets()[node.target]
    old = (node.target, node.args, node.kwargs)
    x, ratio = node.args[:2]
    fate = capture.fate(kind, ratio)
    if fate == "keep":
        return

    def restore() -> None:
        node.target, node.args, node.kwargs = old

    undo.append(restore)
    if fate == "off":
        node.args = (x, ratio, False)
        return
    layer = qualified(next(reversed((node.meta.get("nn_module_stack") or {"": ("",)}).values()))[0])
    if not (in_place or node.args[2]) and _uses(node) > 1:
        capture.refusal = SpatialDropError(
            f"layer {layer!r} of the exported program was in inference mode when torch.export.export ran, which then "
            "cannot tell its output from its input; give the module itself, or export the program inside exporting()"
        )
        raise capture.refusal
    value = x.meta["val"]
    arguments = (x, *description(kind, value.dim(), value.dtype, ratio), next(capture.calls), layer)
    if not in_place:
        node.target, node.args, node.kwargs = _PLACEHOLDER, arguments, {}
        return
    # The node goes on to stand for the changed tensor, so that all who read it later still do.
    with node.graph.inserting_before(node):
        drawn = node.graph.call_function(_PLACEHOLDER, arguments)
    drawn.meta = dict(node.meta)
    undo.insert(0, lambda: node.graph.erase_node(drawn))
    node.target, node.args, node.kwargs = torch.ops.aten.copy_.default, (x, drawn), {}


def _uses(node: Any) -> int:
    """Return how often the result of ``node`` is read; a user may read it twice."""
    found: list[Any] = []
    for user in node.users:
        torch.fx.node.map_arg((user.args, user.kwargs), found.append)
    return sum(each is node for each in found)


def description(kind: str, rank: int, dtype: Any, ratio: float) -> tuple[str, int, int, float, float]:
    """Return kind, first shared axis, rank, ratio and scale of a dropout; every axis from the first on is shared."""
    numpy_dtype = spec.DTYPES.get(str(dtype).removeprefix("torch."))
    return kind, 2 if kind.startswith("feature") else rank, rank, ratio, spec.explicit_scale(ratio, numpy_dtype)
