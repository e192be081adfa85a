"""What callers choose, checked: the arguments that one file and two sessions have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from onnx_spatialdrop import arguments
from onnx_spatialdrop.errors import FormError, SpecError
from onnx_spatialdrop.montecarlo.tasks import TASKS
from onnx_spatialdrop.passes.expand.targets import SINGLE_STEP, TARGETS, resolve

__all__ = ["STRATA", "Chunk", "Layers", "Options", "chunk_of", "layers_of", "options", "target_of"]

#: Which dropout nodes are live: "all", "last", or names of nodes or of the values that they compute.
Layers = Literal["all", "last"] | Sequence[str]

#: How many draws run at once.
Chunk = Literal["auto", "all"] | int

#: The forms that draw by the operator's definition.
_DEFINED: Final = frozenset({"philox", "philox-int32"})

#: Over how many draws nodes are balanced by default.
STRATA: Final = 31


@dataclass(frozen=True)
class Options:
    """Checked arguments; see monte_carlo for what they mean."""

    samples: int
    task: str | dict[str, str]
    statistics: tuple[str, ...] | None
    layers: Layers
    class_axis: int | None
    log_variance: str | dict[str, str] | None
    strata: int


def options(
    samples: int = 31,
    task: str | Mapping[str, str] = "auto",
    statistics: Sequence[str] | None = None,
    layers: Layers = "all",
    class_axis: int | None = None,
    log_variance: str | Mapping[str, str] | None = None,
    strata: int = STRATA,
) -> Options:
    """Return the arguments, checked.

    Raises:
        SpecError: a value that is not allowed.
        TypeError: a value of another type.
    """
    tasks = _by_output(task, "task")
    for each in tasks.values() if isinstance(tasks, dict) else [tasks]:
        arguments.choice(each, "task", ("auto", *TASKS))
    chosen = None if statistics is None else tuple(arguments.strings(statistics, "statistics"))
    if chosen is not None and (not chosen or len(set(chosen)) != len(chosen)):
        raise SpecError(f"statistics is {list(chosen)}; name one or more, each once")
    return Options(
        samples=arguments.integer(samples, "samples", 1, 2**31 - 1),
        task=tasks,
        statistics=chosen,
        layers=layers_of(layers),
        class_axis=None if class_axis is None else arguments.integer(class_axis, "class_axis"),
        log_variance=None if log_variance is None else _by_output(log_variance, "log_variance"),
        strata=arguments.integer(strata, "strata"),
    )


def target_of(target: str | None) -> str | None:
    """Return what is to run a file that sums up its own draws, by its proper name.

    Raises:
        FormError: there is no such target, or it cannot draw at several steps in one run.
    """
    if target is None:
        return None
    name = resolve(target)
    if name in SINGLE_STEP or not _DEFINED & TARGETS[name].keys():
        able = [each for each in TARGETS if each not in SINGLE_STEP and _DEFINED & TARGETS[each].keys()]
        raise FormError(
            f"{name} cannot draw at several steps in one run, as a Monte Carlo file does; run what "
            f"expand(target={name!r}) writes in a loop, or take a target of {', '.join(able)}"
        )
    return name


def layers_of(layers: Layers) -> Layers:
    """Return which nodes are to draw, checked as far as that goes without a model."""
    if isinstance(layers, str):
        if layers not in ("all", "last"):
            raise SpecError(f"layers is {layers!r}; allowed: 'all', 'last', or a list of names")
        return layers
    named = arguments.strings(layers, "layers")
    if not named:
        raise SpecError("layers is empty; name one or more, or 'all' or 'last'")
    return named


def chunk_of(chunk: Chunk) -> Chunk:
    """Return how many draws run at once, checked."""
    if isinstance(chunk, str):
        if chunk not in ("auto", "all"):
            raise SpecError(f"chunk is {chunk!r}; allowed: 'auto', 'all', or a number of draws from 1 on")
        return chunk
    return arguments.integer(chunk, "chunk", 1, 2**31 - 1)


def _by_output(value: str | Mapping[str, str], name: str) -> str | dict[str, str]:
    if isinstance(value, Mapping):
        return {arguments.string(key, name): arguments.string(each, name) for key, each in value.items()}
    return arguments.string(value, name)
