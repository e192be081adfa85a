"""What is known of the tensors that nodes drop from: what the file says, or what onnx infers on a copy of the model."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnx_spatialdrop.graph import scopes

__all__ = ["Known", "known_inputs"]

#: A tensor's type and shape, None where nobody knows.
Known = tuple[ir.TypeProtocol | None, ir.Shape | None]


def known_inputs(model: ir.Model, sites: Sequence[scopes.Site], *, shapes: bool = False) -> list[Known]:
    """Return the type and shape of each node's X; the model stays as it is.

    Args:
        model: the model.
        sites: all its SpatialDropout nodes, as scopes.spatial_dropouts returns them.
        shapes: infer also where only a shape is missing. Inference takes a copy of the model, and time.
    """
    own = [_own(site) for site in sites]
    # onnx infers nothing inside functions, whose types are their callers'.
    missing = [kind is None or (shapes and shape is None) for kind, shape in own]
    if not any(lack and not isinstance(site.scope, ir.Function) for lack, site in zip(missing, sites, strict=True)):
        return own
    copy = model.clone()
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=shapes).call(copy)
    inferred = [_own(site) for site in scopes.spatial_dropouts(copy)]
    return [(a[0] or b[0], b[1] if a[1] is None else a[1]) for a, b in zip(own, inferred, strict=True)]


def _own(site: scopes.Site) -> Known:
    x = site.node.inputs[0]
    return (None, None) if x is None else (x.type, x.shape)
