"""Keras 3's half of a verification: the model's forward pass in which dropout layers train and all else does not.

Classes of Keras are patched for as long as a pass runs; the model's generators are put back to where they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from onnx_spatialdrop.errors import VerifyError
from onnx_spatialdrop.export.keras.layers import dropout_classes, layer_name, shared_axes
from onnx_spatialdrop.graph.layers import call_name
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.verify.framework import Array, FrameworkStep, Layer

__all__ = ["KerasRun"]


class KerasRun:
    """A Keras model; each pass continues from the generators' states that the pass before left.

    The step of a pass is the counter of its layers, as export/counters.py has it, so a model may have trained on since
    it was exported. A model whose nodes draw by keras_tf_xla runs under XLA.

    Args:
        model: a ``keras.Model``; called once on data, or built.
    """

    def __init__(self, model: Any) -> None:
        import keras

        backend = keras.backend.backend()
        version = getattr(__import__(backend), "__version__", "")
        self.framework = f"keras {keras.__version__} on {backend} {version}".rstrip()
        self._model = model
        self._wanted: dict[str, Layer] = {}
        self._rates: dict[str, float] = {}
        self._shared: dict[str, tuple[int, ...]] = {}
        self._drawing: set[int] = set()
        self._call: Callable[..., tuple[Any, dict[str, Any]]] = self._pass
        self._states: dict[int, tuple[Any, Array]] = {}

    def begin(self, layers: Sequence[Layer]) -> None:
        """Make ready for the first pass.

        Raises:
            VerifyError: nodes that draw by XLA, beside others or on another backend.
        """
        import keras

        self._wanted = {layer.name: layer for layer in layers}
        if any(layer.rng == "keras_tf_xla" for layer in layers):
            if keras.backend.backend() != "tensorflow":
                raise VerifyError("the model's nodes draw by keras_tf_xla, which only Keras on TensorFlow can run")
            import tensorflow as tf

            self._call = tf.function(self._pass, jit_compile=True)
            self.framework += " (XLA)"
        found = {id(layer.seed_generator): layer.seed_generator for layer in self._dropouts() if layer.rate > 0}
        self._states = {key: (generator.state, _read(generator.state)) for key, generator in found.items()}

    def run(self, inputs: Mapping[str, Array], step: int) -> FrameworkStep:
        """Run one forward pass, whatever the number of the step: the generators say which pass it is."""
        del step
        from keras import ops, tree

        live = {key: _read(state) for key, (state, _) in self._states.items()}
        before = {key: int(known[1]) for key, (_, known) in self._states.items()}
        try:
            for state, known in self._states.values():
                state.assign(known)
            outputs, masks = self._call(*self._arguments(inputs))
            self._states = {key: (state, _read(state)) for key, (state, _) in self._states.items()}
        finally:
            for key, value in live.items():
                self._states[key][0].assign(value)
        kept = {
            name: _laid_out(ops.convert_to_numpy(mask), self._shared[name], self._wanted[name])
            for name, mask in masks.items()
        }
        return FrameworkStep(
            outputs=tuple(ops.convert_to_numpy(each) for each in tree.flatten(outputs)),
            masks=kept,
            scales={name: _scale(self._rates[name]) for name in kept},
            step=np.array([self._step(before)]),
        )

    def _step(self, before: Mapping[int, int]) -> int:
        """Return the step of the pass just run: training calls so far, by the generator that is least far."""
        counted = []
        for key in self._drawing:
            draws = int(self._states[key][1][1]) - before[key]
            if draws > 0:
                counted.append(before[key] // draws)
        return min(counted, default=0)

    def _dropouts(self) -> Iterator[Any]:
        for layer in self._model._flatten_layers(include_self=False, recursive=True):
            if isinstance(layer, dropout_classes()):
                yield layer

    def _arguments(self, inputs: Mapping[str, Array]) -> tuple[Any, ...]:
        from keras import tree

        arrays = list(inputs.values())
        structure = getattr(self._model, "_inputs_struct", None)
        if structure is None:
            return tuple(arrays)
        names = [tensor.name for tensor in tree.flatten(structure)]
        if sorted(names) == sorted(inputs):
            arrays = [inputs[name] for name in names]
        return (tree.pack_sequence_as(structure, arrays),)

    def _pass(self, *inputs: Any) -> tuple[Any, dict[str, Any]]:
        masks: dict[str, Any] = {}
        calls: dict[int, int] = {}

        def call(layer: Any, x: Any, original: Callable[..., Any]) -> Any:
            if layer.rate == 0:
                return x
            path = layer_name(layer, self._model) or spec.OP_TYPE
            name = call_name(path, calls.get(id(layer), 0))
            calls[id(layer)] = calls.get(id(layer), 0) + 1
            if name not in self._wanted:
                original(layer, x, training=True)  # its generator moves on, in training
                return x
            self._shared[name] = shared_axes(layer, x, path)
            masks[name] = _mask(layer, x, original, self._shared[name])
            self._rates[name] = float(layer.rate)
            self._drawing.add(id(layer.seed_generator))
            return original(layer, x, training=True)

        with _calling(call):
            return self._model(*inputs, training=False), masks


def _mask(layer: Any, x: Any, original: Callable[..., Any], shared: Sequence[int]) -> Any:
    """Return the mask that the layer is about to draw; its generator stays where it is."""
    from keras import ops

    state = layer.seed_generator.state
    before = state.value * 1  # a copy, as Keras's SeedGenerator makes it
    kept = ops.not_equal(original(layer, ops.ones_like(x), training=True), 0)
    state.assign(before)
    return kept[tuple(slice(0, 1) if axis in shared else slice(None) for axis in range(len(x.shape)))]


def _laid_out(mask: Array, shared: Sequence[int], layer: Layer) -> Array:
    """Return a layer's mask in the layout of its node: tf2onnx moves transposes, but never the order of entries."""
    free = iter(size for axis, size in enumerate(mask.shape) if axis not in shared)
    axes = {axis % mask.ndim for axis in layer.axes}
    if len(axes) != len(shared):
        return mask  # which verification will call different
    return mask.reshape([1 if axis in axes else next(free) for axis in range(mask.ndim)])


def _read(state: Any) -> Array:
    from keras import ops

    return np.array(ops.convert_to_numpy(state.value))


def _scale(rate: float) -> float:
    return 1.0 / (1.0 - rate) if rate < 1 else 1.0


@contextmanager
def _calling(instead: Callable[[Any, Any, Callable[..., Any]], Any]) -> Iterator[None]:
    """Let ``instead`` stand in for the call of every dropout layer: (layer, input, the class's own call) -> output."""

    def standing_in(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, inputs: Any, training: bool = False) -> Any:  # noqa: ARG001, the signature is Keras's
            return instead(self, inputs, original)

        return call

    patched = [(cls, cls.__dict__["call"]) for cls in dropout_classes()]
    for cls, original in patched:
        cls.call = standing_in(original)
    try:
        yield
    finally:
        for cls, original in patched:
            cls.call = original
