"""RandomUniform and RandomUniformLike as onnx/onnx #8161 proposes them, for onnx's ReferenceEvaluator."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

__all__ = ["NEW_OPS", "evaluate", "numbers"]

_LOW = 0xFFFFFFFF


def _block(key: int, index: int, offset: int) -> list[int]:
    k0, k1 = key & _LOW, key >> 32
    c0, c1, c2, c3 = index & _LOW, index >> 32, offset & _LOW, offset >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _LOW, (p0 >> 32) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return [c0, c1, c2, c3]


def numbers(seed: int, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return numbers in [0, 1): a word each and as many bits as the type's significand has; doubles take two words."""
    count, words_each = int(np.prod(shape)), 2 if dtype == np.float64 else 1
    key, stream = seed % 2**64, offset % 2**64
    words = [word for index in range(-(-count * words_each // 4)) for word in _block(key, index, stream)]
    if words_each == 2:
        drawn = [((words[2 * i] >> 5) * 2**26 + (words[2 * i + 1] >> 6)) / 2**53 for i in range(count)]
    else:
        precision = int(ml_dtypes.finfo(dtype).nmant) + 1
        drawn = [(words[i] >> (32 - precision)) / 2**precision for i in range(count)]
    return np.array(drawn, np.float64).reshape(shape).astype(dtype)


def _drawn(shape: Any, offset: Any, dtype: Any, low: Any, high: Any, generator: Any, seed: Any, key: Any) -> Any:
    if generator != "philox4x32_10" or key is None or seed is not None:
        raise ValueError(f"generator {generator!r} with seed_int64 {key} and seed {seed}")
    if offset is not None and np.ndim(offset):
        raise ValueError(f"offset has shape {np.shape(offset)}; it must be a scalar")
    stream = 0 if offset is None else int(offset)
    low, high = (np.asarray(default if end is None else end, dtype) for end, default in ((low, 0.0), (high, 1.0)))
    return (numbers(int(key), stream, tuple(shape), dtype) * (high - low) + low,)


class RandomUniform(OpRun):
    op_domain = ""

    def _run(
        self, offset=None, dtype=None, generator=None, high=None, low=None, seed=None, seed_int64=None, shape=None
    ):  # type: ignore[no-untyped-def,override]
        kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(dtype or 1))
        return _drawn(shape, offset, kind, low, high, generator, seed, seed_int64)


class RandomUniformLike(OpRun):
    op_domain = ""

    def _run(self, x, offset=None, dtype=None, generator=None, high=None, low=None, seed=None, seed_int64=None):  # type: ignore[no-untyped-def,override]
        kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(dtype)) if dtype else x.dtype
        return _drawn(x.shape, offset, kind, low, high, generator, seed, seed_int64)


NEW_OPS = [RandomUniform, RandomUniformLike]


def evaluate(model: onnx.ModelProto, feeds: dict[str, Any], *new_ops: Any) -> list[np.ndarray[Any, Any]]:
    """Run a model in onnx's ReferenceEvaluator with the proposed operators, and others, on the feeds it knows."""
    names = {value.name for value in model.graph.input}
    evaluator = ReferenceEvaluator(model, new_ops=[*NEW_OPS, *new_ops])
    outputs: Any = evaluator.run(None, {name: feed for name, feed in feeds.items() if name in names})
    return [np.asarray(output) for output in outputs]
