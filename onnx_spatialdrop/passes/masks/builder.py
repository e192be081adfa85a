"""Nodes of a generator under construction: constants that are shared, and branches of an If."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.build import NodeBuilder

__all__ = ["GENERATOR_KEY", "STEP", "TRAINING", "ConstantPool", "MaskBuilder"]

#: metadata_props of the nodes of a generator: the input of SpatialDropout that a node reads for it, or "".
GENERATOR_KEY: Final = "onnx_spatialdrop.generator"
TRAINING: Final = "training_mode"
STEP: Final = "step"


class ConstantPool:
    """The constants of one scope, each once: initializers of a graph, Constant nodes in a function.

    Args:
        scope: the main graph or a function.
        prefix: what their names begin with; unique in the model.
    """

    def __init__(self, scope: scopes.Scope, prefix: str) -> None:
        self._scope, self._prefix = scope, prefix
        self._values: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def get(self, array: npt.NDArray[Any]) -> ir.Value:
        """Return the constant with these numbers; it is in the model after ``insert`` at the latest."""
        key = (array.dtype.str if array.dtype.kind != "V" else str(array.dtype), array.shape, array.tobytes())
        if key not in self._values:
            name = f"{self._prefix}/constant_{len(self._values)}"
            tensor = ir.Tensor(array, name=name)
            self._values[key] = ir.Value(name=name, const_value=tensor)
        return self._values[key]

    def insert(self) -> None:
        """Put the constants that something reads into the scope, in place."""
        used = [value for value in self._values.values() if value.uses()]
        if isinstance(self._scope, ir.Graph):
            for value in used:
                self._scope.register_initializer(value)
            return
        nodes = [
            ir.Node(
                "",
                "Constant",
                [],
                [ir.AttrTensor("value", value.const_value)],  # type: ignore[arg-type]
                outputs=[value],
                name=value.name,
                metadata_props={GENERATOR_KEY: ""},
            )
            for value in used
        ]
        first = next(iter(self._scope), None)
        if first is not None and nodes:
            self._scope.insert_before(first, nodes)


class MaskBuilder(NodeBuilder):
    """A NodeBuilder whose constants are shared with others.

    Args:
        prefix: what all names begin with; unique in the model.
        metadata: the metadata of every node.
        pool: the constants.
        opset: the version of ONNX's default domain.
    """

    def __init__(self, prefix: str, metadata: dict[str, str], pool: ConstantPool, opset: int) -> None:
        super().__init__(prefix, metadata)
        self.pool, self.opset = pool, opset

    @property
    def allowzero(self) -> int | None:
        """Return what tells Reshape that a size of 0 is one, where the opset has it; before, a 0 stands for X's."""
        return 1 if self.opset >= 14 else None

    def constant(self, array: npt.NDArray[Any] | np.generic, role: str = "") -> ir.Value:
        """Return a constant of the pool, which gives it its name."""
        del role
        return self.pool.get(np.asarray(array))

    def fixed(self, array: npt.NDArray[Any], role: str) -> ir.Value:
        """Return a Constant node's value: what a branch returns has to be computed in it."""
        return super().constant(array, role)

    def ints(self, *numbers: int) -> ir.Value:
        """Return a vector of int64."""
        return self.constant(np.array(numbers, np.int64))

    def join(self, values: Sequence[ir.Value], role: str) -> ir.Value:
        """Return vectors behind each other."""
        return values[0] if len(values) == 1 else self.add("Concat", *values, role=role, axis=0)

    def size(self, value: ir.Value, axis: int, role: str) -> ir.Value:
        """Return dimension ``axis`` of a value, int64 [1]."""
        if self.opset >= 15:
            return self.add("Shape", value, role=role, start=axis, end=axis + 1)
        whole = self.add("Shape", value, role=f"{role}_of")
        return self.add("Slice", whole, self.ints(axis), self.ints(axis + 1), role=role)

    def port(self, op_type: str, *inputs: ir.Value, role: str, reads: str, **attributes: Any) -> ir.Value:
        """Append a node whose first input is the control input ``reads`` of the nodes that are written out."""
        value = self.add(op_type, *inputs, role=role, **attributes)
        self.nodes[-1].metadata_props[GENERATOR_KEY] = reads
        return value

    def branch(self, role: str) -> MaskBuilder:
        """Return a builder for the nodes of a branch."""
        return MaskBuilder(f"{self.prefix}/{role}", dict(self._metadata), self.pool, self.opset)

    def input(self, role: str, dtype: npt.DTypeLike, shape: Sequence[int]) -> ir.Value:
        """Return an input of a body, which ``scan`` is given."""
        kind = ir.DataType.from_numpy(np.dtype(dtype))
        return ir.Value(name=f"{self.prefix}/{role}", type=ir.TensorType(kind), shape=ir.Shape(shape))

    def choose(
        self,
        condition: ir.Value,
        then: tuple[MaskBuilder, Sequence[ir.Value]],
        other: tuple[MaskBuilder, Sequence[ir.Value]],
        roles: Sequence[str],
        dtype: ir.DataType = ir.DataType.BOOL,
    ) -> tuple[ir.Value, ...]:
        """Append an If; each branch with what it returns, which its own nodes compute."""
        branches = [_graph(build, [], results, dtype) for build, results in (then, other)]
        names = ("then_branch", "else_branch")
        attributes = {name: ir.AttrGraph(name, graph) for name, graph in zip(names, branches, strict=True)}
        return self.outputs("If", [condition], roles, **attributes)

    def scan(
        self,
        body: MaskBuilder,
        inputs: Sequence[ir.Value],
        result: ir.Value,
        scanned: Sequence[ir.Value],
        axes: list[int],
        role: str,
    ) -> ir.Value:
        """Append a Scan that returns the bool ``result`` of its body for each slice of ``scanned``, along ``axes``."""
        attributes = {"body": ir.AttrGraph("body", _graph(body, inputs, [result])), "num_scan_inputs": len(inputs)}
        return self.add("Scan", *scanned, role=role, scan_input_axes=axes, **attributes)


def _graph(
    build: MaskBuilder, inputs: Sequence[ir.Value], results: Sequence[ir.Value], dtype: ir.DataType = ir.DataType.BOOL
) -> ir.Graph:
    for result in results:
        result.type = ir.TensorType(dtype)
    return ir.Graph(list(inputs), list(results), nodes=build.nodes, name=build.prefix)
