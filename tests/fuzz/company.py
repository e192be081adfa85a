"""Folders with all that a verb reads, one of the files broken: models, recordings, inputs, and what demo shows."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from fuzz import contract, mutate
from fuzz.mutate_arrays import mutate_arrays

import onnx_spatialdrop as sd

__all__ = ["ROOT", "Folder", "alone", "corpus", "fill", "pairs", "pick"]

ROOT = Path(__file__).parents[2]
_DATA = ROOT / "tests" / "data"
_DEMO = ("digits_torch.npz", "digits_torch.onnx", "digits_torch_train_export.onnx", "digits_torch_eval_export.onnx")
_FACTORY = """
from pathlib import Path
from onnx_spatialdrop.verify import Recording

def network():
    return Recording(Path(__file__).with_name("recording.npz"))
"""

#: The content of each file in a folder, by name.
Folder = dict[str, bytes]


@dataclass(frozen=True)
class Pair:
    """A model and what its framework did."""

    model: bytes
    recording: bytes


def corpus() -> list[Path]:
    """Return the good models that broken ones are made of: ours, and what exporters wrote."""
    files = [*(ROOT / "models").glob("*.onnx"), *_DATA.rglob("*.onnx")]
    return sorted(file for file in files if file.stat().st_size < 200_000)


@cache
def pairs() -> tuple[Pair, ...]:
    """Return the good models that there are recordings of, those of torch with their masks as inputs.

    Networks in bfloat16 are left out: they need another runtime or tolerance than verify's own.
    """
    found = [
        Pair(file.read_bytes(), file.with_suffix(".npz").read_bytes())
        for file in sorted((_DATA / "keras_masks").glob("*.onnx"))
        if "bfloat16" not in file.stem
    ]
    for file in sorted((_DATA / "torch_masks").glob("*.npz")):
        expanded = sd.expand(onnx.load(_DATA / "torch" / f"{file.stem}.onnx"), form="mask-inputs")
        assert isinstance(expanded, onnx.ModelProto)
        found.append(Pair(expanded.SerializeToString(), file.read_bytes()))
    return tuple(found)


def _inputs(recording: bytes) -> bytes:
    """Return the inputs of a recording as verify's --inputs takes them."""
    import json

    out = io.BytesIO()
    with np.load(io.BytesIO(recording)) as stored:
        names = json.loads(str(stored["recording"]))["inputs"]
        np.savez_compressed(out, **{name: stored[f"input{index}"] for index, name in enumerate(names)})
    return out.getvalue()


def alone(content: bytes, rng: random.Random) -> Folder:
    """Return a folder that holds one broken model."""
    return {"model.onnx": mutate.mutate(content, rng)}


def good(pair: Pair) -> Folder:
    """Return a folder of good files for the verbs that run models, but for demo."""
    return {
        "model.onnx": pair.model,
        "recording.npz": pair.recording,
        "inputs.npz": _inputs(pair.recording),
        "framework.py": _FACTORY.encode(),
    }


def for_demo() -> Folder:
    """Return a folder of the files that demo shows."""
    return {name: (ROOT / "models" / name).read_bytes() for name in _DEMO}


def pick(contents: Sequence[bytes], rng: random.Random) -> tuple[Folder, list[contract.Verb]]:
    """Return a folder with one broken file, and the verbs that read it, the same for the same state of ``rng``."""
    chance = rng.random()
    if chance < 0.6:
        return alone(rng.choice(contents), rng), rng.sample((*contract.READING, *contract.REWRITING), 4)
    if chance < 0.65:
        return _break(for_demo(), rng), [verb for verb in contract.RUNNING if verb[0] == "demo"]
    verbs = [verb for verb in contract.RUNNING if verb[0] == "verify"]
    folder = good(rng.choice(pairs()))
    if rng.random() < 0.6:
        return folder | {"model.onnx": mutate.mutate(folder["model.onnx"], rng)}, rng.sample(verbs, 3)
    return _break(folder, rng), rng.sample(verbs, 3)


def _break(folder: Folder, rng: random.Random) -> Folder:
    name = rng.choice([name for name in folder if not name.endswith(".py")])
    change = mutate_arrays if name.endswith(".npz") else mutate.mutate
    return folder | {name: change(folder[name], rng)}


def fill(place: Path, folder: Folder) -> Path:
    """Write a folder's files into ``place``, without any others; return where its model is."""
    for path in place.iterdir():
        if path.name not in folder:
            path.unlink()
    for name, content in folder.items():
        (place / name).write_bytes(content)
    return place / "model.onnx"
