"""Run the part of a graph that computes a dropout, alone and on a small input. Reads the graph only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir

from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.graph.constants import array_of, dtype_of
from onnx_spatialdrop.operator import philox

__all__ = ["Draw", "Replay"]

_RANDOM: Final = frozenset({"Dropout", "RandomUniform", "RandomUniformLike"})
_COMPARISONS: Final = frozenset({"Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
#: Sizes of dimensions that the file leaves open: no two alike, and enough entries to judge by.
_SIZES: Final = (11, 13, 7, 5, 3, 2)
#: Tables of keys and thresholds of many nodes; larger ones are weights.
_MOST_NUMBERS: Final = 1 << 16
#: More pairs of key words than these are not all tried.
_MOST_PAIRS: Final = 16


@dataclass(frozen=True)
class Draw:
    """One run: what came in, what came out where it is not zero, and the shape that the mask had."""

    x: np.ndarray
    y: np.ndarray
    mask: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Where the input was kept."""
        return np.asarray(self.y != 0)

    @property
    def scale(self) -> float:
        """What kept values were multiplied by."""
        return float(self.y.astype(np.float64).max())


class Replay:
    """The nodes between ``x`` and the output of ``product``, with their control inputs made inputs.

    Attributes:
        nodes: the nodes, in the order of the graph.
        training: the value that switches them; None where nothing does.
        step: the graph input that says which draw; None where there is none.
    """

    def __init__(self, model: ir.Model, x: ir.Value, shape: ir.Shape, product: ir.Node, idle: bool) -> None:
        self._x, self._product = x, product
        self._dims = tuple(shape)
        self._shape = [size if isinstance(size, int) else _SIZES[axis % 6] for axis, size in enumerate(shape)]
        self.nodes = _ancestors(model.graph, product, {x})
        read = dict.fromkeys(value for node in self.nodes for value in _reads(node))
        leaves = [
            v for v in read if v is not x and v.producer() is None and (v.is_graph_input() or v.const_value is None)
        ]
        self._measured = [v for v in leaves if _is_only_measured(v, self.nodes)]
        leaves = [v for v in leaves if v not in self._measured]
        self.training = _only(v for v in leaves if v.dtype == ir.DataType.BOOL)
        self.step = _only(v for v in leaves if v.dtype == ir.DataType.INT64)
        if len(leaves) > sum(value is not None for value in (self.training, self.step)):
            raise ValueError("it reads something else")
        arrays = map(array_of, [*read, *(value for node in self.nodes for value in _made_inside(node))])
        self.constants = [array for array in arrays if array is not None and array.size <= _MOST_NUMBERS]
        if idle:
            self.training = _only(v for v in read if v not in leaves and v.dtype == ir.DataType.BOOL and _is_false(v))
        self._draws = _after_random(self.nodes)
        stops = {x, *self._draws, *self._measured, *([] if self.training is None else [self.training])}
        self._evaluator = self._build(model, _ancestors(model.graph, product, stops), stops)

    @classmethod
    def of(cls, model: ir.Model, x: ir.Value, shape: ir.Shape, product: ir.Node, idle: bool = False) -> Replay | None:
        """Return the part of a graph between two places, None where it cannot be run alone.

        Args:
            model: the model.
            x: where it begins.
            shape: the shape of ``x``.
            product: where it ends.
            idle: take the one constant that is false for the switch.
        """
        try:
            return cls(model, x, shape, product, idle)
        except Exception:  # noqa: BLE001 - whatever onnx finds wrong with a part of a graph, it is not ours then
            return None

    def _build(self, model: ir.Model, nodes: list[ir.Node], stops: set[ir.Value]) -> onnx.reference.ReferenceEvaluator:
        proto = onnx.ModelProto(ir_version=8)
        proto.opset_import.add(domain="", version=model.opset_imports.get("", 18))
        proto.graph.name = "part"
        for value in [*stops, *([] if self.step is None else [self.step])]:
            proto.graph.input.add(name=value.name or "").type.tensor_type.elem_type = int(value.dtype or 1)
        given = {value.name for value in proto.graph.input}
        for leaf in dict.fromkeys(v for node in nodes for v in _reads(node) if v.producer() is None):
            array = array_of(leaf)
            if leaf.name not in given and array is not None:
                proto.graph.initializer.append(onnx.numpy_helper.from_array(array, leaf.name or ""))
        proto.graph.node.extend(ir.serde.serialize_node(node) for node in nodes)
        for result in (self._product.outputs[0], self._product.inputs[0]):
            if result is not None:
                proto.graph.output.add(name=result.name or "")
        return onnx.reference.ReferenceEvaluator(proto)

    def __call__(self, step: int, training: bool = True, swapped: bool = False) -> Draw | None:
        """Return the draw number ``step`` of ones; ``swapped``, where its two words are taken the other way round."""
        x = np.ones(self._shape, dtype_of(self._x) or np.float32)
        feeds: dict[str, Any] = {self._x.name or "": x}
        if self.training is not None:
            feeds[self.training.name or ""] = np.full(_dims(self.training), training)
        if self.step is not None:
            feeds[self.step.name or ""] = np.full(_dims(self.step), step, np.int64)
        for value in self._measured:
            feeds[value.name or ""] = np.zeros(self._size_of(value), dtype_of(value) or np.float32)
        words = [0, step] if swapped else [step, 0]
        for value, word in zip(self._draws, words, strict=False):
            feeds[value.name or ""] = np.array([word], np.int32) if len(self._draws) > 1 else _number_of(value, words)
        try:
            y, mask = self._evaluator.run(None, feeds)
        except Exception:  # noqa: BLE001 - as above
            return None
        return Draw(x, np.asarray(y), np.asarray(mask))

    def _size_of(self, value: ir.Value) -> list[int]:
        """Return sizes for a value that is only measured: X's where the file gives both the same name."""
        names = {str(dim): size for dim, size in zip(self._dims, self._shape, strict=True) if not isinstance(dim, int)}
        return [dim if isinstance(dim, int) else names.get(str(dim), 2) for dim in value.shape or ()]

    def seeds(self) -> Iterator[int]:
        """Yield what the seed may be: keys of which all rounds are among the constants, and 64-bit constants.

        Many nodes' keys lie in one table, the two words of each one above the other.
        """
        integers = [array for array in self.constants if array.dtype.kind in "iu"]
        numbers = {int(number) for array in integers for number in array.reshape(-1)}
        words = {number % 2**32 for number in numbers}
        low, high = (
            [w for w in sorted(words) if all((w + n * each) % 2**32 in words for n in range(philox.ROUNDS))]
            for each in philox.KEY_STEPS
        )
        pairs = [a | b << 32 for a in low for b in high]
        if len(pairs) > _MOST_PAIRS:
            tables = [
                each % 2**32
                for array in integers
                if array.ndim > 1 and array.shape[-2] == 2
                for each in array.reshape(-1, 2, array.shape[-1])
            ]
            beside = {(int(a), int(b)) for table in tables for a, b in zip(*table, strict=True)}
            beside |= {(b, a) for a, b in beside}
            pairs = [a | b << 32 for a in low for b in high if (a, b) in beside]
        yield from pairs or sorted(int(array.item()) for array in integers if array.size == 1)

    def steps(self, given: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Yield which draws the runs may have made: those asked for, or one constant number for ever."""
        if self.step is not None or self._draws:
            yield given
            return
        numbers = {int(n) for a in self.constants if a.dtype.kind in "iu" and a.size <= 2 for n in a.reshape(-1)}
        yield from ((number,) * len(given) for number in sorted(numbers) if 0 <= number < 2**63)

    def thresholds(self) -> set[int]:
        """Return the numbers of [0, 2**24] that a word may be compared with."""
        inside = (each for node in self.nodes for graph in scopes.subgraphs(node) for each in graph.all_nodes())
        judges = [node for node in (*self.nodes, *inside) if node.op_type in _COMPARISONS]
        compared = {value for node in judges for value in _chosen_from(node)}
        lists = [a.reshape(-1) for a in self.constants if a.dtype == np.int64]
        lists = [a for a in lists if not (a & 0xFF).any() and (a <= 1 << 32).all()]  # of whole words, one a node
        found = {int(number) >> 8 for array in lists for number in array}
        lists = [a for a in self.constants if a.dtype == np.int32 and a.ndim == 1 and (a <= 1 << 24).all()]
        found |= {int(number) for array in lists for number in array}
        found |= {int(np.ceil(n * 2.0**24)) for a in self.constants if a.dtype == np.float32 for n in a.reshape(-1)}
        for array in map(array_of, compared):
            if array is not None and array.dtype.kind in "iu" and array.size <= _MOST_NUMBERS:
                found.update(int(number) for number in array.reshape(-1))
        return {number for number in found if 0 <= number <= 1 << 24}


def _ancestors(graph: ir.Graph, last: ir.Node, stops: set[ir.Value]) -> list[ir.Node]:
    found, stack = {last}, [last]
    while stack:
        for value in _reads(stack.pop()):
            node = None if value in stops else value.producer()
            if node is not None and node not in found:
                found.add(node)
                stack.append(node)
    if any(node.graph is not graph or node.domain != "" for node in found):
        raise ValueError("it is not of one graph")
    return [node for node in graph if node in found]


def _chosen_from(node: ir.Node) -> list[ir.Value | None]:
    """Return what a comparison reads, and the tables that a Gather takes that from."""
    tables = [made for value in node.inputs if value is not None and (made := value.producer()) is not None]
    return [*node.inputs, *(table.inputs[0] for table in tables if table.op_type == "Gather")]


def _reads(node: ir.Node) -> list[ir.Value]:
    """Return what a node and its subgraphs read from outside of it."""
    return [*(value for value in node.inputs if value is not None), *scopes.captured(node)]


def _made_inside(node: ir.Node) -> list[ir.Value]:
    """Return the constants that the subgraphs of a node hold."""
    return [
        value
        for graph in scopes.subgraphs(node)
        for inner in (graph, *graph.subgraphs())
        for value in (*inner.initializers.values(), *(each.outputs[0] for each in inner if each.op_type == "Constant"))
    ]


def _is_only_measured(value: ir.Value, nodes: list[ir.Node]) -> bool:
    """Return whether nodes ask for nothing but the shape of ``value``."""
    inside = {*nodes, *(each for node in nodes for graph in scopes.subgraphs(node) for each in graph.all_nodes())}
    users = [use.node for use in value.uses() if use.node in inside]
    return bool(users) and all(user.op_type in ("Shape", "Size") for user in users)


def _after_random(nodes: list[ir.Node]) -> list[ir.Value]:
    """Return the values that hold the number of a fresh draw: chosen in place of a given step, or summed up of bits."""
    inside, chosen, sums = set(nodes), dict[ir.Value, None](), dict[ir.Value, None]()
    seen = [node for node in nodes if node.op_type in _RANDOM]
    for node in seen:
        for use in (use for output in node.outputs for use in output.uses() if use.node in inside):
            if use.node.op_type == "Where" and use.idx != 0:
                chosen[use.node.outputs[0]] = None
            elif use.node not in seen:
                seen.append(use.node)
                if use.node.op_type == "ReduceSum":
                    sums[use.node.outputs[0]] = None
    return sorted(chosen or sums, key=lambda value: nodes.index(value.producer()))  # type: ignore[arg-type]


def _number_of(value: ir.Value, words: list[int]) -> np.ndarray:
    """Return the number of a draw as it is held: in 64 bits, or in rows of two words."""
    node = value.producer()
    summed = node is not None and node.op_type == "ReduceSum" and dtype_of(node.inputs[0]) == np.int32
    return np.array(words, np.int32).reshape(2, 1) if summed else np.array([sum(words)], np.int64)


def _only(values: Iterable[ir.Value]) -> ir.Value | None:
    found = list(values)
    return found[0] if len(found) == 1 else None


def _is_false(value: ir.Value) -> bool:
    array = array_of(value)
    return array is not None and array.size == 1 and not array.item()


def _dims(value: ir.Value) -> list[int]:
    return [] if value.shape is None else [1] * len(value.shape)
