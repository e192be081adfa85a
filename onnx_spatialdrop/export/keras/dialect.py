"""Which dialect a Keras model's nodes draw by: the one in which the model itself draws, wherever a node can."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Final

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export.keras.call_recorder import Seen
from onnx_spatialdrop.export.keras.layers import other_users
from onnx_spatialdrop.operator.dialects import DIALECTS, RNGS

__all__ = ["check", "chooser", "own_dialect"]

_PHILOX: Final = "its node draws by 'philox' instead, masks of the same rate but not Keras's"


def check(rng: str | None) -> None:
    """Refuse an ``rng`` that there is not.

    Raises:
        SpatialDropError: it is no dialect.
    """
    if rng is not None and rng not in RNGS:
        raise SpatialDropError(f"rng is {rng!r}; allowed: {', '.join(map(repr, RNGS))}, or None for Keras's own")


def own_dialect(model: Any) -> str:
    """Return the dialect in which Keras draws on its backend; "philox" on PyTorch, whose generator no graph can hold.

    Args:
        model: a model or any layer; where it is compiled with ``jit_compile``, it trains by XLA, which draws otherwise.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        return "keras_tf_xla" if getattr(model, "compiled", False) and model.jit_compile else "keras_tf"
    return "keras_jax" if backend == "jax" else "philox"


def chooser(rng: str | None) -> Callable[[Seen, str], str]:
    """Return what tells the ``rng`` of a call's node: (call, the layer's name) -> the dialect.

    It is ``rng``, or Keras's own dialect for the model that was called. Where that cannot draw a layer's masks, a layer
    gets "philox" and a warning, but where ``rng`` was asked for by name the chosen function raises SpatialDropError.

    Args:
        rng: the dialect asked for; None: Keras's own here.
    """
    warned: set[str] = set()  # exporters trace a model several times

    def choose(seen: Seen, name: str) -> str:
        dialect = own_dialect(seen.root) if rng is None else rng
        why = _unlike_jax() if dialect == "keras_jax" else ""
        if dialect != "philox" and seen.dtype not in DIALECTS[dialect].tests:
            why = f"{dialect} draws no masks for {seen.dtype}"
        elif dialect != "philox" and id(seen.layer.seed_generator) in other_users(seen.root):
            why = "its generator draws for layers of another kind, too"
        if not why:
            return dialect
        if rng is not None:
            raise SpatialDropError(f"layer {name!r}: {why}; export with rng='philox', or with the default")
        if name not in warned:
            warnings.warn(f"layer {name!r}: {why}; {_PHILOX}", stacklevel=4)
            warned.add(name)
        return "philox"

    return choose


def _unlike_jax() -> str:
    """Return why JAX, as it is configured, does not draw as keras_jax does; "" where it does, or does not run Keras."""
    import keras

    if keras.backend.backend() != "jax":
        return ""
    from jax import config

    if config.jax_enable_x64:
        return "with jax_enable_x64, JAX draws in double precision"
    if not config.jax_threefry_partitionable:
        return "without jax_threefry_partitionable, JAX numbers its draws otherwise"
    return ""
