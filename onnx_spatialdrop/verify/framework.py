"""What verification asks of a framework, whichever it is. No framework is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "FrameworkRun", "FrameworkStep", "Layer", "feeds"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Layer:
    """One dropout of the ONNX model.

    Attributes:
        name: the layer's name (see passes/layers.py): "block.drop", and "block.drop:1" for its second call.
        node: the name of the node in the file, which its form may have replaced.
        axes: the axes of X along which one mask entry is shared; negatives count from the end.
        rank: the rank of X; None where the file does not tell.
        ratio: fraction dropped, in [0, 1].
        scale: what kept values are multiplied by; 0 stands for 1 / (1 - ratio).
        seed: the node's 64-bit key.
        rng: the generator of the node's mask.
        dtype: the type of X as NumPy names it; None where the file does not tell.
        mask_input: the name of the graph input that is its mask; None where the model draws the mask itself.
        mask_dims: the dimensions that the file declares for that input; None for those that are open.
    """

    name: str
    node: str
    axes: tuple[int, ...]
    rank: int | None
    ratio: float
    scale: float
    seed: int
    rng: str
    dtype: str | None
    mask_input: str | None = None
    mask_dims: tuple[int | None, ...] | None = None


@dataclass(frozen=True)
class FrameworkStep:
    """What a framework's training-mode forward pass did.

    Attributes:
        outputs: the results, in the order of the ONNX model's outputs.
        masks: for each layer's name the mask that the pass applied: bool, True where kept, the shape of the layer's
            input with the shared axes set to 1.
        scales: what each layer multiplied kept values by; a layer that is missing is taken at the node's own scale.
        inputs: what each layer was called with, where the framework tells: it shows which layer is the first that
            something else reaches.
        drawn: the masks to feed to mask inputs where they were found without the pass, by redrawing them; None feeds
            ``masks``.
        step: what to feed to the model's input ``step``; None feeds the number of the step.
    """

    outputs: tuple[Array, ...]
    masks: Mapping[str, npt.NDArray[np.bool_]]
    scales: Mapping[str, float] = field(default_factory=dict)
    inputs: Mapping[str, Array] = field(default_factory=dict)
    drawn: Mapping[str, npt.NDArray[np.bool_]] | None = None
    step: npt.NDArray[np.int64] | None = None


@runtime_checkable
class FrameworkRun(Protocol):
    """A framework's model, run in training mode one step after the other: dropout trains, all else does not.

    Attributes:
        framework: what reports call it, with its version: "torch 2.13.0".
    """

    framework: str

    def begin(self, layers: Sequence[Layer]) -> None:
        """Make ready for step 0; called once.

        Args:
            layers: the dropouts that the ONNX model holds, in the order of the file; only these are to drop.

        Raises:
            VerifyError: the framework's model cannot be run so.
        """
        ...

    def run(self, inputs: Mapping[str, Array], step: int) -> FrameworkStep:
        """Run one forward pass.

        Args:
            inputs: the ONNX model's inputs by name, in its order, without switches and masks.
            step: the number of the pass; it grows by one with every call.
        """
        ...


def feeds(layers: Sequence[Layer], masks: Mapping[str, Array]) -> dict[str, Array]:
    """Return what to feed to mask inputs: to each one the mask of the layer that it is called after.

    Whoever feeds a model goes by the names of its inputs, so a mask that reaches another layer is a fault to be found.
    """
    found = {}
    for layer in layers:
        if layer.mask_input is not None:
            called = layer.mask_input.removesuffix(".mask")
            found[layer.mask_input] = np.asarray(masks[called if called in masks else layer.name])
    return found
