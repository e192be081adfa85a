"""Say what will go wrong with a model's dropout, and where, and what to do. Never changes a model."""

from onnx_spatialdrop.passes.check.check import check
from onnx_spatialdrop.passes.check.finding import Finding

__all__ = ["Finding", "check"]
