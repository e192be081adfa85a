"""Dropout as exporters and people spell it out: how a mask is drawn and cut, and where its scale stands."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import helper
from random_models.writer import Tensor, Writer

RATES = (0.1, 0.2, 0.25, 0.3, 0.5, 0.75, 0.9)
_CODES = {np.dtype(np.float16): 10, np.dtype(np.float32): 1, np.dtype(np.float64): 11}


def code(w: Writer) -> int:
    return _CODES[w.setting.dtype]


def mask_dims(x: Tensor, axes: Sequence[int]) -> tuple[int | str, ...]:
    return tuple(1 if axis in axes else dim for axis, dim in enumerate(x.dims))


def template(w: Writer, x: Tensor, dims: tuple[int | str, ...], axes: Sequence[int], ones: bool = False) -> str:
    """Return a tensor of the shape ``dims``; of ones, if asked for."""
    value = helper.make_tensor("v", code(w), [1], [1.0])
    ways = ["mean"] if not ones and axes and axes != (0,) else []
    if w.opset >= 9:
        ways += ["filled", "filled"]
        ways += ["expanded"] if w.opset >= 8 else []
    way = w.rng.choice(ways or ["expanded" if w.opset >= 8 else "mean"])
    if way == "mean" and not axes:
        return x.name
    if way == "mean":
        return w.axes_node("ReduceMean", x.name, axes, since=18, keepdims=1)
    shape = w.shape_of(dims, x)
    if way == "filled":
        return w.node("ConstantOfShape", [shape], value=value)
    return w.node("Expand", [w.constant(1.0), shape])


def uniform(w: Writer, x: Tensor, axes: Sequence[int], low: float = 0.0, high: float = 1.0) -> str:
    """Return a uniform draw, one number an entry of the mask."""
    dims = mask_dims(x, axes)
    bounds = {} if (low, high) == (0.0, 1.0) and w.rng.random() < 0.5 else {"low": low, "high": high}
    if w.rng.random() < 0.3:
        bounds["seed"] = float(w.rng.choice([0, 7, 1234]))
    if "N" not in dims and w.rng.random() < 0.6:
        return w.node("RandomUniform", [], shape=list(dims), dtype=code(w), **bounds)
    if not axes and w.rng.random() < 0.7:
        return w.node("RandomUniformLike", [x.name], dtype=code(w), **bounds)
    return w.node("RandomUniformLike", [template(w, x, dims, axes)], dtype=code(w), **bounds)


def kept(w: Writer, x: Tensor, rate: float, axes: Sequence[int]) -> str:
    """Return a mask of bool: true where an entry is kept."""
    keep = 1.0 - rate
    ways = ["less", "greater", "not", "turned", "range", "log", "floor", "tanh"]
    ways += ["less or equal", "greater or equal"] if w.opset >= 12 else []
    way = w.rng.choice(ways)
    if way == "range":
        u = uniform(w, x, axes, -1.0, 1.0)
        return w.node("Less", [u, w.number(2.0 * keep - 1.0)])
    u = uniform(w, x, axes)
    if way == "floor":
        return w.node("Cast", [w.node("Floor", [w.node("Add", [u, w.number(keep)])])], to=9)
    if way == "not":
        return w.node("Not", [w.node("Less", [u, w.number(rate)])])
    if way == "turned":
        return w.node("Less", [w.node("Sub", [w.number(1.0), u]), w.number(keep)])
    if way in ("log", "tanh"):
        function = {"log": math.log, "tanh": math.tanh}[way]
        return w.node("Less", [w.node(way.capitalize(), [u]), w.number(function(keep))])
    op = {"less": "Less", "greater": "Greater", "less or equal": "LessOrEqual", "greater or equal": "GreaterOrEqual"}[
        way
    ]
    return w.node(op, [u, w.number(keep if op.startswith("Less") else rate)])


def spread(w: Writer, x: Tensor, mask: str, axes: Sequence[int]) -> str:
    """Return a mask with or without views that change nothing."""
    chance = w.rng.random()
    if chance < 0.1:
        return w.node("Identity", [mask])
    if chance < 0.2 and axes and w.opset >= 8:
        return w.node("Expand", [mask, w.node("Shape", [x.name])])
    return mask


def masked(w: Writer, x: Tensor, rate: float, axes: Sequence[int]) -> str:
    """Return x * mask / keep, spelled out."""
    keep, way = 1.0 - rate, w.rng.choice(["mask", "x", "product", "where", "where x", "select"])
    b = kept(w, x, rate, axes)
    if way.startswith("where") and w.opset >= 9:
        zero = w.constant(0.0)
        if way == "where":
            return w.node("Where", [b, scaled(w, x.name, keep), zero])
        return scaled(w, w.node("Where", [b, x.name, zero]), keep)
    m = spread(w, x, w.node("Cast", [b], to=code(w)), axes)
    if way == "x":
        return product(w, scaled(w, x.name, keep), m)
    if way == "product":
        return scaled(w, product(w, x.name, m), keep)
    if way == "select":
        xs = scaled(w, x.name, keep)
        off = w.node("Mul", [xs, w.constant(0.0)])
        other = w.node("Cast", [w.node("Not", [b])], to=code(w))
        return w.node("Add", [w.node("Mul", [m, xs]), w.node("Mul", [other, off])])
    return product(w, x.name, scaled(w, m, keep))


def product(w: Writer, a: str, b: str) -> str:
    return w.node("Mul", [a, b] if w.rng.random() < 0.5 else [b, a])


def scaled(w: Writer, x: str, keep: float) -> str:
    if w.rng.random() < 0.5:
        return w.node("Div", [x, w.number(keep)])
    return product(w, x, w.number(1.0 / keep))


def layered(w: Writer, x: Tensor, rate: float, axes: Sequence[int]) -> str:
    """Return what torch.onnx makes of Dropout2d: a Dropout of ones, or a Dropout of x where no axis is shared."""
    ratio, on = w.constant(rate, np.float32), w.constant(True, np.bool_)
    if not axes:
        return w.node("Dropout", [x.name, ratio, on], outputs=w.rng.choice([1, 2]))
    ones = template(w, x, mask_dims(x, axes), axes, ones=True)
    return product(w, x.name, w.node("Dropout", [ones, ratio, on]))


def dropout(w: Writer, x: Tensor) -> Tensor:
    """Return dropout of ``x`` with random axes, rate and spelling."""
    rate = w.rng.choice(RATES)
    choices: list[tuple[int, ...]] = [()]
    if x.rank > 2:
        choices += [tuple(range(2, x.rank))] * 3 + [tuple(range(1, x.rank - 1))] * 2 + [tuple(range(1, x.rank))]
    axes = w.rng.choice(choices)
    w.setting.wanted.append((rate, axes))
    way = w.rng.random()
    mark = len(w.nodes), len(w.initializers)
    if way < 0.2 and w.opset >= 12:
        name = layered(w, x, rate, axes)
    elif way < 0.25 and not axes:
        name = w.node("Dropout", [x.name], **({"ratio": rate} if w.opset < 12 else {}))
    else:
        name = masked(w, x, rate, axes)
    return Tensor(name, x.dims) if w.setting.dropout else undone(w, x, mark)


def shared(w: Writer, x: Tensor) -> Tensor:
    """Return a sum of two dropouts with one mask."""
    rate, axes = w.rng.choice(RATES), tuple(range(2, x.rank))
    other = Tensor(w.node("Abs", [x.name]), x.dims)
    w.setting.wanted += [(rate, axes)] * 2
    mark = len(w.nodes), len(w.initializers)
    m = scaled(w, w.node("Cast", [kept(w, x, rate, axes)], to=code(w)), 1.0 - rate)
    one, two = product(w, x.name, m), product(w, other.name, m)
    if not w.setting.dropout:
        undone(w, x, mark)
        one, two = x.name, other.name
    return Tensor(w.node("Add", [one, two]), x.dims)


def deferred(w: Writer, x: Tensor) -> Tensor:
    """Return dropout whose scale stands behind a view or an activation."""
    rate, axes = w.rng.choice(RATES), tuple(range(2, x.rank))
    w.setting.wanted.append((rate, axes))
    mark = len(w.nodes), len(w.initializers)
    name = product(w, x.name, w.node("Cast", [kept(w, x, rate, axes)], to=code(w)))
    if not w.setting.dropout:
        undone(w, x, mark)
        name = x.name
    order = [0, *range(x.rank - 1, 0, -1)]
    behind = w.rng.choice(["Relu", "Transpose", "Neg"])
    name = w.node(behind, [name], **({"perm": order} if behind == "Transpose" else {}))
    mark = len(w.nodes), len(w.initializers)
    after = scaled(w, name, 1.0 - rate)
    dims = tuple(x.dims[axis] for axis in order) if behind == "Transpose" else x.dims
    return Tensor(after, dims) if w.setting.dropout else undone(w, Tensor(name, dims), mark)


def undone(w: Writer, x: Tensor, mark: tuple[int, int]) -> Tensor:
    """Take out again what was written since ``mark``."""
    del w.nodes[mark[0] :], w.initializers[mark[1] :]
    return x
