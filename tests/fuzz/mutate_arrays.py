"""Broken .npz files made out of good ones: bytes damaged, members whose headers lie, other types, shapes and names."""

from __future__ import annotations

import io
import json
import random
import zipfile
from typing import Any

import numpy as np
from fuzz.mutate import damage

__all__ = ["mutate_arrays"]

_TYPES = ("bool", "int8", "int64", "uint64", "float16", "float32", "float64", "complex64", "U3", "S2", "V2", "M8[s]")
_WORDS = ("steps", "first_step", "format", "inputs", "layers", "scales", "framework")
_VALUES = (
    None,
    True,
    0,
    -1,
    1,
    2,
    2**31,
    2**63,
    2**70,
    1e400,
    "x",
    "",
    [],
    ["a", "a"],
    [1],
    {},
    {"x": "y"},
    [{"x": 0}],
)
_SHAPES = ((), (0,), (1,), (2, 0, 3), (1, 1, 1, 1, 1))
_CLAIMS = (b"(2,)", b"(-1,)", b"(1099511627776,)", b"(9223372036854775807, 8)", b"(2, 2, 'x')", b"()", b"[2]")


def mutate_arrays(content: bytes, rng: random.Random) -> bytes:
    """Return a broken copy of an .npz file, the same for the same state of ``rng``."""
    if rng.random() < 0.15:
        return damage(content, rng)
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        members = {name: _packed(stored[name]) for name in stored.files}
    for _ in range(rng.choice((1, 1, 2, 5))):
        name = rng.choice(list(members))
        if name == "recording" and rng.random() < 0.8:
            members[name] = _header(members[name], rng)
        else:
            _change(members, name, rng)
        if not members:
            break
    out = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(out, "w", method) as packed:
        for name, member in members.items():
            packed.writestr(zipfile.ZipInfo(f"{name}.npy" if rng.random() < 0.98 else name), member, method)
    return out.getvalue()


def _change(members: dict[str, bytes], name: str, rng: random.Random) -> None:
    array = np.load(io.BytesIO(members[name]), allow_pickle=True) if _is_whole(members[name]) else np.zeros(3)
    match rng.randrange(8):
        case 0:
            del members[name]
        case 1:
            other = rng.choice(list(members))
            members[name], members[other] = members[other], members[name]
        case 2:
            members[name + rng.choice(("0", "1", "x", "/mask0", "\x1b[31m"))] = members[name]
        case 3:
            members[name] = _packed(np.zeros(array.shape, rng.choice(_TYPES)))
        case 4:
            members[name] = _packed(np.zeros(rng.choice(_SHAPES), array.dtype))
        case 5:
            members[name] = _packed(np.array([{"an": "object"}, None]))
        case 6:
            start, end = members[name].find(b"("), members[name].find(b")") + 1
            members[name] = members[name][:start] + rng.choice(_CLAIMS) + members[name][end:]
        case _:
            members[name] = damage(members[name], rng)


def _is_whole(member: bytes) -> bool:
    try:
        np.load(io.BytesIO(member), allow_pickle=True)
    except Exception:  # noqa: BLE001 - changed before
        return False
    return True


def _header(member: bytes, rng: random.Random) -> bytes:
    try:
        header: Any = json.loads(str(np.load(io.BytesIO(member), allow_pickle=False)))
        word = rng.choice(_WORDS)
        if rng.random() < 0.7 or not isinstance(header[word], list) or not header[word]:
            header[word] = rng.choice(_VALUES)
        else:
            header[word][rng.randrange(len(header[word]))] = rng.choice(_VALUES)
        text = json.dumps(header)
    except Exception:  # noqa: BLE001 - changed before
        text = rng.choice(("", "{", "[" * 100_000, "1", "NaN"))
    return _packed(np.array(text))


def _packed(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()
