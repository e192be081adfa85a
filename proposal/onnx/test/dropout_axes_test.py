"""A proposal: cases for shape_inference_test.py and for the version converter's tests."""

from __future__ import annotations

#: data's shape, axes, the mask's shape.
SHAPES = [
    ((2, 3, 4, 5), [2, 3], (2, 3, 1, 1)),
    ((2, 3, 4, 5), [-1, -2], (2, 3, 1, 1)),
    (("N", "C", "H", "W"), [2, 3], ("N", "C", 1, 1)),
    (("N", 7), [], ("N", 7)),
    ((4,), [0], (1,)),
    (("N", "L", 3), [0], (1, "L", 3)),
]
#: Shapes and axes that have to fail.
ILL_FORMED = [((2, 3), [2]), ((2, 3), [-3]), ((2, 3), [0, 0]), ((2, 3), [1, -1])]

#: Attributes of Dropout 22, which are those of the new version: an upgrade changes nothing.
UPGRADES: list[dict[str, int]] = [{}, {"seed": 3}]
#: Attributes and inputs beyond those of Dropout 22, with whether a downgrade may leave them out.
DOWNGRADES = [({"generator": "unspecified"}, True), ({"axes": [2, 3]}, False), ({"generator": "philox4x32_10"}, False)]
