"""The native kernel draws every dialect's masks: the reference's, bit for bit, with every instruction set."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from native_models import assert_right, drop_node, make_model, make_session, numbers, run

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.operator import dialects, reference
from onnx_spatialdrop.operator.spec import Attributes, fresh_step

HEADER = Path(__file__).parents[2] / "ops" / "src" / "dialects.h"
TYPES = ["float16", "bfloat16", "float32", "float64"]
PATHS = ["portable", "avx2", "avx512"]
PAIRS = [(rng, dtype) for rng, dialect in dialects.DIALECTS.items() for dtype in dialect.tests]


@pytest.mark.skipif(not HEADER.is_file(), reason="needs the sources")
def test_the_kernels_table_is_the_operators_table() -> None:
    rows = re.findall(r'\{"(\w+)", Words::k(\w+), (\w+), (\w+), \{([^;]*?)\}\},', HEADER.read_text())
    words = {"Philox": "philox", "KerasTf": "keras_tf", "Threefry": "threefry"}
    table = {}
    for name, drawn, below, own_type, tests in rows:
        pairs = [(int(shift), int(bits)) for shift, bits in re.findall(r"\{(\d+), (\d+)\}", f"{tests}}}")]
        by_type = {t: dialects.WordTest(*pair) for t, pair in zip(TYPES, pairs, strict=True) if pair[1] != 0}
        table[name] = dialects.Dialect(words[drawn], by_type, below == "true", own_type == "true")  # type: ignore[arg-type]
    assert list(table) == list(dialects.DIALECTS)
    # How soon seeds repeat follows from the words, and the kernel has no use for it.
    assert table == {rng: replace(one, period=dialects.Dialect.period) for rng, one in dialects.DIALECTS.items()}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("rng", "dtype"), PAIRS)
def test_all_rates_seeds_and_steps(rng: str, dtype: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_SPATIALDROP_CPU", path)
    seeds = [0, 1, -1, 2**31 - 2, 2**31 - 1, 2**32 + 5, 2**63 - 1, -(2**63), 1234567]
    x = numbers((3, 2, 37), dtype)
    steps = [[0], [2**31 - 2], [2**32 + 3], [2**63 - 1], [5, 0, 2**40]]
    for k in range(21):
        attributes = {"axes": [1], "ratio": dialects.ratio_for(k / 20, rng, dtype), "seed": seeds[k % 9], "rng": rng}
        session = make_session(
            make_model([drop_node("x", "y", "mask", **attributes)], dtype, x.shape, ("y", "mask")),
        )
        for step in (steps[k % 5], steps[4]):
            y, mask = run(session, x, True, step)
            assert_right(x, y, mask, **attributes, step=step)
        for count in range(2):
            y, mask = run(session, x, True, -1 - k)
            assert_right(x, y, mask, **attributes, step=[fresh_step(-1 - k, count)])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("rng", "dtype"), PAIRS)
def test_rows_of_any_length(rng: str, dtype: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNX_SPATIALDROP_CPU", path)
    session = make_session(
        make_model([drop_node("x", "y", "mask", axes=[], ratio=0.4, rng=rng)], dtype, None, ("y", "mask"))
    )
    for count in [*range(1, 40), 63, 64, 65, 127, 128, 129, 1000, 40000]:
        x = np.ones((2, count), np.float32).astype(reference.spec.DTYPES[dtype])
        step = [count, 7] if count % 2 else [count]
        y, mask = run(session, x, True, step)
        assert_right(x, y, mask, axes=[], ratio=0.4, seed=7, rng=rng, step=step)


def test_a_type_that_a_dialect_lacks_is_refused_at_load() -> None:
    lacking = [(rng, dtype) for rng in dialects.DIALECTS for dtype in TYPES if (rng, dtype) not in PAIRS]
    assert lacking
    for rng, dtype in lacking:
        with pytest.raises(SpecError) as expected:
            dialects.word_test(rng, np.dtype(reference.spec.DTYPES[dtype]), "node 'drop1'")
        with pytest.raises(Exception) as said:  # noqa: PT011 -- onnxruntime raises a dozen unrelated classes
            make_session(make_model([drop_node("x", "y", "", rng=rng)], dtype))
        assert str(expected.value) in str(said.value)


def test_an_unknown_dialect_is_refused_in_the_definitions_words() -> None:
    with pytest.raises(SpecError) as expected:
        Attributes((1,), 0.5, 7, rng="mt19937", where="node 'drop1'")
    with pytest.raises(Exception) as said:  # noqa: PT011 -- onnxruntime raises a dozen unrelated classes
        make_session(make_model([drop_node("x", "y", "", rng="mt19937")]))
    assert str(expected.value) in str(said.value)
