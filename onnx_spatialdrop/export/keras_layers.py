"""Keras's dropout layers: which there are, what they share, and how their calls are watched while a model is traced.

It reads layers and patches their classes for the time of an export; it never writes to a layer or a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export.markers import Call
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec

__all__ = ["Watch", "layer_names", "refuse_unsupported", "shared_axes", "watching"]

_AXES: Final[dict[str, dict[str, tuple[int, ...]]]] = {
    "SpatialDropout1D": {"channels_last": (1,)},
    "SpatialDropout2D": {"channels_last": (1, 2), "channels_first": (2, 3)},
    "SpatialDropout3D": {"channels_last": (1, 2, 3), "channels_first": (2, 3, 4)},
}
# What the refusals offer.
_WAY_OUT: Final = 'export with dropout="inference", or put a SpatialDropout or Dropout layer in its place'


@dataclass
class Watch:
    """What happens at every call of a dropout layer.

    Attributes:
        mark: leaves a marker in the traced graph: (input, index of the call, axes) -> what the layer returns. None:
            the layer returns its input and nothing is recorded (inference).
        elementwise: whether plain Dropout layers are marked too; they return their input otherwise.
        names: qualified names of the model's layers, by ``id``.
        seen: every call so far: the layer, its axes, the rank and the type of its input.
        error: the refusal that ended the trace; frameworks wrap what is raised inside of it.
    """

    mark: Callable[[Any, int, tuple[int, ...]], Any] | None
    elementwise: bool = False
    names: dict[int, str] = field(default_factory=dict)
    seen: list[tuple[Any, tuple[int, ...], int, str]] = field(default_factory=list)
    error: SpatialDropError | None = None

    def __call__(self, layer: Any, inputs: Any) -> Any:
        """Stand in for ``layer.call(inputs)``, whatever ``training`` says."""
        if self.mark is None or layer.rate == 0:
            return inputs
        try:
            axes, rank, dtype = _look_at(layer, inputs, self.name(layer))
        except SpatialDropError as error:
            self.error = error
            raise
        if not axes and not self.elementwise:
            return inputs
        self.seen.append((layer, axes, rank, dtype))
        return self.mark(inputs, len(self.seen) - 1, axes)

    def name(self, layer: Any) -> str:
        """Return the layer's qualified name; a layer that no model tracks has its own name only."""
        return str(self.names.get(id(layer)) or layer.path or layer.name)

    def calls(self) -> list[Call]:
        """Return what was seen, once tracing is over: the layers' generators can be read again."""
        return [
            Call(self.name(layer), float(layer.rate), axes, rank, dtype, layer.seed, id(layer), self._metadata(layer))
            for layer, axes, rank, dtype in self.seen
        ]

    def _metadata(self, layer: Any) -> dict[str, str]:
        from keras import ops

        found = {
            "onnx_spatialdrop.layer": self.name(layer),
            "onnx_spatialdrop.class": type(layer).__name__,
            "onnx_spatialdrop.rate": repr(float(layer.rate)),
            "onnx_spatialdrop.keras_seed": repr(layer.seed),
        }
        state = ops.convert_to_numpy(layer.seed_generator.state.value).tolist()
        found["onnx_spatialdrop.keras_state"] = ",".join(str(int(word)) for word in state)
        return found


def _look_at(layer: Any, inputs: Any, name: str) -> tuple[tuple[int, ...], int, str]:
    if not hasattr(inputs, "dtype") or getattr(inputs, "shape", None) is None:
        raise SpatialDropError(f"layer {name!r}: its input is a {type(inputs).__name__}, not one dense tensor")
    shape = tuple(dim if isinstance(dim, int) else None for dim in inputs.shape)
    axes = shared_axes(layer, shape, name)
    dtype = str(getattr(inputs.dtype, "name", inputs.dtype)).removeprefix("torch.")
    if dtype not in spec.DTYPES:
        raise SpatialDropError(
            f"layer {name!r}: its input has type {dtype}; allowed: {', '.join(spec.DTYPES)}; cast it first"
        )
    return axes, len(shape), dtype


