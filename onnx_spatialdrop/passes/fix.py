"""Make a model's switches constants, or switches again. It changes who decides, and never what a node computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.errors import SpatialDropError, SpecError
from onnx_spatialdrop.graph import controls, scopes
from onnx_spatialdrop.operator import node as op

__all__ = ["FREE", "FixPass", "fix"]

#: Says that a switch is to be fed again.
FREE: Final = "free"
_NOTHING: Final = "the model has no dropout that a switch could control; 'onnx-spatialdrop inspect' says what it has"

Free = Literal["free"]


class FixPass(ir.passes.InPlacePass):
    """Make ``training_mode`` and ``step`` constants of a model, or inputs with a default again.

    1. A value: the switch of that name leaves the graph's inputs, and is a constant of that value from then on. A
       switch that is a constant already gets the new value.
    2. "free": the constant of that name becomes an input again, with its value as the default. Nodes that read a
       constant of their own, as exports with dropout always on have it, read the switch from then on.
    3. None: the switch stays as it is.
    4. Nodes in functions and subgraphs, and what expand wrote, follow, since they read the switch by its name.
    5. A model in which nobody reads such a switch, or with a constant of its own in a function, is refused.
    """

    def __init__(
        self, training_mode: bool | Free | None = None, step: int | Sequence[int] | Free | None = None
    ) -> None:
        super().__init__()
        self.training_mode: bool | Free | None = None
        self.step: list[int] | Free | None = None
        if training_mode is not None:
            self.training_mode = FREE if _is_free(training_mode) else arguments.flag(training_mode, "training_mode")
        if step is not None:
            self.step = FREE if _is_free(step) else _steps(step)
        if training_mode is None and step is None:
            raise SpatialDropError("nothing to fix: give training_mode or step")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place.

        Raises:
            SpatialDropError: case 5.
        """
        modified = False
        if self.training_mode is not None:
            value = None if self.training_mode == FREE else np.array(self.training_mode)
            modified |= _apply(model, controls.TRAINING_MODE, 1, value)
        if self.step is not None:
            value = None if isinstance(self.step, str) else np.array(self.step, np.int64)
            modified |= _apply(model, controls.STEP, 2, value)
        return ir.passes.PassResult(model, modified=modified)


def _is_free(value: object) -> bool:
    return isinstance(value, str) and value == FREE


def _steps(step: int | Sequence[int] | str) -> list[int]:
    if isinstance(step, str):
        raise TypeError(f"step must be a whole number, several, or {FREE!r}, not {step!r}")
    steps = list(arguments.integers(step, "step"))
    if not steps or (len(steps) > 1 and min(steps) < 0):
        raise SpecError(f"step is {steps}; it must be one whole number, or one of 0 or more for each sample")
    return [arguments.integer(one, "step", -(2**63), 2**63 - 1) for one in steps]


def _apply(model: ir.Model, name: str, position: int, value: np.ndarray | None) -> bool:
    dtype = ir.DataType.BOOL if position == 1 else ir.DataType.INT64
    named = [
        found
        for found in [*model.graph.inputs, *model.graph.initializers.values()]
        if found.name in controls.names_of(name) and found.dtype == dtype
    ]
    if value is None:
        return _free(model, position, named)
    if not named and not scopes.spatial_dropouts(model):
        raise SpatialDropError(_NOTHING)
    if not named:
        raise SpatialDropError(
            f"the model has no switch {name}; fix(..., {name}={FREE!r}) makes one where nodes read a constant, and "
            "'onnx-spatialdrop inspect' lists what they read"
        )
    for switch in dict.fromkeys(named):
        controls.fix(model.graph, switch, value)
    return True


def _free(model: ir.Model, position: int, named: Sequence[ir.Value]) -> bool:
    free = [switch for switch in named if switch.is_graph_input()]
    if not free and named:
        switch = named[0]
        switch.shape = ir.Shape([]) if position == 1 else ir.Shape(["steps"])
        model.graph.inputs.append(switch)
        free = [switch]
    sites = list(scopes.spatial_dropouts(model))
    constant = [site.node for site in sites if controls.constant_of(site.node.inputs[position]) is not None]
    inside = [node for node in constant if isinstance(node.graph, ir.Function)]
    if inside:
        raise SpatialDropError(
            f"{op.describe(inside[0])}: reads a constant of its own in a function; write functions out first "
            "(onnx_ir.passes.common.InlinePass)"
        )
    if constant and not free:
        held = controls.constant_of(constant[0].inputs[position])
        assert held is not None
        add = controls.add_training_mode if position == 1 else controls.add_step
        free = [add(model.graph, held.reshape(-1)[0].item())]
    if not free:
        raise SpatialDropError(_NOTHING)
    for node in constant:
        node.replace_input_with(position, free[0])
    return True


@io.same_kind
def fix(
    model: io.Source,
    output: io.PathLike | None = None,
    *,
    training_mode: bool | Free | None = None,
    step: int | Sequence[int] | Free | None = None,
) -> io.Result:
    """Return the model with a switch made constant, or made an input again.

    A model that always drops suits servers and tools that feed images and nothing else; a constant step makes it
    deterministic.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        output: a file to write; then its path is returned.
        training_mode: True: dropout is always on. False: always off; ``remove`` takes the nodes out as well. "free": an
            input again, with the constant as its default. None: as it is.
        step: the draw that every run takes, or one for each sample; -1 is a fresh one a run. "free" and None as above.

    Returns:
        The same kind of model as came in; from a path, an ir.Model.

    Raises:
        SpatialDropError: neither is given, or the model has nothing that such a switch could control.
        TypeError, SpecError: an argument of another type, or out of range.
        ModelFileError: a file that cannot be read or written.
    """
    return io.apply(model, output, FixPass(training_mode, step))
