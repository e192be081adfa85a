"""All draws equal: dropout had no effect, and what looks like certainty is none. It looks at results alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.montecarlo.result import Array, Statistics

__all__ = ["refuse"]


def refuse(outputs: Mapping[str, Statistics], draw: Callable[[], Iterable[Array]] | None = None) -> None:
    """Raise an error where all draws of all rows and outputs are equal.

    Args:
        outputs: the statistics of each output.
        draw: draws some, [T, N, ...] for each output, where sums alone are at hand and say that draws are as good as
            equal; then they have to be equal to the last bit.

    Raises:
        SpecError: they are equal.
    """
    if any(each.draws is None and _differ(each) for each in outputs.values()):
        return
    drawn = [each.draws for each in outputs.values() if each.draws is not None]
    if not drawn and draw is not None:
        drawn = list(draw())
    if any((each != each[:1]).any() for each in drawn):
        return
    raise SpecError(
        f"all draws of {', '.join(map(repr, outputs))} are equal: dropout has no effect for these inputs "
        "(nothing was dropped, or what was dropped is zero anyway)"
    )


def _differ(output: Statistics) -> bool:
    """Return whether draws differ by more than rounding, or nobody can tell."""
    return "squares" not in output.sums or bool((output.epistemic > (1e-6 * output.mean) ** 2).any())
