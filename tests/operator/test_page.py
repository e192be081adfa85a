"""The numbers that docs/operator.md gives to whoever implements the operator."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from onnx_spatialdrop.operator import dialects, philox, stratified, threefry

PAGE = (Path(__file__).parents[2] / "docs" / "operator.md").read_text()


def hexadecimal(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def written(words: np.ndarray) -> str:
    return "`" + " ".join(f"{word:08x}" for word in words.reshape(-1).tolist()) + "`"


def test_philox_s_vectors() -> None:
    rows = re.findall(r"(?m)^\| `([0-9a-f ]+)` \| `([0-9a-f ]+)` \| `([0-9a-f ]+)` \|$", PAGE)
    assert len(rows) == 4
    for key, counter, words in rows:
        assert philox.philox4x32(hexadecimal(counter), hexadecimal(key)).tolist() == hexadecimal(words)
    assert written(philox.words(7, [3], 4)) in PAGE


def test_the_masks_of_the_example() -> None:
    limit = stratified.threshold(0.4, 1)
    assert f"T = {limit}," in PAGE
    kept = stratified.kept_rows(7, [3], 4, limit)[0]
    assert ", ".join("kept" if each else "dropped" for each in kept) in PAGE
    limit = stratified.threshold(0.4, 31)
    for step in (31, 32, 33):
        row = stratified.kept_rows(7, [step], 8, limit, strata=31)[0]
        assert "`" + "".join("01"[int(each)] for each in row) + "`" in PAGE


def test_constants_and_words_of_the_others() -> None:
    constants = (*philox.MULTIPLIERS, *philox.KEY_STEPS, threefry.PARITY, *dialects.KERAS_TF_KEY)
    assert all(f"0x{constant:08X}" in PAGE for constant in constants)
    assert ", ".join(map(str, threefry.ROTATIONS)) in PAGE
    assert written(threefry.threefry2x32([0, 0], [0, 0])) in PAGE
    assert written(threefry.threefry2x32([2**32 - 1] * 2, [2**32 - 1] * 2)) in PAGE
    assert written(dialects.words("keras_tf", 7, [3], 4)) in PAGE
    assert written(dialects.words("keras_jax", 7, [3], 4)) in PAGE
