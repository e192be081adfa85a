"""Where the rows of a batch are after a product of two tensors. The rules of row_rules.py hold here too."""

from __future__ import annotations

from onnx_spatialdrop.montecarlo.facts import Unproven
from onnx_spatialdrop.montecarlo.view import Places, View, needs_broadcast, same_place

__all__ = ["einsum", "gemm", "matmul"]


def _needs_plain_scales(view: View, second: int) -> None:
    """Refuse scales and zero points a row; those of a shared second factor may be one a column."""
    columns = (3,) if second == 1 else (second + 1, second + 2)
    for index in range(len(view.inputs)):
        fact = None if index in (0, second) else view.maybe(index)
        if fact is None:
            continue
        single = fact.rank == 0 or fact.dims == (1,)
        by_column = index in columns and fact.rank == 1 and view.get(second).shared
        if not fact.shared or not (single or by_column):
            raise Unproven("it has a scale or a zero point a row")


def matmul(view: View, second: int = 1) -> Places:
    """MatMul and its kin: samples along an axis of rows, of columns, or of a batch; ``second`` is the other factor."""
    a, b = view.get(0), view.get(second)
    _needs_plain_scales(view, second)
    if a.rank < 2 or b.rank < 2:
        raise Unproven("a factor is a vector")
    rank = max(a.rank, b.rank)
    left = None if a.axis is None else (a.axis + rank - a.rank, a.block)
    right = None if b.axis is None else (b.axis + rank - b.rank, b.block)
    if (left is not None and left[0] == rank - 1) or (right is not None and right[0] == rank - 2):
        raise Unproven("it sums over the samples")
    if left is not None and right is not None:
        place = same_place([left, right])
        if place[0] >= rank - 2:
            raise Unproven("it multiplies samples with each other")
        return place
    own, other = (left, b) if left is not None else (right, a)
    assert own is not None
    if not other.shared:
        raise Unproven("it computes with the number of samples")
    if own[0] < rank - 2:
        needs_broadcast(other.dims or (), own[0] - (rank - other.rank))
    return own


def gemm(view: View) -> Places:
    """Gemm: samples are the rows of the first factor."""
    axis, block, _ = view.rows()
    if axis != view.node.attributes.get_int("transA", 0):
        raise Unproven("it sums over the samples")
    if not view.get(1).shared:
        raise Unproven("it multiplies samples with each other")
    added = view.maybe(2)
    if added is not None:
        if added.axis is None:
            if not added.shared:
                raise Unproven("it computes with the number of samples")
            needs_broadcast(added.dims or (), added.rank - 2)
        elif (added.axis + 2 - added.rank, added.block) != (0, block):
            raise Unproven("the samples of its inputs are along different axes")
    return 0, block


def einsum(view: View) -> Places:
    """Einsum without an ellipsis: samples have a letter of their own."""
    equation = view.node.attributes.get_string("equation", "").replace(" ", "")
    if "->" not in equation or "." in equation:
        raise Unproven("its equation has an ellipsis or no output")
    left, output = equation.split("->")
    letters, blocks = set(), set()
    for index, term in enumerate(left.split(",")):
        fact = view.get(index)
        if fact.axis is not None:
            letters.add(term[fact.axis])
            blocks.add(fact.block)
        elif not fact.shared:
            raise Unproven("it computes with the number of samples")
    if len(letters) != 1 or len(blocks) != 1:
        raise Unproven("the samples of its inputs are along different axes")
    (letter,), (block,) = letters, blocks
    for index, term in enumerate(left.split(",")):
        if view.get(index).axis is None and letter in term:
            raise Unproven("what all samples share has a size along the samples' axis")
        if term.count(letter) > 1:
            raise Unproven("it picks a diagonal over the samples")
    if letter not in output:
        raise Unproven("it sums over the samples")
    return output.index(letter), block
