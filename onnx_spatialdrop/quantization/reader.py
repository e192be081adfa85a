"""What calibration is fed: the user's data, with dropout on and another draw each run. It knows no quantiser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from onnxruntime.quantization import CalibrationDataReader

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.graph import controls, scopes
from onnx_spatialdrop.montecarlo.prepare import made_nodes, nothing_live
from onnx_spatialdrop.operator.bodies.body import MIN_OPSET

__all__ = ["DrawingReader", "Reader", "batches", "drawing"]

#: Calibration data: a reader as ONNX Runtime has it, or feeds one after the other.
Reader: TypeAlias = "CalibrationDataReader | Iterable[Mapping[str, Any]]"


class DrawingReader(CalibrationDataReader):
    """A calibration reader that gives each batch of another one several times, with dropout on and another draw each.

    Draws are steps 0, 1, 2, ..., one a run, so calibration gives the same ranges each time. What the other reader feeds
    itself is left alone.
    """

    def __init__(self, reader: Reader, model: io.Source, *, draws: int = 2) -> None:
        """Wrap ``reader``.

        Args:
            reader: a calibration reader, or an iterable of feeds: dicts of arrays by input.
            model: what is calibrated: a path, an onnx.ModelProto or an ir.Model; its switches are found in it.
            draws: runs a batch, 1 or more. An activation's range has to hold what any draw makes of it.

        Raises:
            SpecError: the model has no dropout, or none that an input of the model switches on.
        """
        self._batches = batches(reader)
        self._draws = arguments.integer(draws, "draws", 1)
        switches = io.rewrite(model, None, drawing)[1]
        self._modes = [value.name or "" for value in switches if value.dtype == ir.DataType.BOOL]
        self._steps = {value.name or "": len(value.shape or ()) for value in switches if value.name not in self._modes}
        self._runs = self._feeds()

    def get_next(self) -> dict[str, Any] | None:
        """Return what to feed next, or None at the end."""
        return next(self._runs, None)

    def _feeds(self) -> Iterator[dict[str, Any]]:
        step = 0
        for batch in self._batches:
            for _ in range(self._draws):
                on = {name: np.array(True) for name in self._modes}
                drawn = {name: np.full([1] * rank, step, np.int64) for name, rank in self._steps.items()}
                yield {**on, **drawn, **batch}
                step += 1


def drawing(model: ir.Model) -> list[ir.Value]:
    """Make nodes of all dropout, in place, at an opset where draws are defined; return the inputs that they follow.

    Raises:
        SpecError: there is no dropout, or nothing switches it on.
        FormError: the opset cannot be converted.
    """
    fusion = made_nodes(model, MIN_OPSET)
    nodes = [site.node for site in scopes.spatial_dropouts(model)]
    if not nodes:
        raise SpecError(nothing_live(fusion))
    found = controls.behind(value for node in nodes for value in node.inputs[1:3])
    if not any(value.dtype == ir.DataType.BOOL for value in found) and not any(map(_always_on, nodes)):
        raise SpecError("no input switches the model's dropout on; fix(model, training_mode='free') makes one")
    return [value for value in found if value.dtype in (ir.DataType.BOOL, ir.DataType.INT64)]


def _always_on(node: ir.Node) -> bool:
    constant = controls.constant_of(node.inputs[1])
    return constant is not None and bool(constant.reshape(-1)[0])


def batches(reader: Reader) -> Iterator[Mapping[str, Any]]:
    """Return the feeds of a reader.

    Raises:
        TypeError: it is neither a reader nor an iterable of feeds.
    """
    if callable(getattr(reader, "get_next", None)):
        return iter(reader.get_next, None)  # type: ignore[union-attr]
    if isinstance(reader, Iterable) and not isinstance(reader, (str, bytes, Mapping)):
        return iter(reader)
    raise TypeError(f"reader must be a CalibrationDataReader or an iterable of feeds, not {type(reader).__name__}")
