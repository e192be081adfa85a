"""What a look at all nodes of a ModelProto finds, so that nobody has to look at all of them again. Data only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import onnx

__all__ = ["Block", "Survey"]


@dataclass(eq=False)
class Block:
    """A graph, a subgraph, or the body of a function.

    Attributes:
        body: the protobuf itself.
        outer: the block whose node holds this one; None for the main graph and for functions.
        opset: the version of ONNX's default domain that applies; 1 where none is imported.
        nodes: its nodes, as they were before any change.
        op_types: the operator of each.
        reads: the names that each reads.
        makes: the names that each computes.
        tensors: the initializers by their names.
        defined: the names of inputs, initializers and what nodes compute, and the empty one.
        wanted: place and node of those whose operator was asked for, or that hold subgraphs, in their order.
        inner: the subgraphs, each with the place of the node that holds it, in their order.
    """

    body: onnx.GraphProto | onnx.FunctionProto
    outer: Block | None
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    op_types: list[str] = field(default_factory=list)
    reads: list[list[str]] = field(default_factory=list)
    makes: list[list[str]] = field(default_factory=list)
    tensors: dict[str, onnx.TensorProto] = field(default_factory=dict)
    defined: set[str] = field(default_factory=lambda: {""})
    wanted: list[tuple[int, onnx.NodeProto]] = field(default_factory=list)
    inner: list[tuple[int, Block]] = field(default_factory=list)

    def fill(self) -> None:
        """Read the nodes: a loop for each field, which is faster than one for all."""
        self.nodes = nodes = self.body.node[:]
        self.op_types = [node.op_type for node in nodes]
        self.reads = [node.input[:] for node in nodes]
        self.makes = [node.output[:] for node in nodes]

    @cached_property
    def makers(self) -> dict[str, int]:
        """For each name that a node computes the place of the node."""
        return {name: place for place, names in enumerate(self.makes) for name in names if name}

    @cached_property
    def counts(self) -> Counter[str]:
        """How often its nodes read each name."""
        return Counter(chain.from_iterable(self.reads))

    def is_read(self, name: str) -> bool:
        """Return whether a node of this block, or of one inside it, reads what ``name`` stands for here."""
        return name in self.counts or any(name not in each.defined and each.is_read(name) for _, each in self.inner)

    def home(self, name: str) -> Block | None:
        """Return the block that defines what ``name`` stands for in this one."""
        block: Block | None = self
        while block is not None and name not in block.defined:
            block = block.outer
        return block


@dataclass
class Survey:
    """A whole model.

    Attributes:
        model: the protobuf.
        blocks: the main graph, then the functions, each followed by its subgraphs.
        operators: (domain, op_type, overload) of all nodes; the default domain is "".
        metadata: the keys of all nodes' metadata_props.
        external: the tensors whose data is in other files.
    """

    model: onnx.ModelProto
    blocks: list[Block] = field(default_factory=list)
    operators: set[tuple[str, str, str]] = field(default_factory=set)
    metadata: set[str] = field(default_factory=set)
    external: list[onnx.TensorProto] = field(default_factory=list)

    @cached_property
    def read(self) -> Collection[str]:
        """The names that nodes read, in whatever block, when the survey was made."""
        if len(self.blocks) == 1:
            return self.blocks[0].counts.keys()
        return set().union(*(block.counts for block in self.blocks))
