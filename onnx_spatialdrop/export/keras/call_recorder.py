"""Watch the calls of Keras's dropout layers while a model is traced: what each was, and which draw of its generator.

It patches the layers' classes for the time of an export; it never writes to a layer or a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export.counters import Draw
from onnx_spatialdrop.export.keras.layers import (
    Sizes,
    describe_input,
    dropout_classes,
    entry_layer,
    layer_name,
    refuse_unlike,
    static_sizes,
    unlike_classes,
)
from onnx_spatialdrop.export.markers import Call

__all__ = ["CallRecorder", "Seen", "outermost", "watching"]


@dataclass(frozen=True)
class Seen:
    """One call of a dropout layer while a model was traced.

    Attributes:
        layer: the layer.
        root: the outermost layer that was being called, usually the model; names are qualified from there.
        axes: axes of its input along which it shares a mask entry; () is element-wise.
        rank: the rank of its input.
        dtype: the type of its input, as NumPy names it.
        trace: equal for the calls of one trace.
        marked: whether it left a marker.
    """

    layer: Any
    root: Any
    axes: tuple[int, ...]
    rank: int
    dtype: str
    trace: Any
    marked: bool


@dataclass
class CallRecorder:
    """What happens at every call of a dropout layer.

    Attributes:
        mark: leaves a marker in the traced graph: (input, index of the call, axes) -> what the layer returns. None:
            the layer returns its input and nothing is recorded (inference).
        elementwise: whether plain Dropout layers are marked too; they return their input otherwise.
        root: the model that is traced; None: in each call the outermost layer that is being called.
        trace: what tells traces apart: a traced tensor -> the trace. An exporter may trace a model several times.
        tracing: whether a graph is being traced at all.
        sizes: how to read the sizes of a traced tensor; see shared_axes.
        seen: every call so far that drops something.
        error: the refusal that ended the trace; frameworks wrap what is raised inside of it.
    """

    mark: Callable[[Any, int, tuple[int, ...]], Any] | None
    elementwise: bool = False
    root: Any = None
    trace: Callable[[Any], Any] = lambda _: None
    tracing: Callable[[], bool] = lambda: True
    sizes: Sizes = static_sizes
    seen: list[Seen] = field(default_factory=list)
    error: SpatialDropError | None = None

    def __call__(self, layer: Any, inputs: Any) -> Any:
        """Stand in for ``layer.call(inputs)``, whatever ``training`` says."""
        if self.mark is None or layer.rate == 0:
            return inputs
        root = self._root(layer)
        with self._refusing():
            axes, rank, dtype = describe_input(layer, inputs, layer_name(layer, root), self.sizes)
        marked = bool(axes) or self.elementwise
        self.seen.append(Seen(layer, root, axes, rank, dtype, self.trace(inputs), marked))
        return self.mark(inputs, len(self.seen) - 1, axes) if marked else inputs

    def unlike(self, layer: Any, inputs: Any) -> Any:
        """Stand in for the call of a layer that does something else than drop: it stays in inference mode.

        Raises:
            SpatialDropError: see refuse_unlike.
        """
        if self.mark is not None:
            with self._refusing():
                refuse_unlike(layer, self.elementwise, layer_name(layer, self._root(layer)))
        return inputs

    def _root(self, layer: Any) -> Any:
        return entry_layer(layer) if self.root is None else self.root

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except SpatialDropError as error:
            self.error = error
            raise

    def calls(self, dialect: Callable[[Seen, str], str]) -> dict[int, Call]:
        """Return every call that left a marker by its index, once tracing is over: generators can be read again.

        Args:
            dialect: (call, the layer's name) -> the ``rng`` of its node.
        """
        draws = self._draws()
        found = {}
        for index, (seen, (first, count)) in enumerate(zip(self.seen, draws, strict=True)):
            if seen.marked:
                layer = seen.layer
                name = layer_name(layer, seen.root)  # only now: models make layers while they are traced
                rng = dialect(seen, name)
                state = _state(layer)
                draw = None if rng == "philox" else Draw(rng, state[0], state[1], first, count)
                found[index] = Call(
                    name,
                    float(layer.rate),
                    seen.axes,
                    seen.rank,
                    seen.dtype,
                    layer.seed,
                    id(layer),
                    _metadata(layer, name, state),
                    draw,
                )
        return found

    def _draws(self) -> list[tuple[int, int]]:
        """Return for each call how often its generator drew before it in that trace, and how often in all of it."""
        # Keras draws nothing at rate 1.
        keys = [(id(seen.trace), id(seen.layer.seed_generator), seen.layer.rate < 1) for seen in self.seen]
        total, before = Counter(keys), Counter[tuple[int, int, bool]]()
        found = []
        for key in keys:
            found.append((before[key], total[key]) if key[2] else (0, 0))
            before[key] += 1
        return found


def outermost(trace: Any, outer: str) -> Any:
    """Return the trace around all others: frameworks trace loops and functions in traces of their own.

    Args:
        trace: one of a framework's, or None.
        outer: the attribute that holds the trace around one.
    """
    found = None
    while trace is not None and hasattr(trace, outer):
        found, trace = trace, getattr(trace, outer)
    return found


def _metadata(layer: Any, name: str, state: tuple[int, int]) -> dict[str, str]:
    return {
        "onnx_spatialdrop.layer": name,
        "onnx_spatialdrop.class": type(layer).__name__,
        "onnx_spatialdrop.rate": repr(float(layer.rate)),
        "onnx_spatialdrop.keras_seed": repr(layer.seed),
        "onnx_spatialdrop.keras_state": f"{state[0]},{state[1]}",
    }


def _state(layer: Any) -> tuple[int, int]:
    """Return the seed and the counter of a layer's generator as they are now."""
    from keras import ops

    seed, count = ops.convert_to_numpy(layer.seed_generator.state.value).tolist()
    return int(seed), int(count)


@contextmanager
def watching(watch: CallRecorder) -> Iterator[CallRecorder]:
    """Let ``watch`` stand in for the call of every dropout layer, in this process, until the block ends.

    The classes are patched, not the layers: so layers are found that no model tracks, and no layer is written to.
    Calls that no exporter traces, on data or to learn a shape, go to the layers. Layers whose ``training`` is True by
    default (RandomFlip and its like) are traced in inference mode, unless they are called with it.
    """
    import keras
    from keras.src.backend.common.symbolic_scope import in_symbolic_scope

    def standing_in(cls: Any, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, inputs: Any, training: bool = False) -> Any:
            if in_symbolic_scope() or not watch.tracing():
                return original(self, inputs, training=training)
            return instead[cls](self, inputs)

        return call

    instead: dict[Any, Callable[[Any, Any], Any]] = {
        **dict.fromkeys(dropout_classes(), watch),
        **dict.fromkeys(unlike_classes(), watch.unlike),
    }
    patched = [(cls, cls.__dict__["call"]) for cls in instead]
    populate = keras.layers.Layer._resolve_and_populate_arg

    def resolve(self: Any, name: str, spec: Any, context: Any, arguments: Any) -> Any:
        if name == "training" and context.get_value(name) is None and watch.tracing() and not in_symbolic_scope():
            context.set_value(name, False)
        return populate(self, name, spec, context, arguments)

    for cls, original in patched:
        cls.call = standing_in(cls, original)
    keras.layers.Layer._resolve_and_populate_arg = resolve
    try:
        yield watch
    finally:
        keras.layers.Layer._resolve_and_populate_arg = populate
        for cls, original in patched:
            cls.call = original
