"""Dropout inside of torch's composite functions: attention, and recurrent layers above one another. Imports torch.

torch draws it in C++, where nothing can take hold of it. Taken apart, it is a call of ``torch.dropout`` like any other,
which draws the same numbers of torch's generator in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.nn import functional

from onnx_spatialdrop.export.torch.functions import replaced

__all__ = ["Recurrent", "apart", "as_seen"]

#: torch's functions for layers of recurrent cells.
_RECURRENT: Final = ("gru", "lstm", "rnn_relu", "rnn_tanh")


class Recurrent:
    """The arguments of torch.lstm and its like, which take packed and padded sequences by position.

    Attributes:
        ratio: what is dropped between layers.
        layers: how many layers there are.
    """

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self.packed = not isinstance(arguments[3], bool)
        self.data, *rest = arguments
        self.sizes = rest.pop(0) if self.packed else None
        self.state, self.weights, self.biases, self.layers, self.ratio, self.train, self.bidirectional, *rest = rest
        self.batch_first = bool(rest and rest[0])

    def call(self, original: Callable[..., Any], ratio: float | None = None) -> Any:
        """Call torch's function for all layers, with another ``ratio`` where one is given."""
        kept = self.ratio if ratio is None else ratio
        return original(*self._arguments(self.data, self.state, self.weights, self.layers, kept, self.batch_first))

    def apart(self, original: Callable[..., Any], drop: Callable[[Any, float], Any]) -> Any:
        """Call it once for each layer, with ``drop(x, ratio)`` between; time first inside, as torch itself has it."""
        several = isinstance(self.state, (list, tuple))
        states = list(self.state) if several else [self.state]
        directions = 2 if self.bidirectional else 1
        each = len(self.weights) // self.layers
        data, ends = self.data.transpose(0, 1) if self.batch_first else self.data, []
        for layer in range(self.layers):
            if layer:
                data = drop(data, self.ratio)
            own = [state[layer * directions : (layer + 1) * directions] for state in states]
            weights = self.weights[layer * each : (layer + 1) * each]
            data, *end = original(*self._arguments(data, own if several else own[0], weights, 1, 0.0, False))
            ends.append(end)
        last = [torch.cat(parts) for parts in zip(*ends, strict=True)]
        return (data.transpose(0, 1) if self.batch_first else data, *last)

    def _arguments(
        self, data: Any, state: Any, weights: Any, layers: int, ratio: float, batch_first: bool
    ) -> list[Any]:
        first = [data, self.sizes] if self.packed else [data]
        last = [] if self.packed else [batch_first]
        return [*first, state, weights, self.biases, layers, ratio, False, self.bidirectional, *last]


@contextmanager
def apart() -> Iterator[None]:
    """Let attention and recurrent layers that drop call ``torch.dropout``, inside the context; others are torch's own.

    The inference mode of a recurrent layer does not count, as that of a dropout does not: what drops is decided where
    ``torch.dropout`` is replaced.
    """

    def drop(x: Any, ratio: float) -> Any:
        return torch.dropout(x, ratio, True)

    def attention(original: Callable[..., Any], arguments: _Attention) -> Any:
        return arguments.apart(drop) if arguments.ratio > 0.0 else arguments.call(original)

    def recurrent(original: Callable[..., Any], arguments: Recurrent) -> Any:
        split = arguments.ratio > 0.0 and arguments.layers > 1
        return arguments.apart(original, drop) if split else arguments.call(original)

    with _replaced(attention, recurrent):
        yield


@contextmanager
def as_seen(note: Callable[[float], None]) -> Iterator[None]:
    """Tell ``note`` what attention and recurrent layers would drop, inside the context, and let them drop nothing."""

    def attention(original: Callable[..., Any], arguments: _Attention) -> Any:
        note(arguments.ratio)
        return arguments.call(original, 0.0)

    def recurrent(original: Callable[..., Any], arguments: Recurrent) -> Any:
        note(arguments.ratio if arguments.layers > 1 else 0.0)
        return arguments.call(original, 0.0)

    with _replaced(attention, recurrent):
        yield


class _Attention:
    def __init__(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = dict(zip(names, arguments, strict=False)) | keywords
        self.ratio = float(given.pop("dropout_p", 0.0))
        self.given = given

    def call(self, original: Callable[..., Any], ratio: float | None = None) -> Any:
        return original(**self.given, dropout_p=self.ratio if ratio is None else ratio)

    def apart(self, drop: Callable[[Any, float], Any]) -> Any:
        """Return softmax(query key^T scale + mask) with dropout, times value, as torch's documentation defines it."""
        query, key, value = (self.given[name] for name in ("query", "key", "value"))
        mask, scale = self.given.get("attn_mask"), self.given.get("scale")
        if self.given.get("enable_gqa"):
            key, value = (each.repeat_interleave(query.size(-3) // each.size(-3), -3) for each in (key, value))
        scores = torch.matmul(query, key.transpose(-2, -1)) * (query.size(-1) ** -0.5 if scale is None else scale)
        if self.given.get("is_causal"):
            mask = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool, device=query.device).tril()
        if mask is not None:
            scores = scores.masked_fill(mask.logical_not(), -torch.inf) if mask.dtype == torch.bool else scores + mask
        weights = torch.softmax(scores, -1)
        if mask is not None:  # nothing to attend to gives zeros
            weights = weights.masked_fill(scores.amax(-1, keepdim=True) == -torch.inf, 0.0)
        return torch.matmul(drop(weights, self.ratio), value)


@contextmanager
def _replaced(
    attention: Callable[[Callable[..., Any], _Attention], Any],
    recurrent: Callable[[Callable[..., Any], Recurrent], Any],
) -> Iterator[None]:
    own = functional.scaled_dot_product_attention

    def attend(*arguments: Any, **keywords: Any) -> Any:
        return attention(own, _Attention(arguments, keywords))

    def layers(name: str) -> Callable[..., Any]:
        original = getattr(torch, name)
        return lambda *arguments: recurrent(original, Recurrent(arguments))

    functional.scaled_dot_product_attention = attend
    try:
        with replaced({name: layers(name) for name in _RECURRENT}):
            yield
    finally:
        functional.scaled_dot_product_attention = own
