"""List a model's SpatialDropout nodes: what each drops, and its control inputs. Changes nothing."""

from __future__ import annotations

import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.gc_pause import gc_paused
from onnx_spatialdrop.graph import controls, scopes
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.find_protos import WANTED, find_in
from onnx_spatialdrop.passes.found import Found, drawn, plain
from onnx_spatialdrop.passes.opened import Opened

__all__ = ["find", "find_nodes"]


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
    source = io.checked_source(model)
    if isinstance(source, ir.Model):
        return find_nodes(source)
    with gc_paused():
        opened = Opened(source, WANTED)
        return find_in(opened.survey, opened.folder)


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
        **drawn(attributes),
        # NumPy holds that None equals float64.
        dtype=None if dtype is None else next(name for name, known in spec.DTYPES.items() if known == dtype),
        shape=None if x.shape is None else tuple(d if isinstance(d, int) else d.value for d in x.shape),
        training_mode=_controlled_by(training_mode),
        step=_controlled_by(step),
        scope=scope if node.graph is home else f"{scope}/subgraph",
        mask_used=bool(mask.uses()) or mask.is_graph_output(),
        source=node,
    )


def _controlled_by(value: ir.Value | None) -> str:
    if value is None:
        return "missing"
    if value.is_graph_input():
        default = value.const_value
        return f"input {value.name}" if default is None else f"switch {value.name} ({plain(default.numpy())})"
    constant = controls.constant_of(value)
    return f"computed by {value.name}" if constant is None else f"constant {plain(constant)}"
