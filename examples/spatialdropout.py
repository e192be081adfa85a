"""The operator in plain Python, for rng "philox": a reading of docs/operator.md that uses no library of ours.

It draws one number at a time and is slow. Who implements the operator elsewhere may check a port against it, or run the
node tests.
"""

import math
import struct

M0, M1, W0, W1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85
LOW = 0xFFFFFFFF


def philox(key, counter):
    """Return the four 32-bit words of a Philox4x32-10 block; the key and both halves of the counter have 64 bits."""
    k0, k1 = key & LOW, key >> 32
    c0, c1, c2, c3 = (half >> shift & LOW for half in counter for shift in (0, 32))
    for _ in range(10):
        p0, p1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 & LOW, p0 >> 32 ^ c3 ^ k1, p0 & LOW
        k0, k1 = k0 + W0 & LOW, k1 + W1 & LOW
    return c0, c1, c2, c3


def word(seed, step, entry):
    """Return the word of an entry of a row."""
    return philox(seed % 2**64, (entry // 4, step % 2**64))[entry % 4]


def is_kept(seed, step, entry, ratio, strata):
    """Return whether an entry of a row is kept; ``ratio`` is the float32 attribute, as a Python number."""
    threshold, rank = math.ceil(ratio * strata * 2**24), 0
    whole, part = divmod(threshold, 2**24)
    if strata > 1:
        cycle, place = divmod(step, strata)
        drawn = word(seed, cycle + 2**63, entry) % (strata * (strata - 1))
        rank = ((1 + drawn // strata) * place + drawn % strata) % strata
    return rank > whole or (rank == whole and word(seed, step, entry) >> 8 >= part)


def mask(shape, axes, ratio, seed, steps, strata=1):
    """Return the mask in row-major order, True: kept. ``steps``: one number of 0 or more, or one for each sample."""
    ratio = struct.unpack("f", struct.pack("f", ratio))[0]
    shared = {axis % len(shape) for axis in axes}
    entries = math.prod(1 if axis in shared else size for axis, size in enumerate(shape))
    length = entries // len(steps)
    return [is_kept(seed, step, entry, ratio, strata) for step in steps for entry in range(length)]


if __name__ == "__main__":
    print("".join("01"[kept] for kept in mask((2, 10, 4, 4), (2, 3), 0.3, seed=7, steps=[0, 1], strata=31)))
