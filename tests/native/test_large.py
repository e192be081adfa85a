"""Tensors past the caches, where loops ask ahead, pass over gaps, and write past the caches: the same bits."""

import math

import pytest
from native_models import assert_right, drop_node, make_model, make_session, numbers, run
from onnx import helper

#: Past the size from which stores bypass the caches.
BYTES = 9 << 20
#: Bytes of a map, or of what stands for one: around every size at which the kernel does something else.
MAPS = {"100 B": 100, "2 KiB": 2100, "4 KiB": 4096, "8 KiB": 8200, "12 KiB": 12544, "40 KiB": 40_000}
INTERLEAVED = {"whole rows": (64, 9001), "parts of rows": (40, 700, 13), "rows of maps": (4, 5, 1100)}


def _shape(layout: str, itemsize: int) -> tuple[tuple[int, ...], list[int]]:
    elements = BYTES // itemsize
    if layout in MAPS:
        inner = MAPS[layout] // itemsize
        return (2, elements // 2 // inner + 1, inner), [2]
    if layout == "channels last":
        return (4, elements // 4 // 67 + 1, 67), [1]
    inner_shape = INTERLEAVED[layout]
    return (elements // math.prod(inner_shape) + 1, *inner_shape), [1] if len(inner_shape) == 2 else [1, 3]


LAYOUTS = (*MAPS, "channels last", *INTERLEAVED)


def _check(layout: str, dtype: str) -> None:
    """Run a node out of place, and between two nodes that leave it one memory for X and Y, against the reference."""
    x = numbers((1,), dtype)
    shape, axes = _shape(layout, x.itemsize)
    x = numbers(shape, dtype)
    for ratio in (0.2, 0.6):
        attributes = {"axes": axes, "ratio": ratio, "seed": 3}
        outside = make_session(make_model([drop_node("x", "y", "", **attributes)], dtype, shape))
        assert_right(x, run(outside, x, True, [5])[0], None, **attributes, step=[5])
        if dtype in ("float32", "float64"):  # ONNX Runtime computes Neg of the others in float, and rounds elsewhere
            nodes = [drop_node("v", "w", "", **attributes), helper.make_node("Neg", ["w"], ["y"])]
            inside = make_session(make_model([helper.make_node("Neg", ["x"], ["v"]), *nodes], dtype, shape))
            assert_right(-x, -run(inside, x, True, [5])[0], None, **attributes, step=[5])


@pytest.mark.parametrize("path", ["portable", "avx2", "avx512"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_instruction_set(layout: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_SPATIALDROP_CPU", path)
    _check(layout, "float32")


@pytest.mark.parametrize("row", ["zen4", "zen5", "other"])
@pytest.mark.parametrize("layout", ["4 KiB", "40 KiB", "channels last", "parts of rows"])
def test_every_row_of_the_table_of_processors(layout: str, row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_SPATIALDROP_TUNING", row)
    _check(layout, "float32")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_type(layout: str, dtype: str) -> None:
    _check(layout, dtype)
