"""List a model's SpatialDropout nodes: what each drops, and its control inputs. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.graph import controls, scopes
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec

__all__ = ["Found", "find", "find_nodes"]


@dataclass(frozen=True)
class Found:
    """One SpatialDropout node.

    Attributes:
        name: the node's name; "" where it has none.
        axes: the axes along which one mask entry is shared, as the node has them.
        ratio: fraction dropped, in [0, 1].
        seed: int64 key.
        scale: what kept values are multiplied by; 0 stands for 1 / (1 - ratio).
        rng: the generator.
        strata: over how many steps the draws are balanced; 1: each is drawn on its own.
        dtype: X's type, such as "float32"; None where the file does not say.
        shape: X's dimensions, numbers, names or None each; None where the rank is unknown.
        training_mode: "switch NAME (default)", "constant VALUE" or "computed by NAME".
        step: the same for ``step``.
        scope: "" for the main graph, else "function DOMAIN::NAME"; "/subgraph" is added inside If, Loop and Scan.
        mask_used: whether something reads the mask.
        node: the node itself.
    """

    name: str
    axes: tuple[int, ...]
    ratio: float
    seed: int
    scale: float
    rng: str
    strata: int
    dtype: str | None
    shape: tuple[int | str | None, ...] | None
    training_mode: str
    step: str
    scope: str
    mask_used: bool
    node: ir.Node = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the node, in types that JSON has."""
        return {key: value for key, value in self.__dict__.items() if key != "node"}


def find_nodes(model: ir.Model) -> list[Found]:
    """Return the model's SpatialDropout nodes in the order of the file, subgraphs and functions included.

    Raises:
        SpecError: a node that the operator's definition does not allow.
    """
    return [_found(site) for site in scopes.spatial_dropouts(model)]


def find(model: io.Source) -> list[Found]:
    """Return the SpatialDropout nodes of a model, in the order of the file.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; only an ir.Model's own nodes can be changed through ``.node``.

    Returns:
        One record a node, with ``name``, ``axes``, ``ratio``, ``seed`` and more; see Found.

    Raises:
        SpecError: a node that the operator's definition does not allow.
        ModelFileError: a file that cannot be read.
    """
    if isinstance(model, ir.Model):
        return find_nodes(model)
    return io.rewrite(model, None, find_nodes)[1]


def _found(site: scopes.Site) -> Found:
    node, attributes = site.node, op.read(site.node)
    x, training_mode, step = node.inputs
    assert x is not None
    dtype = op.numpy_dtype(x)
    scope = f"function {site.scope.domain}::{site.scope.name}" if isinstance(site.scope, ir.Function) else ""
    home = site.scope.graph if isinstance(site.scope, ir.Function) else site.scope
    mask = node.outputs[1]
    return Found(
        name=node.name or "",
        axes=attributes.axes,
        ratio=attributes.ratio,
        seed=attributes.seed,
        scale=attributes.scale,
        rng=attributes.rng,
        strata=attributes.strata,
        # NumPy holds that None equals float64.
        dtype=None if dtype is None else next(name for name, known in spec.DTYPES.items() if known == dtype),
        shape=None if x.shape is None else tuple(d if isinstance(d, int) else d.value for d in x.shape),
        training_mode=_controlled_by(training_mode),
        step=_controlled_by(step),
        scope=scope if node.graph is home else f"{scope}/subgraph",
        mask_used=bool(mask.uses()) or mask.is_graph_output(),
        node=node,
    )


def _controlled_by(value: ir.Value | None) -> str:
    if value is None:
        return "missing"
    if value.is_graph_input():
        default = value.const_value
        return f"input {value.name}" if default is None else f"switch {value.name} ({_plain(default.numpy())})"
    constant = controls.constant_of(value)
    return f"computed by {value.name}" if constant is None else f"constant {_plain(constant)}"


def _plain(array: Any) -> str:
    flat = array.reshape(-1).tolist()
    return str(flat[0] if len(flat) == 1 else flat).lower()
