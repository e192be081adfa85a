"""Find the layers of a Keras model in whose call Keras's function for dropout is called, in training.

The model is traced once in training mode, on shapes alone; no state of it changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["drawn_inside"]


def drawn_inside(model: Any, signature: Any) -> list[tuple[Any, float]]:
    """Return the layers in whose call Keras's dropout is called, and the fractions dropped; those that can be traced.

    Args:
        model: the model.
        signature: its inputs, as ``keras.Model.export`` takes them.
    """
    import keras
    from keras.src.backend import compute_output_spec

    inputs = keras.tree.map_structure(lambda each: keras.KerasTensor(tuple(each.shape), each.dtype), signature)
    found: list[tuple[Any, float]] = []
    with _watching(found):
        try:
            compute_output_spec(lambda *args: model(*args, training=True), *inputs)
        except Exception:  # noqa: BLE001 - a model may be unfit for training, and is exported all the same
            return found
    return found


@contextmanager
def _watching(found: list[tuple[Any, float]]) -> Iterator[None]:
    """Note calls of the backend's dropout in ``found`` with the innermost layer that is being called."""
    import keras
    from keras.src.backend import random

    stack: list[Any] = []
    dropout, call = random.dropout, keras.layers.Layer.__call__

    def calling(self: Any, *args: Any, **kwargs: Any) -> Any:
        stack.append(self)
        try:
            return call(self, *args, **kwargs)
        finally:
            stack.pop()

    def dropping(inputs: Any, rate: Any, *args: Any, **kwargs: Any) -> Any:
        if stack:
            found.append((stack[-1], rate))
        return dropout(inputs, rate, *args, **kwargs)

    random.dropout, keras.layers.Layer.__call__ = dropping, calling
    try:
        yield
    finally:
        random.dropout, keras.layers.Layer.__call__ = dropout, call
