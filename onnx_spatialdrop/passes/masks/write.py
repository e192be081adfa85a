"""Write groups of nodes out: their generator, and each node's product. Nothing is in the model before ``insert``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.build import NodeBuilder, tags
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.passes.masks.builder import GENERATOR_KEY, ConstantPool, MaskBuilder
from onnx_spatialdrop.passes.masks.generator import Generated
from onnx_spatialdrop.passes.masks.plan import Entry, Group
from onnx_spatialdrop.passes.masks.products import Products

__all__ = ["GroupWriter"]

#: A node, what stands for it, and the values for Y and the mask.
Written = tuple[ir.Node, NodeBuilder, tuple[ir.Value, ir.Value | None]]


@dataclass
class GroupWriter:
    """Writes groups out, one after the other.

    Attributes:
        form: what names say of the new nodes.
        produce: appends what makes the masks of a group.
        names: the names of the model.
        written: the nodes so far.
    """

    form: str
    produce: Callable[[MaskBuilder, Group], Generated]
    names: Names
    written: list[Written] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pools: dict[int, ConstantPool] = {}
        self._builders: list[tuple[Group, MaskBuilder]] = []

    def write(self, groups: Sequence[Group]) -> None:
        """Write groups out.

        Raises:
            SpatialDropError: a node that cannot be written; then ``discard`` gives up what there is.
        """
        for group in groups:
            pool = self._pool(group.scope)
            build = MaskBuilder(
                self.names.prefix(f"masks/{self.form}"), {GENERATOR_KEY: ""}, pool, group.entries[0].site.opset
            )
            self._builders.append((group, build))
            made = self.produce(build, group)
            products = Products(build, made.training)
            for place, entry in enumerate(group.entries):
                self._node(build, products, made, place, entry)
            build.keep_only([])

    def _node(self, shared: MaskBuilder, products: Products, made: Generated, place: int, entry: Entry) -> None:
        node = entry.site.node
        y, mask = node.outputs
        prefix = self.names.prefix(f"{y.name or node.name or 'spatial_dropout'}/{self.form}")
        carried = tags(node.name or "", entry.attributes, node.metadata_props)
        own = MaskBuilder(prefix, carried, shared.pool, entry.site.opset)
        dropped = made.dropped[place]
        new_y, kept = products.write(own, entry, dropped), None
        if mask.uses() or mask.is_graph_output():
            kept = own.add("Not", dropped, role="kept")
            if made.training is not None:
                kept = own.add("Expand", kept, made.masks(place), role="mask")
        self.written.append((node, own, (new_y, kept)))

    def _pool(self, scope: scopes.Scope) -> ConstantPool:
        if id(scope) not in self._pools:
            self._pools[id(scope)] = ConstantPool(scope, self.names.prefix(f"masks/{self.form}_constants"))
        return self._pools[id(scope)]

    def insert(self) -> None:
        """Put generators and constants into the model, in place."""
        for group, build in self._builders:
            group.home.insert_before(group.anchor, build.nodes)
        for pool in self._pools.values():
            pool.insert()

    def discard(self) -> None:
        """Give up what has been written."""
        for _, build in self._builders:
            build.discard()
        for _, own, _ in self.written:
            own.discard()
