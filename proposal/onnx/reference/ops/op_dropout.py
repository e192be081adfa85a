"""A proposal: the reference implementation of Dropout with axes and a defined generator."""

from __future__ import annotations

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_dropout import _dropout


def philox_words(key: int, offset: int, count: int) -> np.ndarray:
    """Return the words of RandomUniform's generator "philox4x32_10"; in onnx they come from its own module."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    block = np.arange(-(-count // 4), dtype=np.uint64)
    k0, k1 = key % 2**32, key // 2**32 % 2**32
    c = [block & low, block >> half, np.uint64(offset % 2**32), np.uint64(offset // 2**32 % 2**32)]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> half) ^ c[1] ^ np.uint64(k0), p1 & low, (p0 >> half) ^ c[3] ^ np.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return np.stack(np.broadcast_arrays(*c), -1).reshape(-1)[:count]


class Dropout(OpRun):
    """As in onnx, a class of its own for the new version."""

    def _run(  # type: ignore[no-untyped-def]
        self, data, ratio=None, training_mode=None, offset=None, axes=None, generator=None, seed=None
    ):
        ratio = np.float32(0.5 if ratio is None else np.asarray(ratio).item())
        training = training_mode is not None and bool(np.asarray(training_mode).item())
        shared = {axis % data.ndim for axis in axes or ()}
        shape = [1 if axis in shared else size for axis, size in enumerate(data.shape)]
        if not training:
            return data.copy(), np.ones(shape, bool)
        if generator in (None, "unspecified"):
            kept = _dropout(np.ones(shape, np.float32), ratio, seed=seed, return_mask=True, training_mode=True)[1]
        else:
            if generator != "philox4x32_10" or seed is None:
                raise ValueError(f"generator is {generator!r}, with seed {seed}")
            drawn = philox_words(int(seed), 0 if offset is None else int(offset), int(np.prod(shape)))
            kept = ((drawn >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24) >= ratio).reshape(shape)
        with np.errstate(all="ignore"):  # ratio 1, and what overflows, is dropped or infinite
            scaled = data * np.asarray(np.float64(1) / (np.float64(1) - np.float64(ratio))).astype(data.dtype)
        return np.where(kept, scaled, np.zeros((), data.dtype)), kept
