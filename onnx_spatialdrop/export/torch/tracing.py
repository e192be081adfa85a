"""How a module runs while an exporter traces it: in inference mode, and every dropout of it shows. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from onnx_spatialdrop.export.torch import composites, marker, script
from onnx_spatialdrop.export.torch.capture import Capture
from onnx_spatialdrop.export.torch.custom import Custom
from onnx_spatialdrop.export.torch.forwards import bound, lively, unfused
from onnx_spatialdrop.export.torch.functions import KINDS, replaced
from onnx_spatialdrop.export.torch.running import running
from onnx_spatialdrop.export.torch.survey import Survey

__all__ = ["as_training", "prepared"]


@contextmanager
def _modes(module: Any, keep: bool) -> Iterator[None]:
    """Put every module in inference mode, inside the context, unless they are to ``keep`` their modes.

    The flags are set one by one: ``module.eval()`` may be overridden, and merge weights or worse. torch's generator is
    restored too, since a trace runs the module.
    """
    modules = module.modules() if isinstance(module, torch.nn.Module) and not keep else ()
    flags = [(part, part.training) for part in modules]
    try:
        for part, _ in flags:
            part.training = False
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for part, flag in flags:
            part.training = flag


@contextmanager
def as_training(capture: Capture) -> Iterator[None]:
    """Let dropouts that become markers run in training mode while a graph is traced, inside the context.

    In inference mode torch's dropout returns its input, the very tensor. Tracers know tensors by identity and take
    every later use of the input for one of the output: ``drop(x) + x`` comes out as ``drop(x) + drop(x)``.
    """

    def traced(original: Callable[..., Any]) -> Callable[..., Any]:
        def dropout(x: Any, p: float, train: bool) -> Any:
            if torch.jit.is_tracing() and capture.running:
                with script.scope(capture.running[-1][0]):
                    return original(x, p, True)
            return original(x, p, train or torch.compiler.is_compiling() or torch.jit.is_tracing())

        return dropout

    names = [name for name, kind in KINDS.items() if capture.fate(kind, 0.5) == "capture"]
    with replaced({f"{name}{end}": traced(getattr(torch, f"{name}{end}")) for name in names for end in ("", "_")}):
        yield


@contextmanager
def prepared(module: Any, capture: Capture, seen: Survey, *, by_dynamo: bool) -> Iterator[None]:
    """Let a module show its dropout while it is traced, inside the context, in the modes that it is to be in.

    Args:
        module: what is exported.
        capture: what becomes of dropouts.
        seen: its survey.
        by_dynamo: whether torch.export traces it, which notes the modules itself, and branches in ways that take no
            hooks.
    """
    with ExitStack() as stack:
        stack.enter_context(_modes(module, capture.keep_mode))
        if isinstance(module, torch.nn.Module) and capture.dropout != "inference":
            if not by_dynamo:
                capture.running = stack.enter_context(running(module))
                stack.callback(setattr, capture, "running", [])
            stack.enter_context(bound(module, _forwards(capture, seen)))
            if capture.elementwise:
                stack.enter_context(unfused())
                stack.enter_context(composites.apart())
        yield


def _forwards(capture: Capture, seen: Survey) -> Mapping[str, Callable[..., Any]]:
    """Return what stands in for the forward passes of parts that show their dropout in training mode only."""
    found: dict[str, Callable[..., Any]] = {}
    if not capture.keep_mode:
        wanted = {call.layer for call in seen.calls if capture.fate(call.kind, call.ratio) == "capture"}
        found |= dict.fromkeys(seen.forced & wanted, lively)
    return found | {name: _marked(name, ranks, capture) for name, ranks in seen.custom.items()}


def _marked(name: str, ranks: Mapping[int, Custom], capture: Capture) -> Callable[..., Any]:
    def forward(_part: Any, original: Callable[..., Any], x: Any) -> Any:
        custom = ranks.get(x.dim())
        if custom is None or not (torch.jit.is_tracing() or torch.compiler.is_compiling()):
            return original(x)
        if capture.fate("feature" if custom.axes else "elementwise", custom.ratio) != "capture":
            return original(x)
        return marker.mark(x, capture.note(name, "custom", custom.ratio, x.dim(), x.dtype, custom.axes, custom.scaled))

    return forward
