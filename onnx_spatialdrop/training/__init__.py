"""Models with spatial dropout into trainers, and trained weights back into inference models.

Importing this loads no trainer: onnxruntime-training is imported when artifacts are made, onnx2torch by
onnx_spatialdrop.training.pytorch alone, and JAX by onnx_spatialdrop.training.jax alone.
"""

from onnx_spatialdrop.training.artifacts import Artifacts, artifacts
from onnx_spatialdrop.training.parameters import trainable
from onnx_spatialdrop.training.update import update

__all__ = ["Artifacts", "artifacts", "trainable", "update"]
