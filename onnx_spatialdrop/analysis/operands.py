"""What the operands of a node are: abstract values of one draw, constants, or activations. Reads the graph only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.analysis.commuting import is_close, products_behind
from onnx_spatialdrop.analysis.dim_algebra import ShapeOf
from onnx_spatialdrop.analysis.symbolic_shapes import Shapes
from onnx_spatialdrop.analysis.values import (
    AbstractValue,
    Curve,
    Layout,
    NotRepresentableError,
    ScaleChain,
    TwoValued,
    ViewedValue,
)
from onnx_spatialdrop.graph.constants import Constants, dtype_of

__all__ = ["Context", "Operands", "is_float"]

#: How many constant factors and views are looked through between a product and the activation.
_PEEL: Final = 6
#: Ops that may stand between them.
_REARRANGING: Final = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


@dataclass
class Context:
    """What is known of the values of a model.

    Attributes:
        constants: its constants.
        shapes: its shapes.
        holders: the node that each subgraph belongs to.
        products: values x * mask of any draw, as far as they are known: a factor before one is no later draw's scale.
        lacks: the factor that a product lacks to be dropout; None where it lacks none, or more than one.
        contested: factors that were left to an earlier product, which lacks them, and could be a later draw's.
    """

    constants: Constants
    shapes: Shapes
    holders: Mapping[ir.Graph, ir.Node]
    lacks: Callable[[TwoValued], float | None] = lambda _: None
    products: dict[ir.Value, TwoValued] = field(default_factory=dict)
    contested: set[ir.Node] = field(default_factory=set)

    def runs_with(self, node: ir.Node, source: ir.Node) -> bool:
        """Return whether ``node`` runs at most once for each run of ``source``: beside it, or in branches of If."""
        graph = node.graph
        while graph is not source.graph:
            holder = self.holders.get(graph) if isinstance(graph, ir.Graph) else None
            if holder is None or holder.op_type != "If" or holder.domain != "":
                return False
            graph = holder.graph
        return True

    def is_owed(self, node: ir.Node, data: ir.Value, factor: float) -> bool:
        """Return whether ``node`` multiplies products by what they lack: by ``factor``, behind views, sums, pooling."""
        behind = products_behind(data, self.products)
        lacking = [self.lacks(self.products[product]) for product in behind or ()]
        if not lacking or not all(lacks is not None and is_close(factor, lacks, 2.0**-10) for lacks in lacking):
            return False
        self.contested.add(node)
        return True


@dataclass
class Operands:
    """Reads a node's operands: abstract values of this draw, constants, or activations."""

    abstracts: dict[ir.Value, AbstractValue]
    context: Context

    def abstract(self, value: ir.Value | None) -> AbstractValue | None:
        """Return the abstract value of a value that depends on the draw; None for any other."""
        return None if value is None else self.abstracts.get(value)

    def number(self, value: ir.Value | None) -> np.generic | None:
        """Return the number that ``value`` is everywhere; None where it is none."""
        return self.context.constants.number(value)

    def general(self, value: ir.Value | None, like: TwoValued) -> TwoValued:
        """Return any operand of a Where, Mul, Add, ... beside ``like`` as two values with its threshold."""
        if value is None:
            raise NotRepresentableError("an input is missing")
        abstract = self.abstracts.get(value)
        if isinstance(abstract, Curve):
            raise NotRepresentableError("the draw is used beside its own mask")
        if abstract is not None:
            return abstract
        number, blank = self.number(value), replace(like, factor=np.zeros(2), x=None)
        if number is not None:
            layout = self.spread(like.layout, value)
            return replace(blank, offset=np.array([number, number], number.dtype), layout=layout)
        x = self.scaled(value)
        dtype = dtype_of(value) or like.offset.dtype
        if not is_float(dtype):
            dtype = np.dtype(np.float32)
        multiple = x.levels[0][1]
        return replace(blank, factor=np.full(2, multiple), offset=np.zeros(2, dtype), x=x)

    def scaled(self, value: ir.Value) -> ScaleChain:
        """Return ``value`` as a multiple of what constant factors made it of, with or without views between them."""
        levels, factors = [ViewedValue(value)], [1.0]
        views, passed = tuple[ir.Node, ...](), tuple[ir.Node, ...]()
        for _ in range(_PEEL):
            node = value.producer()
            if node is None or node.domain or not node.inputs or value in self.context.products:
                break
            if node.op_type in _REARRANGING and node.inputs[0] is not None and node.inputs[0] not in self.abstracts:
                views, passed, value = (node, *views), (*passed, node), node.inputs[0]
                continue
            factor, rest = self._constant_factor(node)
            if factor is None or rest is None or rest in self.abstracts or self.context.is_owed(node, rest, factor):
                break
            value, passed = rest, (*passed, node)
            levels.append(ViewedValue(value, views, passed))
            factors.append(factor)
        # Each level is the next one times the next factor; the root is the unit.
        multiples = [float(np.prod(factors[index + 1 :])) for index in range(len(levels))]
        return ScaleChain(levels[-1], tuple(zip(levels, multiples, strict=True)))

    def _constant_factor(self, node: ir.Node) -> tuple[float | None, ir.Value | None]:
        """Return what a node multiplies by, and what it multiplies; None where it does something else."""
        if node.op_type == "Neg":
            return -1.0, node.inputs[0]
        if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
            return None, None
        left, right = node.inputs
        number, rest, first = self.number(right), left, False
        if number is None and node.op_type != "Div":
            number, rest, first = self.number(left), right, True
        if number is None:
            return None, None
        if node.op_type in ("Add", "Sub"):
            sign = -1.0 if first and node.op_type == "Sub" else 1.0
            return (None, None) if number else (sign, rest)
        factor = float(number)
        return factor if node.op_type == "Mul" else 1.0 / factor if factor else 0.0, rest

    def spread(self, layout: Layout, constant: ir.Value) -> Layout:
        """Return ``layout`` after an element-wise op with a constant that may be larger."""
        shapes = self.context.shapes
        shape = shapes.of(constant)
        if isinstance(shape, tuple) and all(shapes.number(dim) == 1 for dim in shape):
            rank = 0 if isinstance(layout.entries, ShapeOf) else len(layout.entries)
            if len(shape) <= rank or not shape:
                return layout
        if shape == layout.dims:
            return layout
        if isinstance(shape, ShapeOf) or isinstance(layout.entries, ShapeOf) or isinstance(layout.dims, ShapeOf):
            raise NotRepresentableError("it meets a constant of unknown shape")
        rank = max(len(shape), len(layout.dims))
        entries = (1,) * (rank - len(layout.entries)) + layout.entries
        return replace(layout, entries=entries, dims=shapes.broadcast(layout.dims, shape))


def is_float(dtype: np.dtype[Any]) -> bool:
    """Return whether ``dtype`` is a floating-point type."""
    return np.issubdtype(dtype, np.floating) or dtype == ml_dtypes.bfloat16
