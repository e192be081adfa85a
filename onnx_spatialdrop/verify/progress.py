"""Keep what the steps of a verification found, and sum it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_spatialdrop.verify import compare
from onnx_spatialdrop.verify.framework import Array, FrameworkStep, Layer
from onnx_spatialdrop.verify.model import OnnxRun, Seen
from onnx_spatialdrop.verify.result import Divergence, LayerResult, OutputResult, Verification, sort

__all__ = ["Progress"]


class Progress:
    """What has been compared so far."""

    def __init__(self, model: OnnxRun, tolerance: float | None) -> None:
        self._model = model
        self._tolerance = tolerance
        self._divergences: list[Divergence] = []
        self._masks: dict[tuple[int, str], Array] = {}
        self._seen: dict[tuple[int, str], Array] = {}
        self._notes: list[str] = []
        self._differences = dict.fromkeys(model.outputs, 0.0)
        self._limits = dict.fromkeys(model.outputs, 0.0)

    def add(self, step: int, done: FrameworkStep, outputs: Sequence[Array], seen: Mapping[str, Seen]) -> None:
        """Compare one step."""
        for layer in self._model.layers:
            self._masks[step, layer.name] = np.asarray(done.masks[layer.name])
            self._seen[step, layer.name] = seen[layer.name].mask
            self._divergences += compare.compare_layer(step, layer, done, seen[layer.name], self._tolerance)
        for name, expected, got in zip(self._model.outputs, done.outputs, outputs, strict=True):
            parted = compare.compare_output(step, name, np.asarray(expected), got, self._tolerance)
            self._divergences += [parted] if parted is not None else []
            self._limits[name] = compare.limit_of(str(got.dtype), self._tolerance)
            if expected.shape == got.shape:
                self._differences[name] = max(self._differences[name], compare.difference(expected, got))

    def stop(self, misfits: Sequence[Divergence]) -> None:
        """Note masks that cannot be fed; there is no step after that."""
        self._divergences += misfits
        self._notes.append(f"stopped in step {misfits[0].step}: a mask cannot be fed")

    def result(self, framework: str, steps: int) -> Verification:
        """Return what all steps together say."""
        divergences = sort(self._divergences, [layer.name for layer in self._model.layers])
        notes = list(self._notes)
        for each in divergences:
            if whose := compare.lookalike(each, self._masks, self._seen):
                notes.append(f"step {each.step}, the framework's mask of {each.layer!r} is the model's {whose}")
                break
        return Verification(
            framework=framework,
            runtime=self._model.runtime,
            steps=steps,
            layers=tuple(self._layer(layer, divergences) for layer in self._model.layers),
            outputs=tuple(
                OutputResult(name, self._differences[name], self._limits[name], _first(divergences, name, True))
                for name in self._model.outputs
            ),
            divergences=divergences,
            notes=tuple(notes),
        )

    def _layer(self, layer: Layer, divergences: Sequence[Divergence]) -> LayerResult:
        pairs = [(mask, self._seen[key]) for key, mask in self._masks.items() if key[1] == layer.name]
        equal = sum(int((mask == seen).sum()) for mask, seen in pairs if mask.shape == seen.shape)
        entries, dropped = sum(mask.size for mask, _ in pairs), sum(int((~mask).sum()) for mask, _ in pairs)
        return LayerResult(layer.name, len(pairs), entries, equal, dropped, _first(divergences, layer.name, False))


def _first(divergences: Sequence[Divergence], name: str, output: bool) -> Divergence | None:
    return next((d for d in divergences if d.layer == name and (d.what == "output") == output), None)
