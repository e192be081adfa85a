"""Which initializers of a model are weights that training changes, and their numbers in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import onnx_ir as ir

from onnx_spatialdrop import arguments
from onnx_spatialdrop.errors import TrainerError
from onnx_spatialdrop.operator import node as op

__all__ = ["chosen", "in_memory", "trainable"]

#: Operators with weights -> the inputs that hold them. Batch norm's statistics are not trained by gradients.
_WEIGHTS: Final[dict[str, tuple[int, ...]]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "PRelu": (1,),
    "Gather": (0,),
    "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
}

#: Operators whose result a bias is added to in a node of its own.
_BIASED: Final = frozenset({"MatMul", "Conv", "ConvTranspose"})


def trainable(model: ir.Model) -> list[str]:
    """Return the names of the initializers that look like weights, in the order of the file.

    Those are initializers of a floating-point type that feed a weight or bias input of a layer (Conv, Gemm, MatMul,
    normalisations, recurrent layers, PRelu, Gather), or an Add right after a MatMul or convolution. Constants that a
    graph multiplies or adds elsewhere are not: name those to be trained yourself.
    """
    return [
        name
        for name, value in model.graph.initializers.items()
        if value.dtype in op.FLOAT_TYPES and any(_is_weight(use.node, use.idx) for use in value.uses())
    ]


def _is_weight(node: ir.Node, index: int) -> bool:
    if node.domain != "":
        return False
    if node.op_type == "Add":
        other = node.inputs[1 - index]
        producer = None if other is None else other.producer()
        return producer is not None and producer.op_type in _BIASED
    return index in _WEIGHTS.get(node.op_type, ())


def chosen(model: ir.Model, requires_grad: Sequence[str] | None) -> list[str]:
    """Return the names to train: those that are asked for, or all that ``trainable`` finds.

    Raises:
        TrainerError: one of them is no initializer of the model.
    """
    names = trainable(model) if requires_grad is None else arguments.strings(requires_grad, "requires_grad")
    missing = [name for name in names if name not in model.graph.initializers]
    if missing:
        raise TrainerError(
            f"requires_grad names {missing[0]!r}, which is no initializer of the model; "
            f"it has {', '.join(map(repr, trainable(model)))}"
        )
    return names


def in_memory(model: ir.Model) -> ir.Model:
    """Read external weights into memory, in place, and return the model; trainers look for no files."""
    for name, value in model.graph.initializers.items():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.tensor(value.const_value.numpy().copy(), name=name)
    return model
