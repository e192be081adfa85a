"""Steps of random graphs: functions of entries, reductions, products, views; many mix samples up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from montecarlo.growing import ROWS, Graph, Sizes


def unary(g: Graph, x: str) -> str:
    kind = g.rng.choice(["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Exp", "Softplus", "Identity", "Erf", "Elu"])
    return g.op(str(kind), x, shape=g.shapes[x])


def _with_constant(g: Graph, x: str) -> str:
    shape = list(g.shapes[x])
    kept = [dim if g.rng.random() < 0.6 else 1 for dim in shape]
    kept[0] = shape[0] if g.rng.random() < 0.08 else 1
    start = int(g.rng.integers(0, len(shape)))
    return g.op(str(g.rng.choice(["Add", "Mul", "Sub", "Max"])), x, g.floats(*kept[start:]), shape=tuple(shape))


def _with_itself(g: Graph, x: str) -> str:
    other = unary(g, x)
    if g.rng.random() < 0.3 and len(g.shapes[x]) > 1:
        axis = int(g.rng.integers(0, len(g.shapes[x])))
        other = _reduce(g, x, axis, True)
    return g.op("Add", x, other, shape=g.shapes[x])


def _reduce(g: Graph, x: str, axis: int, keep: bool) -> str:
    shape = list(g.shapes[x])
    shape[axis : axis + 1] = [1] if keep else []
    kind = str(g.rng.choice(["ReduceMean", "ReduceSum", "ReduceMax"]))
    return g.op(kind, x, g.ints(axis), keepdims=int(keep), shape=tuple(shape))


def _reduction(g: Graph, x: str) -> str:
    if len(g.shapes[x]) < 3:
        return unary(g, x)
    axis = 0 if g.rng.random() < 0.1 else int(g.rng.integers(1, len(g.shapes[x])))
    return _reduce(g, x, axis, axis == 0 or bool(g.rng.random() < 0.4))


def _matmul(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    if len(shape) < 2:
        return unary(g, x)
    width = int(g.rng.integers(2, 6))
    return g.op("MatMul", x, g.floats(shape[-1], width), shape=(*shape[:-1], width))


def _gemm(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    if len(shape) != 2:
        return _matmul(g, x)
    width = int(g.rng.integers(2, 6))
    bias = g.floats(shape[0], width) if g.rng.random() < 0.1 else g.floats(width)
    return g.op("Gemm", x, g.floats(width, shape[1]), bias, transB=1, shape=(shape[0], width))


def _with_samples(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    if len(shape) != 2:
        return unary(g, x)
    if g.rng.random() < 0.5:
        product = g.op("MatMul", x, g.op("Transpose", x, perm=[1, 0]), shape=(shape[0], shape[0]))
        return g.op("MatMul", product, x, shape=shape)
    return g.op("Softmax", x, axis=0, shape=shape)


def _attention(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    if len(shape) != 3:
        return _matmul(g, x)
    scores = g.op("MatMul", x, g.op("Transpose", x, perm=[0, 2, 1]), shape=(shape[0], shape[1], shape[1]))
    return g.op("MatMul", g.op("Softmax", scores, axis=-1), x, shape=shape)


def _transpose(g: Graph, x: str) -> str:
    rank = len(g.shapes[x])
    order = [0, *(1 + g.rng.permutation(rank - 1))] if g.rng.random() < 0.8 else list(g.rng.permutation(rank))
    order = [int(axis) for axis in order]
    return g.op("Transpose", x, perm=order, shape=tuple(g.shapes[x][axis] for axis in order))


def _reshape(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    inner = int(np.prod(shape[1:]))
    options: list[tuple[list[int], Sizes]] = [([0, -1], (shape[0], inner)), ([-1, inner], (shape[0], inner))]
    options.append(([shape[0], -1], (shape[0], inner)))
    if len(shape) > 2:
        options.append(([-1, shape[-1]], (int(np.prod(shape[:-1])), shape[-1])))
        options.append(([-1, int(np.prod(shape[:1])) * shape[1]], (int(np.prod(shape[2:])), shape[0] * shape[1])))
    if inner % 2 == 0:
        options.append(([0, 2, -1], (shape[0], 2, inner // 2)))
        options.append(([-1, 2, inner // 2], (shape[0], 2, inner // 2)))
    if (shape[0] * inner) % 4 == 0:
        options.append(([-1, 4], (shape[0] * inner // 4, 4)))
    target, made = options[int(g.rng.integers(0, len(options)))]
    return g.op("Reshape", x, g.ints(*target), shape=made)


def _reshape_by_shape(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    source = x if g.rng.random() < 0.5 else "x"
    size = g.op("Gather", g.op("Shape", source), g.ints(0))
    if g.rng.random() < 0.3:
        size = g.op("Mul", size, g.ints(2))
    target = g.op("Concat", size, g.ints(-1), axis=0)
    times = 2 if g.nodes[-2].op_type == "Mul" else 1
    lead = times * (shape[0] if source == x else ROWS)
    total = int(np.prod(shape))
    if total % lead:
        return unary(g, x)
    return g.op("Reshape", x, target, shape=(lead, total // lead))


def _flatten(g: Graph, x: str) -> str:
    shape = g.shapes[x]
    axis = 1 if g.rng.random() < 0.8 else int(g.rng.integers(0, len(shape)))
    return g.op("Flatten", x, axis=axis, shape=(int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))))


def _slice(g: Graph, x: str) -> str:
    shape = list(g.shapes[x])
    axis = 0 if g.rng.random() < 0.1 else int(g.rng.integers(0, len(shape)))
    end = shape[axis] if axis == 0 and g.rng.random() < 0.5 else max(1, shape[axis] - 1)
    given = 2**31 - 1 if end == shape[axis] else end
    shape[axis] = end
    return g.op("Slice", x, g.ints(0), g.ints(given), g.ints(axis), shape=tuple(shape))


def _gather(g: Graph, x: str) -> str:
    shape = list(g.shapes[x])
    axis = 0 if g.rng.random() < 0.1 else int(g.rng.integers(0, len(shape)))
    picked = [int(i) for i in g.rng.integers(0, shape[axis], 2)]
    shape[axis] = 2
    return g.op("Gather", x, g.ints(*picked), axis=axis, shape=tuple(shape))


def _concat(g: Graph, x: str) -> str:
    shape = list(g.shapes[x])
    axis = 0 if g.rng.random() < 0.1 else int(g.rng.integers(0, len(shape)))
    other = unary(g, x)
    shape[axis] *= 2
    return g.op("Concat", x, other, axis=axis, shape=tuple(shape))


VIEWS: tuple[Callable[[Graph, str], str], ...] = (
    unary,
    _with_constant,
    _with_itself,
    _reduction,
    _matmul,
    _gemm,
    _with_samples,
    _attention,
    _transpose,
    _reshape,
    _reshape_by_shape,
    _flatten,
    _slice,
    _gather,
    _concat,
)
