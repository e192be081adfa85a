"""What a Keras model does in training and its export does not hold: dropout without a marker, and noise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from onnx_spatialdrop.export.keras.call_recorder import Seen
from onnx_spatialdrop.export.keras.drawn_inside import drawn_inside
from onnx_spatialdrop.export.keras.layers import dropout_classes, layer_name, layer_names, unlike_classes
from onnx_spatialdrop.export.left_out import LeftOut

__all__ = ["unmarked"]

_ASK: Final = "elementwise=True keeps it"
_NO_MARK: Final = "Keras draws it inside of the layer, where an export has no hold on it"
_NO_MASK: Final = "no mask and factor can say it"
#: Attributes of layers that hold fractions dropped inside of them.
_INSIDE: Final = ("dropout", "recurrent_dropout")


def unmarked(seen: Iterable[Seen], model: Any = None, signature: Any = None) -> list[LeftOut]:
    """Return what of a model's dropout and noise an export leaves out, each layer once.

    Args:
        seen: the calls of dropout layers while the model was traced.
        model: the model, where it is known as a whole. Layers for augmentation (RandomFlip and its like) are not
            counted: nobody wants them in a file.
        signature: its inputs, as ``keras.Model.export`` takes them.
    """
    calls = [(layer_name(call.layer, call.root), float(call.layer.rate)) for call in seen if not call.marked]
    found = [LeftOut(name, "element-wise dropout", _ASK, rate) for name, rate in calls]
    return list(dict.fromkeys([*found, *(() if model is None else _inside(model, signature))]))


def _inside(model: Any, signature: Any) -> Iterator[LeftOut]:
    import keras

    names = layer_names(model)
    told: list[str] = []
    attention = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)  # they call a Dropout layer
    noise = (*unlike_classes(), keras.layers.GaussianNoise)
    for layer in model._flatten_layers(include_self=False, recursive=True):
        name = names.get(id(layer), layer.name)
        if isinstance(layer, noise):
            amount = getattr(layer, "rate", getattr(layer, "stddev", 0.0))
            if amount:
                yield LeftOut(name, type(layer).__name__, _NO_MASK, float(amount))
        elif not isinstance(layer, (*dropout_classes(), *attention)):
            rates = [rate for each in _INSIDE if isinstance(rate := getattr(layer, each, None), float) and rate > 0.0]
            if rates and not any(name.startswith(f"{outer}/") for outer in told):
                told.append(name)
                yield LeftOut(name, f"dropout inside of {type(layer).__name__}", _NO_MARK, max(rates))
    known = (*dropout_classes(), *noise)
    for layer, rate in drawn_inside(model, signature):
        name = names.get(id(layer), layer.name)
        if not isinstance(layer, known) and not any(name == one or name.startswith(f"{one}/") for one in told):
            told.append(name)
            yield LeftOut(name, f"dropout inside of {type(layer).__name__}", _NO_MARK, float(rate))
