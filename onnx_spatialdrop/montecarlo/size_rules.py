"""Shape arithmetic: what small integer tensors hold, with multiples of the number of rows N among them.

A rule returns the entries of its output, each a number, a multiple of N, the name of a size, or None (some number
that does not depend on N); or it raises Unproven.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from onnx_spatialdrop.montecarlo.facts import Dim, Fact, Multiple, Unproven
from onnx_spatialdrop.montecarlo.view import View

__all__ = ["SIZES", "made_of_sizes"]

_LARGEST: Final = 64
Entries = tuple[Dim, ...]


def _entries(view: View, index: int) -> Entries:
    fact = view.get(index)
    if fact.entries is None:
        raise Unproven("it computes with sizes that are not known")
    return fact.entries


def _shape(view: View) -> Entries:
    dims = view.dims()
    start = view.node.attributes.get_int("start", 0)
    end = view.node.attributes.get_int("end", len(dims))
    return dims[start:end]


def _size(view: View) -> Entries:
    total: Dim = 1
    for dim in view.dims():
        total = _times(total, dim)
    return (total,)


def _same(view: View) -> Entries:
    return _entries(view, 0)


def _concat(view: View) -> Entries:
    return tuple(entry for index in range(len(view.inputs)) for entry in _entries(view, index))


def _gather(view: View) -> Entries:
    held = _entries(view, 0)
    chosen = view.get(1).ints()
    if any(not -len(held) <= index < len(held) for index in chosen):
        raise Unproven("it picks a size that is not there")
    return tuple(held[index] for index in chosen)


def _slice(view: View) -> Entries:
    held = _entries(view, 0)
    if view.opset < 10:
        starts, ends = (list(view.node.attributes.get_ints(name, ())) for name in ("starts", "ends"))
        step = 1
    else:
        starts, ends = view.get(1).ints(), view.get(2).ints()
        step = 1 if view.maybe(4) is None else view.get(4).ints()[0]
    return held[slice(starts[0], None if ends[0] >= 2**31 - 1 else ends[0], step)] if step > 0 else _refuse()


def _refuse() -> Entries:
    raise Unproven("it turns sizes round")


def _reshape(view: View) -> Entries:
    if view.get(1).dims not in ((0,), (1,)):
        raise Unproven("it makes a matrix of sizes")
    return _entries(view, 0)


def _times(a: Dim, b: Dim) -> Dim:
    if isinstance(a, Multiple) or isinstance(b, Multiple):
        a, b = (a, b) if isinstance(a, Multiple) else (b, a)
        if not isinstance(b, int) or not isinstance(a, Multiple):
            raise Unproven("it multiplies the number of samples by what is not known")
        return Multiple(a.times * b) if b != 0 else 0
    if a == 1 or b == 1:
        return b if a == 1 else a
    return a * b if isinstance(a, int) and isinstance(b, int) else None


def _over(a: Dim, b: Dim) -> Dim:
    if isinstance(b, Multiple):
        raise Unproven("it divides by the number of samples")
    if isinstance(a, Multiple):
        if not isinstance(b, int) or b <= 0 or a.times % b:
            raise Unproven("it divides the number of samples")
        return Multiple(a.times // b)
    if b == 1:
        return a
    return int(a / b) if isinstance(a, int) and isinstance(b, int) and b != 0 else None


def _plus(a: Dim, b: Dim, sign: int = 1) -> Dim:
    if b == 0:
        return a
    if isinstance(a, Multiple) or isinstance(b, Multiple):
        raise Unproven("it adds to the number of samples")
    return a + sign * b if isinstance(a, int) and isinstance(b, int) else None


def _equal(a: Dim, b: Dim) -> Dim:
    if isinstance(a, Multiple) or isinstance(b, Multiple):
        other = b if isinstance(a, Multiple) else a
        if isinstance(other, int) and other < 0:
            return 0
        raise Unproven("it compares the number of samples")
    return int(a == b) if isinstance(a, int) and isinstance(b, int) else None


def _pairwise(combine: Callable[[Dim, Dim], Dim]) -> Callable[[View], Entries]:
    def rule(view: View) -> Entries:
        a, b = _entries(view, 0), _entries(view, 1)
        if len(a) != len(b) and 1 not in (len(a), len(b)):
            raise Unproven("its inputs do not fit")
        count = max(len(a), len(b)) if min(len(a), len(b)) else 0
        return tuple(combine(a[index % len(a)], b[index % len(b)]) for index in range(count))

    return rule


def _where(view: View) -> Entries:
    chosen, a, b = (_entries(view, index) for index in range(3))
    count = max(len(chosen), len(a), len(b))
    if {len(chosen), len(a), len(b)} - {1, count}:
        raise Unproven("its inputs do not fit")
    out: list[Dim] = []
    for index in range(count):
        condition, x, y = (each[index % len(each)] for each in (chosen, a, b))
        if isinstance(condition, int):
            out.append(x if condition else y)
        elif isinstance(x, Multiple) or isinstance(y, Multiple):
            if x != y:
                raise Unproven("it chooses between the number of samples and another")
            out.append(x)
        else:
            out.append(None)
    return tuple(out)


def _product(view: View) -> Entries:
    held = _entries(view, 0)
    if "axes" in view.node.attributes and view.node.attributes["axes"].as_ints() not in ((0,), (-1,), [0], [-1]):
        raise Unproven("it multiplies along an axis that is not there")
    total: Dim = 1
    for entry in held:
        total = _times(total, entry)
    return (total,)


SIZES: Final[dict[str, Callable[[View], Entries]]] = {
    **dict.fromkeys(("Cast", "CastLike", "Identity", "Squeeze", "Unsqueeze"), _same),
    "Add": _pairwise(_plus),
    "Concat": _concat,
    "Div": _pairwise(_over),
    "Equal": _pairwise(_equal),
    "Gather": _gather,
    "Mul": _pairwise(_times),
    "ReduceProd": _product,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Sub": _pairwise(lambda a, b: _plus(a, b, -1)),
    "Where": _where,
}


def made_of_sizes(view: View, outputs: list[Fact]) -> Entries | None:
    """Return the entries of a node's output where it is shape arithmetic; None where it is not.

    Raises:
        Unproven: it is shape arithmetic with the number of rows that cannot be followed.
    """
    rule = SIZES.get(view.node.op_type)
    out = outputs[0] if outputs else None
    if rule is None or out is None or (out.dims is not None and len(out.dims) > 1):
        return None
    if view.node.op_type not in ("Shape", "Size"):
        facts = [fact for fact in view.inputs if fact is not None]
        if any(fact.axis is not None for fact in facts) or not _integers(out.dtype):
            return None
        if any(fact.entries is None for fact in facts[: 3 if view.node.op_type == "Where" else 2]) and not any(
            fact.counts_rows for fact in facts
        ):
            return None
    entries = rule(view)
    return entries if len(entries) <= _LARGEST else None


def _integers(dtype: int) -> bool:
    return dtype in (6, 7, 9)  # int32, int64, bool
