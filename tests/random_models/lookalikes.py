"""What looks like dropout and is none: it has to stay, to the last bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from random_models import spellings
from random_models.writer import Tensor, Writer


def noise(w: Writer, x: Tensor) -> str:
    """Uniform noise that is added."""
    return w.node("Add", [x.name, spellings.uniform(w, x, ())])


def multiplied_noise(w: Writer, x: Tensor) -> str:
    """A draw that no threshold has cut."""
    return w.node("Mul", [x.name, w.node("Div", [spellings.uniform(w, x, ()), w.number(0.5)])])


def gaussian(w: Writer, x: Tensor) -> str:
    """Gaussian noise."""
    return w.node("Mul", [x.name, w.node("RandomNormalLike", [x.name], dtype=spellings.code(w), mean=1.0)])


def bare_mask(w: Writer, x: Tensor) -> str:
    """A mask without a scale, behind which an activation closes it off."""
    m = w.node("Cast", [spellings.kept(w, x, 0.25, ())], to=spellings.code(w))
    return w.node("Sigmoid", [w.node("Mul", [x.name, m])])


def wrong_scale(w: Writer, x: Tensor) -> str:
    """A mask with the scale of another ratio."""
    m = w.node("Cast", [spellings.kept(w, x, 0.25, ())], to=spellings.code(w))
    return w.node("Tanh", [w.node("Mul", [x.name, w.node("Div", [m, w.number(0.5)])])])


def wrong_side(w: Writer, x: Tensor) -> str:
    """A mask that keeps what it should drop."""
    m = w.node("Cast", [w.node("Not", [spellings.kept(w, x, 0.25, ())])], to=spellings.code(w))
    return w.node("Tanh", [w.node("Mul", [x.name, w.node("Div", [m, w.number(0.75)])])])


def three_values(w: Writer, x: Tensor) -> str:
    """A draw that is cut in three."""
    cut = w.node("Floor", [w.node("Mul", [spellings.uniform(w, x, ()), w.number(3.0)])])
    return w.node("Mul", [x.name, w.node("Div", [cut, w.number(0.75)])])


def threshold_of_data(w: Writer, x: Tensor) -> str:
    """A threshold that is computed from the data."""
    b = w.node("Less", [spellings.uniform(w, x, ()), w.node("Sigmoid", [x.name])])
    return w.node("Mul", [x.name, w.node("Div", [w.node("Cast", [b], to=spellings.code(w)), w.number(0.75)])])


def filled(w: Writer, x: Tensor) -> str:
    """Dropped values that become 3."""
    m = w.node("Cast", [spellings.kept(w, x, 0.25, ())], to=spellings.code(w))
    other = w.node("Sub", [w.number(1.0), m])
    return w.node("Tanh", [w.node("Add", [w.node("Mul", [x.name, m]), w.node("Mul", [other, w.number(3.0)])])])


def read_twice(w: Writer, x: Tensor) -> str:
    """A mask that something else reads, too."""
    m = w.node("Div", [w.node("Cast", [spellings.kept(w, x, 0.25, ())], to=spellings.code(w)), w.number(0.75)])
    return w.node("Sub", [w.node("Mul", [x.name, m]), w.node("Tanh", [m])])


def two_draws(w: Writer, x: Tensor) -> str:
    """Two masks that are multiplied with each other."""
    one, two = (w.node("Cast", [spellings.kept(w, x, 0.25, ())], to=spellings.code(w)) for _ in range(2))
    both = w.node("Div", [w.node("Mul", [one, two]), w.number(0.5625)])
    return w.node("Tanh", [w.node("Mul", [x.name, both])])


def repeated(w: Writer, x: Tensor) -> str:
    """A mask that repeats a single value of x along its entries."""
    one = w.axes_node("ReduceMean", x.name, [x.rank - 1], since=18, keepdims=1)
    m = w.node("Cast", [spellings.kept(w, x, 0.25, ())], to=spellings.code(w))
    return w.node("Mul", [one, w.node("Div", [m, w.number(0.75)])])


def data_mask(w: Writer, x: Tensor) -> str:
    """No draw at all: what is positive is doubled."""
    m = w.node("Cast", [w.node("Greater", [x.name, w.number(0.0)])], to=spellings.code(w))
    return w.node("Mul", [x.name, w.node("Div", [m, w.number(0.5)])])


def table(w: Writer, x: Tensor) -> str:
    """A constant of 0 and 2, as a mask that was frozen into the file would be."""
    size = x.dims[-1] if isinstance(x.dims[-1], int) else 1
    return w.node("Mul", [x.name, w.constant(2.0 * (np.arange(size) % 3 > 0))])


ALL: list[Callable[[Writer, Tensor], str]] = [
    noise,
    multiplied_noise,
    gaussian,
    bare_mask,
    wrong_scale,
    wrong_side,
    three_values,
    threshold_of_data,
    filled,
    read_twice,
    two_draws,
    repeated,
    data_mask,
    table,
]
