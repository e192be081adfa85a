"""Keras's dropout layers: which there are, what they are called, and what they share. It only reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec

__all__ = [
    "Sizes",
    "describe_input",
    "dropout_classes",
    "entry_layer",
    "layer_name",
    "layer_names",
    "other_users",
    "refuse_unlike",
    "shared_axes",
    "static_sizes",
    "unlike_classes",
]

_AXES: Final[dict[str, dict[str, tuple[int, ...]]]] = {
    "SpatialDropout1D": {"channels_last": (1,)},
    "SpatialDropout2D": {"channels_last": (1, 2), "channels_first": (2, 3)},
    "SpatialDropout3D": {"channels_last": (1, 2, 3), "channels_first": (2, 3, 4)},
}
# What the refusals offer.
_WAY_OUT: Final = (
    'export with dropout="inference" (with tf2onnx: outside exporting()), or put a SpatialDropout or Dropout layer in '
    "its place"
)


Sizes = Callable[[Any], tuple[int | None, ...]]


def static_sizes(inputs: Any) -> tuple[int | None, ...]:
    """Return the sizes that the shape of a tensor tells; None for the others."""
    return tuple(size if isinstance(size, int) else None for size in inputs.shape)


def describe_input(layer: Any, inputs: Any, name: str, sizes: Sizes = static_sizes) -> tuple[tuple[int, ...], int, str]:
    """Return the axes along which a layer shares a mask entry of ``inputs``, and the rank and type of ``inputs``.

    The arguments are those of shared_axes.

    Raises:
        SpatialDropError: an input of another kind or type, or of a shape that does not fit the layer; a layer without
            a generator.
    """
    if not hasattr(inputs, "dtype") or getattr(inputs, "shape", None) is None:
        raise SpatialDropError(f"layer {name!r}: its input is a {type(inputs).__name__}, not one dense tensor")
    if not hasattr(layer, "seed_generator"):
        raise SpatialDropError(
            f"layer {name!r}: its rate was 0 when it was made and is {layer.rate} now; Keras gave it no generator, so "
            "that it cannot train either; make it with its rate"
        )
    axes = shared_axes(layer, inputs, name, sizes)
    dtype = str(getattr(inputs.dtype, "name", inputs.dtype)).removeprefix("torch.")
    if dtype not in spec.DTYPES:
        raise SpatialDropError(
            f"layer {name!r}: its input has type {dtype}; allowed: {', '.join(spec.DTYPES)}; cast it first"
        )
    return axes, len(inputs.shape), dtype


def shared_axes(layer: Any, inputs: Any, name: str, sizes: Sizes = static_sizes) -> tuple[int, ...]:
    """Return the axes of its input along which a Keras layer shares a mask entry; () for plain Dropout.

    Args:
        layer: a SpatialDropout1D, 2D, 3D or Dropout layer, or one derived from them.
        inputs: what it is called on.
        name: the layer's name, for error messages.
        sizes: how to read the sizes of ``inputs``: a tensor -> sizes; None for those that are not known.

    Raises:
        SpatialDropError: a ``noise_shape`` that does not fit the input.
    """
    shape = sizes(inputs)
    if not isinstance(layer, dropout_classes()[1]):
        noise = layer.noise_shape
    elif (base := _spatial(layer)) is not None:
        axes = _AXES[base.__name__][getattr(layer, "data_format", "channels_last")]
        if len(shape) != len(axes) + 2:
            raise SpatialDropError(f"layer {name!r}: {base.__name__} takes rank {len(axes) + 2}, not {len(shape)}")
        return axes
    else:  # a class that says for itself what it shares
        noise = tuple(size if type(size) is int else None for size in layer._get_noise_shape(inputs))
        if noise[:1] == (1,) == shape[:1]:
            noise = (None, *noise[1:])  # a batch of one, while an exporter traces
    if noise is None:
        return ()
    if len(noise) < len(shape) and None not in noise:
        noise = (1,) * (len(shape) - len(noise)) + tuple(noise)  # Keras broadcasts it from the right
    for size, dim in zip(noise, shape, strict=False):
        if len(noise) != len(shape) or (size not in (None, 1) and dim is not None and size != dim):
            known = tuple("?" if dim is None else dim for dim in shape)
            raise SpatialDropError(
                f"layer {name!r}: noise_shape {layer.noise_shape or noise} does not fit its input of shape {known}; "
                "every entry must be 1, None or the size of that axis"
            )
    return op.shared_axes(len(shape), noise_shape=noise, where=f"layer {name!r}")


def _spatial(layer: Any) -> Any:
    """Return which of Keras's own spatial classes says what the layer shares; None where a derived one does."""
    for base in type(layer).__mro__:
        if "_get_noise_shape" in vars(base):
            return base if base.__module__.startswith("keras.") and base.__name__ in _AXES else None
    return None


def dropout_classes() -> tuple[Any, ...]:
    """Return Keras's classes whose ``call`` drops: Dropout, and the base of SpatialDropout1D, 2D and 3D."""
    import keras

    return keras.layers.Dropout, keras.layers.SpatialDropout2D.__mro__[1]  # Keras does not export the base


def unlike_classes() -> dict[Any, str]:
    """Return Keras's classes that do something else than drop, and what it is."""
    import keras

    return {
        keras.layers.AlphaDropout: "replaces values by a constant",
        keras.layers.GaussianDropout: "multiplies by noise",
    }


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


def layer_name(layer: Any, root: Any) -> str:
    """Return the layer's qualified name in ``root``; a layer that nothing in it tracks has its own name only."""
    return str(layer_names(root).get(id(layer)) or layer.path or layer.name)


def entry_layer(layer: Any) -> Any:
    """Return the outermost layer that is being called, in whose call ``layer`` is; ``layer`` itself outside of any."""
    from keras.src.backend.common import global_state

    context = global_state.get_global_attribute("current_call_ctx")  # where Keras keeps it for calls inside of calls
    return layer if context is None else context.entry_layer


def other_users(model: Any) -> frozenset[int]:
    """Return the ids of generators that layers of ``model`` draw from in ways of their own, besides any dropout."""
    import keras

    layers = model._flatten_layers(include_self=False, recursive=True)
    others = (layer for layer in layers if not isinstance(layer, keras.layers.Dropout))
    return frozenset(id(layer.seed_generator) for layer in others if hasattr(layer, "seed_generator"))


def refuse_unlike(layer: Any, elementwise: bool, name: str) -> None:
    """Refuse a layer of unlike_classes whose noise would have to be in the model.

    Raises:
        SpatialDropError: an AlphaDropout with a ``noise_shape``; with ``elementwise`` also any AlphaDropout and
            GaussianDropout.
    """
    if layer.rate > 0 and (elementwise or getattr(layer, "noise_shape", None) is not None):
        kind, what = next((kind, what) for kind, what in unlike_classes().items() if isinstance(layer, kind))
        raise SpatialDropError(
            f"layer {name!r}: {kind.__name__} {what} and is no case of SpatialDropout, which keeps or zeroes; "
            f"{_WAY_OUT}"
        )
