"""Plain layers, at random: what networks are made of beside dropout. Each takes a tensor and returns one."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from random_models.writer import Tensor, Writer

Layer = Callable[[Writer, Tensor], Tensor | None]


def activation(w: Writer, x: Tensor) -> Tensor:
    op = w.rng.choice(
        ["Relu", "Sigmoid", "Tanh", "Identity", "Neg", "Abs", "LeakyRelu", "Softplus", "Elu", "Erf", "Selu"]
    )
    if op == "Erf" and w.opset < 9:
        op = "Softsign"
    return Tensor(w.node(op, [x.name]), x.dims)


def affine(w: Writer, x: Tensor) -> Tensor:
    size = x.dims[-1]
    shape = [size] if w.rng.random() < 0.5 and size != "N" else []
    number = w.constant(np.full(shape, w.rng.choice([0.5, 1.5, 2.0, 4.0, 1.25]), np.float64))
    op = w.rng.choice(["Mul", "Add", "Sub", "Div"])
    pair = [x.name, number] if op in ("Sub", "Div") or w.rng.random() < 0.7 else [number, x.name]
    return Tensor(w.node(op, pair), x.dims)


def linear(w: Writer, x: Tensor) -> Tensor | None:
    if x.rank < 2 or not isinstance(x.dims[-1], int):
        return None
    size = w.rng.choice([2, 3, x.dims[-1]])
    weights = np.linspace(-0.5, 0.6, x.dims[-1] * size).reshape(x.dims[-1], size)
    return Tensor(w.node("MatMul", [x.name, w.constant(weights)]), (*x.dims[:-1], size))


def convolution(w: Writer, x: Tensor) -> Tensor | None:
    if x.rank not in (3, 4, 5) or not all(isinstance(dim, int) for dim in x.dims[1:]):
        return None
    channels, out = int(x.dims[1]), w.rng.choice([2, 4])
    kernel = [1] * (x.rank - 2) if w.rng.random() < 0.5 else [3] * (x.rank - 2)
    weights = np.linspace(-0.4, 0.5, out * channels * math.prod(kernel)).reshape(out, channels, *kernel)
    pads = [(size - 1) // 2 for size in kernel] * 2
    made = w.node("Conv", [x.name, w.constant(weights)], kernel_shape=kernel, pads=pads)
    return Tensor(made, (x.dims[0], out, *x.dims[2:]))


def norm(w: Writer, x: Tensor) -> Tensor | None:
    if x.rank < 2 or not isinstance(x.dims[1], int) or w.opset < 9:  # which onnx's evaluator does not run
        return None
    scale, bias, mean, var = (w.constant(np.linspace(a, b, x.dims[1])) for a, b in ((1, 2), (0, 1), (0, 0.3), (0.5, 1)))
    return Tensor(w.node("BatchNormalization", [x.name, scale, bias, mean, var]), x.dims)


def pool(w: Writer, x: Tensor) -> Tensor | None:
    if x.rank not in (3, 4, 5) or not all(isinstance(dim, int) for dim in x.dims[2:]):
        return None
    if w.rng.random() < 0.2:
        return Tensor(w.node("GlobalAveragePool", [x.name]), (*x.dims[:2], *(1,) * (x.rank - 2)))
    if min(int(dim) for dim in x.dims[2:]) < 3:
        return None
    op = w.rng.choice(["MaxPool", "AveragePool"])
    made = w.node(op, [x.name], kernel_shape=[2] * (x.rank - 2))
    return Tensor(made, (*x.dims[:2], *(int(dim) - 1 for dim in x.dims[2:])))


def transpose(w: Writer, x: Tensor) -> Tensor | None:
    if x.rank < 3:
        return None
    order = [0, *w.rng.sample(range(1, x.rank), x.rank - 1)]
    return Tensor(w.node("Transpose", [x.name], perm=order), tuple(x.dims[axis] for axis in order))


def flatten(w: Writer, x: Tensor) -> Tensor | None:
    if x.rank < 3 or not all(isinstance(dim, int) for dim in x.dims[1:]):
        return None
    size = math.prod(int(dim) for dim in x.dims[1:])
    if w.rng.random() < 0.4:
        return Tensor(w.node("Flatten", [x.name]), (x.dims[0], size))
    if w.rng.random() < 0.5:
        target = w.constant([w.rng.choice([0, -1]), size], np.int64)
        return Tensor(w.node("Reshape", [x.name, target]), (x.dims[0], size))
    joined = (x.dims[0], int(x.dims[1]), size // int(x.dims[1]))
    return Tensor(w.node("Reshape", [x.name, w.constant([0, x.dims[1], -1], np.int64)]), joined)


def squeeze(w: Writer, x: Tensor) -> Tensor | None:
    ones = [axis for axis, dim in enumerate(x.dims) if dim == 1 and axis]
    if ones and x.rank > 2:
        return Tensor(
            w.axes_node("Squeeze", x.name, ones[-1:]), tuple(d for a, d in enumerate(x.dims) if a != ones[-1])
        )
    if x.rank > 4:
        return None
    axis = w.rng.randrange(1, x.rank + 1)
    return Tensor(w.axes_node("Unsqueeze", x.name, [axis]), (*x.dims[:axis], 1, *x.dims[axis:]))


def mean(w: Writer, x: Tensor) -> Tensor | None:
    if x.rank < 3:
        return None
    made = w.axes_node("ReduceMean", x.name, [x.rank - 1], since=18, keepdims=1)
    return Tensor(made, (*x.dims[:-1], 1))


def softmax(w: Writer, x: Tensor) -> Tensor | None:
    return Tensor(w.node("Softmax", [x.name], axis=x.rank - 1), x.dims) if x.rank > 1 else None


def concat(w: Writer, x: Tensor) -> Tensor | None:
    if x.rank < 2 or not isinstance(x.dims[1], int) or x.dims[1] > 6:
        return None
    other = w.node("Neg", [x.name])
    return Tensor(w.node("Concat", [x.name, other], axis=1), (x.dims[0], 2 * x.dims[1], *x.dims[2:]))


LAYERS: list[Layer] = [
    activation,
    affine,
    linear,
    convolution,
    norm,
    pool,
    transpose,
    flatten,
    squeeze,
    mean,
    softmax,
    concat,
]


def layer(w: Writer, x: Tensor, same_shape: bool = False) -> Tensor:
    """Return the result of a random layer that fits."""
    while True:
        made = w.rng.choice([activation, affine] if same_shape else [*LAYERS, activation])(w, x)
        if made is not None:
            return made
