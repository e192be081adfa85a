"""Lower SpatialDropout nodes to a Python op that draws the mask, and standard ops that apply it.

It writes graphs only; kernels/python.py holds the Python op, and runtime/session.py brings the two together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.graph import prune, replace, scopes
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.operator import dialects, spec
from onnx_spatialdrop.operator import node as op

__all__ = ["CONTRIB", "MASK_OP", "LowerPass"]

#: The domain in which onnxruntime-extensions runs Python ops, and the name of ours.
CONTRIB: Final = "ai.onnx.contrib"
MASK_OP: Final = "SpatialDropoutMask"

_FIRST_OPSET: Final = 13


class LowerPass(ir.passes.InPlacePass):
    """Replace every SpatialDropout node by ``SpatialDropoutMask`` (Python), Reshape, Mul and Where, with the same bits.

    1. The Python op draws the mask alone: onnxruntime-extensions hands outputs over element by element, so a tensor of
       X's size would cost seconds, and it ends the process on a float16.
    2. It returns the mask flat, with its shape beside it; a request that it refuses comes back with a shape that does
       not fit, so that Reshape fails, under a name that says where to look. An exception would end the process.
    3. bfloat16 is computed in float32 and rounded once, as ONNX Runtime cannot multiply it.
    4. Every node gets a counter of its own for negative steps, numbered by ``counters``.
    5. Below opset 13, or where X's type is unknown below opset 15, the node is refused; so it is where X's type is
       unknown and the dialect's masks depend on it.
    """

    def __init__(self, counters: Iterator[int] | None = None) -> None:
        super().__init__()
        self.counters = itertools.count() if counters is None else counters

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        sites = scopes.spatial_dropouts(model)
        for site in sites:
            _check(site)  # case 5, before anything changes
        names = Names(model)
        for site in sites:
            _lower(site, next(self.counters), names)
            site.scope.opset_imports[CONTRIB] = 1
            model.opset_imports[CONTRIB] = 1
        prune.drop_domain(model)
        return ir.passes.PassResult(model, modified=bool(sites))


def _check(site: scopes.Site) -> None:
    rng = op.read(site.node).rng
    where = op.describe(site.node)
    if site.opset < _FIRST_OPSET:
        raise FormError(f"{where}: opset {site.opset} is too old for the Python kernel; convert the model to opset 13")
    x = site.node.inputs[0]
    assert x is not None
    if op.numpy_dtype(x) is None and (site.opset < 15 or dialects.DIALECTS[rng].own_type):
        raise FormError(
            f"{where}: the type of its input {x.name!r} is not in the file; run onnx.shape_inference on the model first"
        )


def _lower(site: scopes.Site, counter: int, names: Names) -> None:
    node, attributes = site.node, op.read(site.node)
    x, training_mode, step = node.inputs
    y, mask = node.outputs
    assert node.graph is not None
    assert x is not None
    build = _Builder(names.prefix(f"{y.name}/python"))
    dtype = op.numpy_dtype(x) or np.dtype(np.float32)  # unknown only where masks are the same for every type
    used = bool(mask.uses()) or mask.is_graph_output()
    flat, shape = build.mask(
        [build.add("Shape", [x]), build.constant(np.array(attributes.axes, np.int64), "axes"), training_mode, step],
        [
            ir.AttrInt64("seed", attributes.seed),
            ir.AttrInt64("strata", attributes.strata),
            ir.AttrInt64("threshold", attributes.threshold(dtype)),
            ir.AttrInt64("counter", counter),
            ir.AttrInt64("full", int(used)),
            ir.AttrString("rng", attributes.rng),
            ir.AttrString("dtype", dtype.name),
            ir.AttrString("node", op.describe(node)),
        ],
    )
    allow = [ir.AttrInt64("allowzero", 1)] if site.opset >= 14 else []
    refused = f"{node.name or y.name}: refused, the log of 'onnx_spatialdrop' says why"
    keep = build.add("Reshape", [flat, shape], allow, "keep", name=refused)  # case 2
    training = build.add("Squeeze", [training_mode], role="training")
    new_y = _apply(build, x, keep, training, attributes)
    node.graph.insert_before(node, build.nodes)
    if used:
        replace.take_over(mask, keep)
    replace.take_over(y, new_y)
    node.graph.remove(node, safe=True)


def _apply(build: _Builder, x: ir.Value, keep: ir.Value, training: ir.Value, attributes: spec.Attributes) -> ir.Value:
    """Return where(training and not keep, +0, x * where(training, scale, 1)), computed in X's type but for bfloat16.

    The order matters: operator/body.py says what ONNX Runtime does to a -0 in Where.
    """
    dtype = op.numpy_dtype(x)
    wide = x.dtype == ir.DataType.BFLOAT16
    source = build.add("Cast", [x], [ir.AttrInt64("to", ir.DataType.FLOAT)], "wide") if wide else x  # case 3

    def number(value: np.ndarray, role: str) -> ir.Value:
        if dtype is not None:
            return build.constant(value.astype(dtype).astype(np.float32 if wide else dtype), role)
        return build.add("CastLike", [build.constant(value, f"{role}64"), x], role=role)

    factor = spec.kept_scale(attributes.ratio, attributes.scale, np.dtype(np.float64))
    scale, one, zero = (number(np.asarray(v, np.float64), r) for v, r in ((factor, "scale"), (1, "one"), (0, "zero")))
    gone = build.add("And", [build.add("Not", [keep], role="drop"), training], role="gone")
    scaled = build.add("Mul", [source, build.add("Where", [training, scale, one], role="factor")], role="scaled")
    chosen = build.add("Where", [gone, zero, scaled], role="chosen")
    return build.add("Cast", [chosen], [ir.AttrInt64("to", ir.DataType.BFLOAT16)], "narrow") if wide else chosen


class _Builder:
    """Collects new nodes whose names start with ``prefix``."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[ir.Node] = []

    def add(
        self,
        op_type: str,
        inputs: list[ir.Value | None],
        attributes: list[ir.Attr] | None = None,
        role: str = "",
        name: str | None = None,
    ) -> ir.Value:
        full = f"{self.prefix}/{role or op_type}"
        output = ir.Value(name=full)
        self.nodes.append(ir.Node("", op_type, inputs, attributes or [], outputs=[output], name=name or full))
        return output

    def constant(self, array: np.ndarray, role: str) -> ir.Value:
        return self.add("Constant", [], [ir.AttrTensor("value", ir.tensor(array))], role)

    def mask(self, inputs: list[ir.Value | None], attributes: list[ir.Attr]) -> tuple[ir.Value, ir.Value]:
        outputs = [ir.Value(name=f"{self.prefix}/mask"), ir.Value(name=f"{self.prefix}/mask_shape")]
        node = ir.Node(CONTRIB, MASK_OP, inputs, attributes, outputs=outputs, name=f"{self.prefix}/{MASK_OP}")
        self.nodes.append(node)
        return outputs[0], outputs[1]
