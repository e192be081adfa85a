"""A proposal: node tests of Dropout with axes. In onnx they stand in the class Dropout, beside its others."""

from __future__ import annotations

import numpy as np
import onnx
from onnx.backend.test.case.base import Base
from onnx.backend.test.case.node import expect

# What the generator gives for key 7 and offset 3, over 2**24: four numbers a block, row by row.
NUMBERS = np.array([
    9941846, 2076732, 2729878, 10062662, 9854846, 7715379, 1196089, 8761003, 6256136, 15400722, 5049363, 5767386,
], np.float32) * np.float32(2.0**-24)  # fmt: skip


class Dropout(Base):
    """The new cases."""

    @staticmethod
    def export_training_axes() -> None:
        """Whole feature maps of NCHW are dropped: one entry for the last two axes."""
        node = onnx.helper.make_node(
            "Dropout", ["x", "r", "t", "o"], ["y", "z"], axes=[2, 3], generator="philox4x32_10", seed=7
        )
        x = np.arange(48, dtype=np.float32).reshape(2, 6, 2, 2)
        z = np.greater_equal(NUMBERS, np.float32(0.5)).reshape(2, 6, 1, 1)
        y = np.where(z, x * np.float32(2), np.float32(0))
        inputs = [x, np.array(0.5, np.float32), np.array(True), np.array(3, np.int64)]
        expect(node, inputs=inputs, outputs=[y, z], name="test_training_dropout_axes")

    @staticmethod
    def export_training_axes_negative() -> None:
        """Negative axes, that are not next to each other; the mask may go unused."""
        node = onnx.helper.make_node(
            "Dropout", ["x", "r", "t", "o"], ["y"], axes=[-1, 1], generator="philox4x32_10", seed=7
        )
        x = np.arange(60, dtype=np.float64).reshape(3, 5, 2, 2)
        z = np.greater_equal(NUMBERS[:6], np.float32(0.25)).reshape(3, 1, 2, 1)
        y = np.where(z, x * (1 / 0.75), 0.0)
        inputs = [x, np.array(0.25, np.float32), np.array(True), np.array(3, np.int64)]
        expect(node, inputs=inputs, outputs=[y], name="test_training_dropout_axes_negative")

    @staticmethod
    def export_axes_inference() -> None:
        """Without training nothing is dropped, and the mask still has one entry for each map."""
        node = onnx.helper.make_node("Dropout", ["x"], ["y", "z"], axes=[2, 3])
        x = np.arange(48, dtype=np.float32).reshape(2, 6, 2, 2)
        expect(node, inputs=[x], outputs=[x, np.ones((2, 6, 1, 1), bool)], name="test_dropout_axes_inference")
