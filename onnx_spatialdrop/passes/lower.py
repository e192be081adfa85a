"""Lower SpatialDropout nodes to one node of a kernel's own that draws masks, and standard ops that apply them.

It writes graphs only; kernels/ holds what runs the node, and runtime/session.py brings the two together.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Final, Literal

import onnx_ir as ir

from onnx_spatialdrop.analysis import input_types
from onnx_spatialdrop.errors import FormError, SpatialDropError
from onnx_spatialdrop.graph import controls, prune, replace, scopes
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.operator import dialects, spec
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes import remove
from onnx_spatialdrop.passes.masks.builder import MaskBuilder
from onnx_spatialdrop.passes.masks.by_op import MASKS_OP, generate_by_op
from onnx_spatialdrop.passes.masks.generator import Generated
from onnx_spatialdrop.passes.masks.plan import Entry, Group, plan
from onnx_spatialdrop.passes.masks.write import GroupWriter

__all__ = ["CONTRIB", "MASKS_OP", "LowerPass"]

#: The domain in which onnxruntime-extensions runs Python ops.
CONTRIB: Final = "ai.onnx.contrib"

_FIRST_OPSET: Final = 13
_REFUSED: Final = "refused, the log of 'onnx_spatialdrop' says why"


class LowerPass(ir.passes.InPlacePass):
    """Replace every SpatialDropout node by Reshape, Mul and Where on a mask, with the same bits.

    1. One node of the kernel draws the masks of a graph, wherever their sizes are known before the first of them; see
       plan. It draws masks alone: onnxruntime-extensions hands outputs over element by element, so that a tensor of X's
       size would cost seconds, and it ends the process on a float16. On other processors than the CPU the node stands
       before everything else, and products are left to them.
    2. A request that the Python kernel refuses comes back with an entry too many, so that a Reshape fails, under a name
       that says where to look. An exception would end the process.
    3. bfloat16 is computed in float32 and rounded once, as ONNX Runtime cannot multiply it.
    4. Every node of the kernel gets a counter of its own for negative steps, numbered by ``counters``.
    5. Below opset 13, or where X's type is unknown below opset 15, a node is refused; so it is where X's type is
       unknown and the dialect's masks depend on it.
    6. For the native kernel, a node whose X has an unknown rank stays.
    7. A node whose training_mode is constantly false is removed as RemovePass does.
    """

    def __init__(self, counters: Iterator[int] | None = None, kernel: Literal["python", "native"] = "python") -> None:
        super().__init__()
        self.counters = itertools.count() if counters is None else counters
        self.kernel = kernel

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        sites = scopes.spatial_dropouts(model)
        for site in sites:
            _check(site)  # case 5, before anything changes
        known = input_types.known_inputs(model, sites)
        names, members, off = Names(model), [], []
        for site, (kind, shape) in zip(sites, known, strict=True):
            training = controls.constant_of(site.node.inputs[1])
            if training is not None and not training.any():
                off.append(site)
            elif shape is not None or self.kernel == "python":
                members.append((site, kind, shape))
        writer = GroupWriter(self.kernel, self._produce, names)
        try:
            writer.write(plan(model, members, mixed=True))
        except SpatialDropError:
            writer.discard()
            raise
        writer.insert()
        domain = self._domain()
        for node, group, results in writer.written:
            replace.take_place(node, group.nodes, results)
        for site, _, _ in members:
            site.scope.opset_imports[domain] = 1
            model.opset_imports[domain] = 1
        for site in off:
            remove.remove_node(site.node, names)  # case 7
        if domain != spec.DOMAIN:
            prune.drop_domain(model)
        return ir.passes.PassResult(model, modified=bool(sites))

    def _domain(self) -> str:
        return CONTRIB if self.kernel == "python" else spec.DOMAIN

    def _produce(self, build: MaskBuilder, group: Group) -> Generated:
        facts = [_facts(entry) for entry in group.entries]
        attributes = [ir.AttrInt64("counter", next(self.counters)), ir.AttrString("nodes", json.dumps(facts))]
        if self.kernel == "native":
            attributes = _lists(group)
        return generate_by_op(build, group, self._domain(), attributes, _REFUSED, measures=self.kernel == "native")


def _dtype(entry: Entry) -> str:
    """Return NumPy's name of X's type; where it is unknown, masks are the same for every type."""
    return "float32" if entry.dtype is None else entry.dtype.name


def _facts(entry: Entry) -> list[object]:
    given = entry.attributes
    threshold = given.threshold(spec.DTYPES[_dtype(entry)])
    return [given.seed, threshold, given.strata, given.rng, _dtype(entry), op.describe(entry.site.node)]


def _lists(group: Group) -> list[ir.Attr]:
    """Return the attributes of the native node: a list for each attribute of SpatialDropout, a number for each node."""
    given = [entry.attributes for entry in group.entries]
    return [
        ir.AttrInt64s("seeds", [each.seed for each in given]),
        ir.AttrFloat32s("ratios", [each.ratio for each in given]),
        ir.AttrInt64s("strata", [each.strata for each in given]),
        ir.AttrInt64s("rngs", [spec.RNGS.index(each.rng) for each in given]),
        ir.AttrInt64s("types", [list(spec.DTYPES).index(_dtype(entry)) for entry in group.entries]),
    ]


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
