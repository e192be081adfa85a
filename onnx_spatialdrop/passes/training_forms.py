"""What is in training mode in a model and what it is at inference: one policy, for protobufs and ir.Models alike.

Dropout, whatever its ratio and switch, passes its first input on, and its mask is true. Batch normalization normalizes
by the statistics that the file holds, and so these are its running statistics, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from onnx_spatialdrop.analysis.sources import SOURCES
from onnx_spatialdrop.operator import spec

__all__ = [
    "BATCH_NORM",
    "DROPOUT",
    "STATISTICS",
    "TRAINING_ATTRIBUTES",
    "is_unread_dropout",
    "may_be_random",
    "normalizes_by_batch",
]

DROPOUT: Final = "Dropout"
BATCH_NORM: Final = "BatchNormalization"
#: Outputs of a batch normalization in training mode, and the inputs that they are at inference. The saved mean and
#: variance of old opsets, which only a gradient reads, are nothing at inference.
STATISTICS: Final = {1: 3, 2: 4}
#: The attributes that put ONNX's operators into training mode, or into test mode.
TRAINING_ATTRIBUTES: Final = ("training_mode", "is_test")
_TRAINING_MODE_FROM: Final = 14
_IS_TEST_UNTIL: Final = 6
#: Operators that draw and are the model: nothing of them is dropout.
_SAMPLING: Final = frozenset({"Multinomial"})
_STATELESS: Final = "StatelessRandom"


def normalizes_by_batch(opset: int, attributes: Mapping[str, int | None], outputs: int) -> bool:
    """Return whether a BatchNormalization is in training mode.

    Args:
        opset: the version of ONNX's default domain.
        attributes: those of TRAINING_ATTRIBUTES that the node has; None for one that its function is given.
        outputs: how many outputs the node lists: from opset 7 to 13, more than one means training.
    """
    if opset >= _TRAINING_MODE_FROM:
        return attributes.get("training_mode", 0) != 0
    if opset <= _IS_TEST_UNTIL:
        return not attributes.get("is_test", 0)
    return outputs > 1


def may_be_random(domain: str, op_type: str) -> bool:
    """Return whether an operator other than Dropout draws, so that what it draws for has to be proven or named."""
    if op_type.startswith(_STATELESS):
        return True
    return domain == "" and op_type in (SOURCES | _SAMPLING) - {DROPOUT}


def is_unread_dropout(domain: str, op_type: str) -> bool:
    """Return whether an operator is dropout by its name, of a domain whose operators nobody here knows."""
    return "dropout" in op_type.lower() and (domain, op_type) not in (("", DROPOUT), (spec.DOMAIN, spec.OP_TYPE))
