"""Where the entries of a draw stand after ops that rearrange, repeat or cut them: as NumPy arranges them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_spatialdrop.analysis.symbolic_shapes import Shapes
from onnx_spatialdrop.analysis.values import Layout, NotRepresentableError
from onnx_spatialdrop.analysis.views import view
from onnx_spatialdrop.graph.constants import Constants

ENTRIES = (2, 3, 1, 1)


def laid_out(op_type: str, layout: Layout, *operands: list[int], **attributes: Any) -> Layout:
    values = [ir.Value(name="x")]
    for index, numbers in enumerate(operands):
        tensor = ir.tensor(np.array(numbers, np.int64))
        values.append(ir.Value(name=f"c{index}", const_value=tensor, type=ir.TensorType(tensor.dtype)))
    return view(ir.node(op_type, values, attributes), layout, Shapes(Constants()))


def spread(entries: tuple[int, ...], dims: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.arange(np.prod(entries)).reshape(entries), dims)


CASES: list[tuple[str, list[list[int]], dict[str, Any], Any]] = [
    ("Transpose", [], {"perm": [0, 2, 3, 1]}, lambda a: a.transpose(0, 2, 3, 1)),
    ("Transpose", [], {}, lambda a: a.transpose()),
    ("Squeeze", [[2]], {}, lambda a: a.squeeze(2)),
    ("Squeeze", [], {"axes": [-1]}, lambda a: a.squeeze(-1)),
    ("Unsqueeze", [[0, 5]], {}, lambda a: a[None, ..., None]),
    ("Expand", [[2, 3, 4, 5]], {}, lambda a: np.broadcast_to(a, (2, 3, 4, 5))),
    ("Expand", [[7, 1, 1, 1, 1]], {}, lambda a: np.broadcast_to(a, (7, 2, 3, 1, 1))),
    ("Tile", [[1, 1, 4, 5]], {}, lambda a: np.tile(a, (1, 1, 4, 5))),
    ("Reshape", [[2, 3]], {}, lambda a: a.reshape(2, 3)),
    ("Reshape", [[0, 3, 1, 1, 1]], {}, lambda a: a.reshape(2, 3, 1, 1, 1)),
    ("Reshape", [[6]], {}, lambda a: a.reshape(6)),
    ("Flatten", [], {}, lambda a: a.reshape(2, 3)),
    ("Slice", [[0], [1], [0]], {}, lambda a: a[0:1]),
    ("Slice", [[0, 0], [9, 9], [0, 1]], {}, lambda a: a),
    ("Gather", [[0]], {"axis": 3}, lambda a: a.take([0], axis=3)),
]


def _name(value: object) -> str | None:
    """Functions print where they are in memory, which differs from process to process."""
    return None if callable(value) else str(value)


@pytest.mark.parametrize(("op_type", "operands", "attributes", "by_numpy"), CASES, ids=_name)
def test_shapes_are_numpys(op_type: str, operands: list[list[int]], attributes: dict[str, Any], by_numpy: Any) -> None:
    result = laid_out(op_type, Layout(ENTRIES, ENTRIES), *operands, **attributes)
    expected = by_numpy(spread(ENTRIES, ENTRIES))
    assert result.dims == expected.shape
    assert isinstance(result.entries, tuple)
    different = len(np.unique(expected))
    assert int(np.prod(result.entries)) == different, "as many entries as there are different numbers"
    thin = expected[tuple(slice(0, 1) if entry == 1 else slice(None) for entry in result.entries)]
    assert len(np.unique(thin)) == different, "and they lie along the axes that are not 1"


def test_an_order_of_entries_is_remembered_only_where_it_changed() -> None:
    layout = Layout(ENTRIES, ENTRIES)
    assert laid_out("Transpose", layout, perm=[0, 2, 3, 1]).view == ()
    assert laid_out("Transpose", layout, perm=[1, 0, 2, 3]).view != ()
    assert laid_out("Reshape", layout, [2, 3]).view == ()
    assert laid_out("Reshape", layout, [3, 2]).view != ()


@pytest.mark.parametrize(
    ("op_type", "operands", "attributes"),
    [("Tile", [[2, 1, 1, 1]], {}), ("Flatten", [], {"axis": 2}), ("Gather", [[0, 1]], {"axis": 1})],
)
def test_what_repeats_or_picks_entries_is_left(
    op_type: str, operands: list[list[int]], attributes: dict[str, Any]
) -> None:
    with pytest.raises(NotRepresentableError):
        laid_out(op_type, Layout(ENTRIES, ENTRIES), *operands, **attributes)


def test_a_mask_with_repeated_entries_is_not_reshaped() -> None:
    with pytest.raises(NotRepresentableError, match="repeated entries"):
        laid_out("Reshape", Layout(ENTRIES, (2, 3, 4, 4)), [2, 48])
