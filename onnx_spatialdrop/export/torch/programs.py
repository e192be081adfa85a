"""Put markers where an exported program calls dropouts, on its way through the exporter. Imports torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export.torch import marker
from onnx_spatialdrop.export.torch.capture import Capture, shared_axes
from onnx_spatialdrop.export.torch.functions import KINDS

__all__ = ["capturing", "qualified"]

#: torch's composite operators that may drop inside: where in their arguments the ratio is.
_COMPOSITES: Final = {"scaled_dot_product_attention": (4, "dropout_p"), "lstm": (5, "dropout"), "gru": (5, "dropout")}


@contextmanager
def capturing(capture: Capture) -> Iterator[None]:
    """Let the exporter built on torch.export write markers for dropouts, inside the context.

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
        yield
    finally:
        program.run_decompositions = original


@contextmanager
def _retargeted(program: Any, capture: Capture) -> Iterator[None]:
    """Let a program's dropouts call the marker, inside the context; the caller's program is as before after it."""
    undo: list[Callable[[], None]] = []
    graphs = [graph for graph in program.graph_module.modules() if isinstance(graph, torch.fx.GraphModule)]
    try:
        for graph in graphs:
            for node in list(graph.graph.nodes):
                if node.op == "call_function":
                    if node.target in _targets():
                        _retarget(node, capture, undo)
                    elif not capture.surveyed:
                        _look(node, capture)
            graph.recompile()
        yield
    finally:
        for step in reversed(undo):
            step()
        for graph in graphs:
            graph.recompile()


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
    layer = _layer(node)
    if fate == "off":
        if ratio > 0.0 and not capture.surveyed:
            capture.leave_out(layer, kind, ratio)
        node.args = (x, ratio, False)
        return
    if not (in_place or node.args[2]) and _uses(node) > 1:
        capture.refusal = SpatialDropError(
            f"layer {layer!r} of the exported program was in inference mode when torch.export.export ran, which then "
            "cannot tell its output from its input; give the module itself, or export the program inside exporting()"
        )
        raise capture.refusal
    value = x.meta["val"]
    rank = value.dim()
    arguments = (x, capture.note(layer, kind, ratio, rank, value.dtype, shared_axes(kind, rank)))
    if not in_place:
        node.target, node.args, node.kwargs = marker.OPERATOR, arguments, {}
        return
    # The node goes on to stand for the changed tensor, so that all who read it later still do.
    with node.graph.inserting_before(node):
        drawn = node.graph.call_function(marker.OPERATOR, arguments)
    drawn.meta = dict(node.meta)
    undo.insert(0, lambda: node.graph.erase_node(drawn))
    node.target, node.args, node.kwargs = torch.ops.aten.copy_.default, (x, drawn), {}


def _look(node: Any, capture: Capture) -> None:
    """Take down the dropout of a composite operator, which the exporter leaves out."""
    packet = getattr(node.target, "overloadpacket", None)
    place, name = _COMPOSITES.get(getattr(packet, "__name__", ""), (0, ""))
    if name:
        ratio = node.kwargs.get(name, node.args[place] if len(node.args) > place else 0.0)
        if isinstance(ratio, float) and ratio > 0.0:
            capture.leave_out(_layer(node), "composite", ratio)


def _layer(node: Any) -> str:
    stack = node.meta.get("nn_module_stack") or {"": ("",)}
    return qualified(next(reversed(stack.values()))[0])


def _uses(node: Any) -> int:
    """Return how often the result of ``node`` is read; a user may read it twice."""
    found: list[Any] = []
    for user in node.users:
        torch.fx.node.map_arg((user.args, user.kwargs), found.append)
    return sum(each is node for each in found)


def qualified(path: str) -> str:
    """Return a module's qualified name; strict programs of torch 2.6 have ``getattr(L['self'].a, '1').b`` for a.1.b."""
    if not path.startswith(("L[", "getattr(")):
        return path
    found, count = path, 1
    while count:
        found, count = re.subn(r"getattr\(([^()]*), '([^']*)'\)", r"\1.\2", found)
    found = re.sub(r"^L\['\w+'\]", "", found).replace("._modules", "")
    return re.sub(r"\['?([^'\]]*)'?\]", r".\1", found).strip(".")
