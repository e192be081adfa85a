"""Figures of uncertainty, by matplotlib: histograms, risk over coverage, reliability, and maps over images."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.metrics.calibration import Reliability
from onnx_spatialdrop.metrics.judged import JudgedClasses, JudgedValues

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["entropies", "maps", "png", "reliabilities", "risks", "spread", "unsure"]

Array = npt.NDArray[Any]
_RIGHT, _WRONG, _LINE = "#2a78b5", "#d1495b", "#7a7a7a"


def _figure(width: float = 5.2, height: float = 3.6) -> tuple[Figure, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SpecError("matplotlib is not installed: pip install 'onnx_spatialdrop[uncertainty]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file, the same bytes for the same figure."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata={"Software": None})
    return out.getvalue()


def entropies(judged: JudgedClasses) -> Figure:
    """Draw the entropies of right and of wrong rows, each as a share of its own."""
    figure, axes = _figure()
    edges = np.linspace(0, max(1e-6, float(judged.entropy.max())), 31)
    for chosen, name, colour in ((judged.right, "right", _RIGHT), (~judged.right, "wrong", _WRONG)):
        if chosen.any():
            weights = np.full(int(chosen.sum()), 1 / chosen.sum())
            label = f"{name} ({int(chosen.sum()):,})"
            axes.hist(judged.entropy[chosen], edges, weights=weights, alpha=0.6, label=label, color=colour)
    axes.set(xlabel="entropy of the mean, nats", ylabel="share of rows", title="Is it less sure where it is wrong?")
    axes.legend()
    return figure


def risks(judged: JudgedClasses) -> Figure:
    """Draw the share of errors left when the least sure rows go."""
    figure, axes = _figure()
    axes.plot(judged.by_entropy.coverage, judged.by_entropy.risk, color=_RIGHT, label="by entropy")
    information = judged.by_information
    axes.plot(information.coverage, information.risk, color=_WRONG, label="by mutual information")
    error = float((~judged.right).mean())
    axes.axhline(error, color=_LINE, linestyle=":", label="at random")
    axes.set(xlabel="share of rows answered", ylabel="share of these wrong", title="What do the sure answers risk?")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, max(1e-3, 1.25 * error))
    axes.legend()
    return figure


def spread(judged: JudgedValues) -> Figure:
    """Draw the squared error left when the rows of the largest variance go."""
    figure, axes = _figure()
    axes.plot(judged.by_spread.coverage, judged.by_spread.risk, color=_RIGHT)
    axes.set(xlabel="share of rows answered", ylabel="mean squared error", title="What do the sure answers risk?")
    return figure


def reliabilities(judged: JudgedClasses) -> Figure:
    """Draw how often it is right over how sure it is, before and after temperature scaling."""
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color=_LINE, linestyle=":")
    after = f"at temperature {judged.temperature:.2f}"
    for curve, name, colour in ((judged.before, "as it is", _RIGHT), (judged.after, after, _WRONG)):
        _reliability(axes, curve, name, colour)
    axes.set(xlabel="largest probability", ylabel="share right", title="Is it right as often as it says?")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.03)
    axes.legend(loc="upper left")
    return figure


def _reliability(axes: Any, curve: Reliability, name: str, colour: str) -> None:
    filled = curve.count > 0
    sizes = 8 + 60 * curve.count[filled] / curve.count.max()
    axes.plot(curve.confidence[filled], curve.accuracy[filled], color=colour, linewidth=1)
    axes.scatter(curve.confidence[filled], curve.accuracy[filled], s=sizes, color=colour, label=name)


def maps(
    images: Array, prediction: Array, entropy: Array, information: Array, labels: Array | None, classes: int
) -> Figure:
    """Draw image, prediction, truth where there is one, entropy and mutual information, a row a sample.

    Args:
        images: [rows, height, width] or [rows, height, width, 3].
        prediction: classes, [rows, height, width].
        entropy: in nats, [rows, height, width].
        information: mutual information in nats, [rows, height, width].
        labels: the right classes, [rows, height, width], or None.
        classes: how many there are.
    """
    columns: list[tuple[str, Array, dict[str, Any]]] = [("image", images, {"cmap": "gray"})]
    discrete = {"cmap": "tab20", "vmin": 0, "vmax": max(19, classes - 1), "interpolation": "nearest"}
    if labels is not None:
        columns.append(("truth", labels, discrete))
    columns.append(("prediction", prediction, discrete))
    if labels is not None:
        columns.append(("wrong", prediction != labels, {"cmap": "gray", "vmin": 0, "vmax": 1}))
    columns.append(("entropy", entropy, {"cmap": "magma", "vmin": 0, "vmax": max(1e-6, float(entropy.max()))}))
    most = max(1e-6, float(information.max()))
    columns.append(("mutual information", information, {"cmap": "magma", "vmin": 0, "vmax": most}))
    return _grid(columns)


def _grid(columns: list[tuple[str, Array, dict[str, Any]]]) -> Figure:
    rows = len(columns[0][1])
    figure, axes = _figure(2.0 * len(columns), 2.1 * rows)
    axes.remove()
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for column, (name, arrays, how) in enumerate(columns):
        for row in range(rows):
            shown = grid[row][column].imshow(arrays[row], **how)
            grid[row][column].set_xticks([])
            grid[row][column].set_yticks([])
        grid[0][column].set_title(name, fontsize=10)
        if how.get("cmap") == "magma":
            figure.colorbar(shown, ax=grid[:, column], location="bottom", shrink=0.9, label="nats", aspect=18)
    return figure


def unsure(images: Array, entropy: Array, prediction: Array, labels: Array | None, count: int = 12) -> Figure:
    """Draw the samples of the largest entropy, with what they are taken for."""
    order = np.argsort(-entropy)[:count]
    figure, axes = _figure(1.55 * min(6, len(order)), 1.85 * -(-len(order) // 6))
    axes.remove()
    grid = figure.subplots(-(-len(order) // 6), min(6, len(order)), squeeze=False)
    for index, place in enumerate(grid.flat):
        place.set_axis_off()
        if index < len(order):
            row = order[index]
            place.imshow(images[row], cmap="gray")
            truth = "" if labels is None else f" (is {labels[row]})"
            wrong = labels is not None and labels[row] != prediction[row]
            title = f"{prediction[row]}{truth}\n{entropy[row]:.2f} nats"
            place.set_title(title, fontsize=8, color=_WRONG if wrong else "black")
    return figure
