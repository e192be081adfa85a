"""What an output means: classes, numbers, or yes and no; and in which form the network gives it.

It reads the last nodes of a graph and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import onnx_ir as ir

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.montecarlo.facts import Fact

__all__ = ["STATISTICS", "TASKS", "Target", "Task", "choose_tasks"]

Task = Literal["auto", "classification", "segmentation", "regression", "binary"]
TASKS: Final = ("classification", "segmentation", "regression", "binary")

#: Statistics by task; the first ones are made by default.
STATISTICS: Final[dict[str, tuple[str, ...]]] = {
    "classes": ("mean", "variance", "entropy", "mutual_information", "expected_entropy", "variation_ratio", "std"),
    "regression": ("mean", "variance", "std"),
    "heteroscedastic": ("mean", "variance", "epistemic", "aleatoric", "std"),
}
_DEFAULTS: Final = {"classes": 4, "regression": 2, "heteroscedastic": 4}
_THROUGH: Final = (
    "Add",
    "Identity",
    "Cast",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Resize",
    "Mul",
    "Sub",
    "Div",
)
_FLOATS: Final = (1, 10, 11, 16)


@dataclass(frozen=True)
class Target:
    """An output whose draws are summed up.

    Attributes:
        value: the output.
        task: "classification" (segmentation too), "binary" or "regression".
        given: "logits", "probabilities" or "log_probabilities"; "values" for regression.
        axis: the axis of classes, counted from the front, the samples' axis included; -1 where there is none.
        statistics: what is made, in order.
        log_variance: the output that holds the logarithm of the noise that the network sees in its data.
        note: what was assumed; "" where it was told.
    """

    value: ir.Value
    task: str
    given: str
    axis: int
    statistics: tuple[str, ...]
    log_variance: ir.Value | None = None
    note: str = ""

    def of(self, value: ir.Value, log_variance: ir.Value | None) -> Target:
        """Return the same for the output of another model."""
        return replace(self, value=value, log_variance=log_variance)

    def with_all_statistics(self) -> Target:
        """Return the same with every statistic that there is."""
        return replace(self, statistics=STATISTICS[self.kind])

    @property
    def kind(self) -> str:
        """The row of STATISTICS."""
        if self.task == "regression":
            return "heteroscedastic" if self.log_variance is not None else "regression"
        return "classes"


def choose_tasks(
    values: list[ir.Value],
    facts: Mapping[ir.Value, Fact],
    task: str | Mapping[str, str] = "auto",
    statistics: tuple[str, ...] | None = None,
    class_axis: int | None = None,
    log_variance: str | Mapping[str, str] | None = None,
) -> list[Target]:
    """Return what is made of each output.

    1. An output of integers has no mean; it is left out, or refused where there is no other.
    2. "auto": a Softmax, LogSoftmax or Sigmoid at the end says what it is. Else one column is regression, and several
       are logits, of classes along the last axis after a matrix product and along axis 1 after a convolution.
    3. ``log_variance`` names the output that goes with an output of regression.

    Raises:
        SpecError: an unknown task, statistic or name; or what an output means cannot be told.
    """
    floats = [value for value in values if facts[value].dtype in _FLOATS or facts[value].dtype == 0]
    if not floats:  # case 1
        raise SpecError(f"output {values[0].name!r} holds integers, which have no mean; make the scores an output")
    partners = _partners(floats, log_variance)  # case 3
    by_name = task if isinstance(task, Mapping) else {value.name or "": task for value in floats}
    unknown = [name for name in by_name if name not in {value.name for value in floats}]
    if unknown:
        raise SpecError(f"task: there is no output {unknown[0]!r} that differs from draw to draw")
    targets = []
    for value in floats:
        if value in partners.values():
            continue
        partner = partners.get(value)
        wanted = "regression" if partner is not None else by_name.get(value.name or "", "auto")
        targets.append(_target(value, facts[value], wanted, class_axis, partner, statistics))
    return targets


def _partners(values: list[ir.Value], named: str | Mapping[str, str] | None) -> dict[ir.Value, ir.Value]:
    if named is None:
        return {}
    known = {value.name or "": value for value in values}
    if isinstance(named, str):
        others = [name for name in known if name != named]
        if len(others) != 1:
            raise SpecError(
                f"log_variance is {named!r}, and there are {len(others)} other outputs; say which it belongs to, as "
                "{'mean': 'log_variance'}"
            )
        named = {others[0]: named}
    for name in (*named, *named.values()):
        if name not in known:
            raise SpecError(f"log_variance: there is no output {name!r} that differs from draw to draw")
    return {known[mean]: known[log] for mean, log in named.items()}


def _target(
    value: ir.Value,
    fact: Fact,
    task: str,
    class_axis: int | None,
    partner: ir.Value | None,
    statistics: tuple[str, ...] | None,
) -> Target:
    if task not in (*TASKS, "auto"):
        raise SpecError(f"task is {task!r}; known: 'auto', {', '.join(map(repr, TASKS))}")
    given, axis, note = _meaning(value, fact, task, class_axis)
    name = "regression" if given == "values" else ("binary" if axis < 0 else "classification")
    target = Target(value, name, given, axis, (), partner, note)
    allowed = STATISTICS[target.kind]
    chosen = allowed[: _DEFAULTS[target.kind]] if statistics is None else tuple(statistics)
    wrong = [each for each in chosen if each not in allowed]
    if wrong:
        raise SpecError(f"output {value.name!r} ({name}) has no statistic {wrong[0]!r}; it has {', '.join(allowed)}")
    return Target(value, name, given, axis, chosen, partner, note)


def _meaning(value: ir.Value, fact: Fact, task: str, class_axis: int | None) -> tuple[str, int, str]:
    """Return how an output is given, its axis of classes, and what was assumed."""
    rank = None if fact.dims is None else len(fact.dims)
    last, axis = _last_activation(value, rank)
    if task == "regression":
        return "values", -1, ""
    if task == "binary" or (task == "auto" and last == "Sigmoid"):
        return ("probabilities" if last == "Sigmoid" else "logits"), -1, ""
    given = {"Softmax": "probabilities", "LogSoftmax": "log_probabilities"}.get(last, "logits")
    if class_axis is not None:
        if rank is None:
            raise SpecError(f"output {value.name!r}: its rank is unknown, so class_axis says nothing; export its shape")
        if not -rank <= class_axis < rank or class_axis % rank == 0:
            raise SpecError(f"class_axis is {class_axis}; output {value.name!r} has axes 1 to {rank - 1} for classes")
        return given, class_axis % rank, ""
    if given != "logits" and axis is not None:
        return given, axis, ""
    if rank is None or rank < 2:
        if task == "auto" and rank == 1:
            return "values", -1, f"{value.name!r} is taken for regression, having one number a sample"
        raise SpecError(f"output {value.name!r}: where its classes are cannot be told; give task and class_axis")
    axis = 1 if rank == 2 or task == "segmentation" else _class_axis(value, rank)
    if axis is None:
        raise SpecError(f"output {value.name!r}: which axis holds classes cannot be told; give class_axis or task")
    if task == "auto" and fact.dims is not None and fact.dims[axis] == 1:
        return "values", -1, f"{value.name!r} is taken for regression, having one column; task='binary' says otherwise"
    note = f"{value.name!r} is taken for logits of classes along axis {axis}; task='regression' says otherwise"
    return given, axis, note if task == "auto" else ""


def _last_activation(value: ir.Value, rank: int | None) -> tuple[str, int | None]:
    """Return the activation that an output ends in, and its axis."""
    node = value.producer()
    while node is not None and node.op_type in ("Identity", "Cast") and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None or node.domain not in ("", "ai.onnx"):
        return "", None
    axis = node.attributes.get_int("axis", -1) if node.op_type in ("Softmax", "LogSoftmax") else None
    if axis is not None and axis < 0:
        axis = None if rank is None else axis % rank
    return node.op_type, axis


def _class_axis(value: ir.Value, rank: int) -> int | None:
    """Return where the layer that made the last channels has them."""
    node, hops = value.producer(), 0
    while node is not None and hops < 16:
        if node.op_type in ("Conv", "ConvTranspose"):
            return 1
        if node.op_type in ("MatMul", "Gemm"):
            return rank - 1
        if node.op_type == "Transpose":
            order = list(node.attributes.get_ints("perm", ())) or list(range(rank))[::-1]
            inner = None if node.inputs[0] is None else _class_axis(node.inputs[0], rank)
            return order.index(inner) if inner in order else None
        if node.op_type not in _THROUGH:
            return None
        following = [each for each in node.inputs if each is not None and each.producer() is not None]
        node, hops = (following[0].producer() if following else None), hops + 1
    return None