def shared_axes(layer: Any, shape: tuple[int | None, ...], name: str) -> tuple[int, ...]:
    """Return the axes of its input along which a Keras layer shares a mask entry; () for plain Dropout.

    Args:
        layer: a SpatialDropout1D, 2D, 3D or Dropout layer, or one derived from them.
        shape: shape of the input; None for what is not known.
        name: the layer's name, for error messages.

    Raises:
        SpatialDropError: a ``noise_shape`` that does not fit the input.
    """
    for base in type(layer).__mro__:
        if base.__module__.startswith("keras.") and base.__name__ in _AXES:
            axes = _AXES[base.__name__][getattr(layer, "data_format", "channels_last")]
            if len(shape) != max(axes[-1] + 1, len(axes) + 2):
                raise SpatialDropError(f"layer {name!r}: {base.__name__} takes rank {len(axes) + 2}, not {len(shape)}")
            return axes
    noise = getattr(layer, "noise_shape", None)
    if noise is None:
        return ()
    if len(noise) < len(shape) and None not in noise:
        noise = (1,) * (len(shape) - len(noise)) + tuple(noise)  # Keras broadcasts it from the right
    for size, dim in zip(noise, shape, strict=False):
        if len(noise) != len(shape) or (size not in (None, 1) and dim is not None and size != dim):
            known = tuple("?" if dim is None else dim for dim in shape)
            raise SpatialDropError(
                f"layer {name!r}: noise_shape {layer.noise_shape} does not fit its input of shape {known}; every entry "
                "must be 1, None or the size of that axis"
            )
    return op.shared_axes(len(shape), noise_shape=noise, where=f"layer {name!r}")


@contextmanager
def watching(watch: Watch) -> Iterator[Watch]:
    """Let ``watch`` stand in for the call of every dropout layer, in this process, until the block ends.

    The classes are patched, not the layers: so layers are found that no model tracks, and no layer is written to.
    """
    import keras

    def call(self: Any, inputs: Any, training: bool = False) -> Any:  # noqa: ARG001, the signature is Keras's
        return watch(self, inputs)

    spatial = keras.layers.SpatialDropout2D.__mro__[1]  # the base of all three, which Keras does not export
    patched = [(cls, cls.__dict__["call"]) for cls in (keras.layers.Dropout, spatial)]
    for cls, _ in patched:
        cls.call = call
    try:
        yield watch
    finally:
        for cls, original in patched:
            cls.call = original


def layer_names(model: Any) -> dict[int, str]:
    """Return the qualified name of every layer inside ``model``, by ``id``: "block/drop" for drop in block."""
    found: dict[int, str] = {}

    def walk(parent: Any, prefix: str) -> None:
        for layer in getattr(parent, "_layers", ()):
            if id(layer) not in found and layer is not model:
                found[id(layer)] = f"{prefix}{layer.name}"
                walk(layer, f"{prefix}{layer.name}/")

    walk(model, "")
    return found


def refuse_unsupported(model: Any, elementwise: bool) -> None:
    """Refuse layers whose noise the operator cannot express.

    Raises:
        SpatialDropError: an AlphaDropout with a ``noise_shape``; with ``elementwise`` also any AlphaDropout and
            GaussianDropout.
    """
    import keras

    kinds = {
        keras.layers.AlphaDropout: "replaces values by a constant",
        keras.layers.GaussianDropout: "multiplies by noise",
    }
    names = layer_names(model)
    for layer in model._flatten_layers(include_self=False, recursive=True):
        for kind, what in kinds.items():
            shared = getattr(layer, "noise_shape", None) is not None
            if isinstance(layer, kind) and layer.rate > 0 and (elementwise or shared):
                raise SpatialDropError(
                    f"layer {names.get(id(layer), layer.name)!r}: {kind.__name__} {what} and is no case of "
                    f"SpatialDropout, which keeps or zeroes; {_WAY_OUT}"
                )
