"""fuse takes over seed and step of the RandomUniform of onnx/onnx #8161 where its masks are the operator's."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from building import assert_same_bits
from standard_random import evaluate

import onnx_spatialdrop as sd
from onnx_spatialdrop.operator.evaluator import SpatialDropout

DRAW = "generator = 'philox4x32_10', seed_int64 = 4611686018427387905"
X = ((np.arange(2 * 6 * 3 * 2) * 7919 % 509 - 254) / 32).reshape(2, 6, 3, 2)
X[0, 0, 0, 0] = 1.0


def model(body: str, kind: str = "float", scale: float = 2.0) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f"""
        <ir_version: 10, opset_import: ["": 28]>
        g ({kind}[2, 6, 3, 2] x, int64 offset) => ({kind}[2, 6, 3, 2] y)
        <{kind} half = {{0.5}}, {kind} third = {{0.3}}, {kind} zero = {{0}}, {kind} two = {{{scale}}}>
        {{ {body} }}
    """.replace("'", '"')
    )


PRODUCT = "kept = Where (mask, two, zero) y = Mul (x, kept)"
U = f"u = RandomUniform <{DRAW}, shape = [2, 6, 1, 1]> (offset)"
SPELLINGS = {
    "at least": f"{U} mask = GreaterOrEqual (u, half) {PRODUCT}",
    "more than": f"{U} mask = Greater (u, half) {PRODUCT}",
    "not less": f"{U} gone = Less (u, half) mask = Not (gone) {PRODUCT}",
    "not at most": f"{U} gone = LessOrEqual (u, half) mask = Not (gone) {PRODUCT}",
    "number first": f"{U} mask = LessOrEqual (half, u) {PRODUCT}",
    "number first, strictly": f"{U} mask = Less (half, u) {PRODUCT}",
    "cast": f"{U} mask = GreaterOrEqual (u, half) one = CastLike (mask, x) kept = Mul (one, two) y = Mul (x, kept)",
    "where": f"{U} gone = Less (u, half) scaled = Mul (x, two) y = Where (gone, zero, scaled)",
    "like": f"axes = Constant <value_ints = [2, 3]> () thin = ReduceSum (x, axes) "
    f"u = RandomUniformLike <{DRAW}> (thin, offset) mask = GreaterOrEqual (u, half) {PRODUCT}",
    "without an offset": f"u = RandomUniform <{DRAW}, shape = [2, 6, 1, 1]> () "
    f"mask = GreaterOrEqual (u, half) {PRODUCT}",
    "constant offset": f"at = Constant <value_int = 5> () u = RandomUniform <{DRAW}, shape = [2, 6, 1, 1]> (at) "
    f"mask = GreaterOrEqual (u, half) {PRODUCT}",
    "reshaped": f"u = RandomUniform <{DRAW}, shape = [12]> (offset) to = Constant <value_ints = [2, 6, 1, 1]> () "
    f"v = Reshape (u, to) mask = GreaterOrEqual (v, half) {PRODUCT}",
    "fewer axes": f"u = RandomUniform <{DRAW}, shape = [6, 1, 1]> (offset) mask = GreaterOrEqual (u, half) {PRODUCT}",
    "float16": f"h = RandomUniform <{DRAW}, dtype = 10, shape = [2, 6, 1, 1]> (offset) limit = Cast <to = 10> (half) "
    f"mask = GreaterOrEqual (h, limit) {PRODUCT}",
    "another ratio": f"{U} mask = GreaterOrEqual (u, third) scale = Constant <value_float = 1.4285714> () "
    "kept = Where (mask, scale, zero) y = Mul (x, kept)",
    "another ratio in float16": f"h = RandomUniform <{DRAW}, dtype = 10, shape = [2, 6, 1, 1]> (offset) "
    "limit = Cast <to = 10> (third) mask = Greater (h, limit) scale = Constant <value_float = 1.4285714> () "
    "kept = Where (mask, scale, zero) y = Mul (x, kept)",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_seed_and_step_are_taken_over(spelling: str) -> None:
    written = model(SPELLINGS[spelling])
    fused = sd.fuse(written)
    assert "RandomUniform" not in {node.op_type.removesuffix("Like") for node in fused.graph.node}
    (node,) = (node for node in fused.graph.node if node.op_type == "SpatialDropout")
    assert next(a.i for a in node.attribute if a.name == "seed") == 4611686018427387905
    for offset in (0, 5, 2**40 + 1, 2**63 - 1):
        feeds = {"x": X.astype(np.float32), "offset": np.array(offset)}
        (wanted,) = evaluate(written, feeds)
        (got,) = evaluate(fused, {**feeds, "training_mode": np.array(True)}, SpatialDropout)
        np.testing.assert_array_equal(got != 0, wanted != 0)
        np.testing.assert_allclose(got, wanted, 1e-6)
        (idle,) = evaluate(fused, {**feeds, "training_mode": np.array(False)}, SpatialDropout)
        assert_same_bits(idle, feeds["x"])


@pytest.mark.parametrize(("comparison", "kept"), [("GreaterOrEqual", True), ("Greater", False)])
def test_a_number_on_the_threshold_has_its_side(comparison: str, kept: bool) -> None:
    """A word whose number is the threshold itself decides: the seed is one that draws it."""
    u = np.float32(sd.operator.philox.words(7, [0], 1)[0, 0] >> 8) * np.float32(2.0**-24)
    scale = float(np.float32(1 / (1 - u)))
    body = (
        f"u = RandomUniform <generator = 'philox4x32_10', seed_int64 = 7, shape = [1, 1, 1, 1]> (offset) "
        f"at = Constant <value_float = {u!r}> () mask = {comparison} (u, at) {PRODUCT}".replace(
            "np.float32(", ""
        ).replace(")>", ">")
    )
    fused = sd.fuse(model(body, scale=scale), elementwise=True)
    feeds = {"x": X.astype(np.float32), "offset": np.array(0), "training_mode": np.array(True)}
    (y,) = evaluate(fused, feeds, SpatialDropout)
    assert bool(y.any()) == kept == bool(evaluate(model(body, scale=scale), feeds)[0].any())


REFUSED: dict[str, tuple[str, str]] = {
    "below": (f"{U} mask = Less (u, half) {PRODUCT}", "keeps the numbers below the threshold"),
    "transposed": (
        f"u = RandomUniform <{DRAW}, shape = [6, 2, 1, 1]> (offset) v = Transpose <perm = [1, 0, 2, 3]> (u) "
        f"mask = GreaterOrEqual (v, half) {PRODUCT}",
        "stand in another order in the mask",
    ),
    "floor": (f"{U} sum = Add (u, half) kept = Floor (sum) k = Mul (kept, two) y = Mul (x, k)", "are computed with"),
    "range": (
        f"u = RandomUniform <{DRAW}, high = 2.0, shape = [2, 6, 1, 1]> (offset) one = Constant <value_float = 1.0> () "
        f"mask = GreaterOrEqual (u, one) {PRODUCT}",
        "draws from another range than [0, 1)",
    ),
    "double": (
        f"u = RandomUniform <{DRAW}, dtype = 11, shape = [2, 6, 1, 1]> (offset) limit = Cast <to = 11> (half) "
        f"mask = GreaterOrEqual (u, limit) {PRODUCT}",
        "draws doubles, of two words each",
    ),
    "negative offset": (
        f"at = Constant <value_int = -2> () u = RandomUniform <{DRAW}, shape = [2, 6, 1, 1]> (at) "
        f"mask = GreaterOrEqual (u, half) {PRODUCT}",
        "is negative, which asks SpatialDropout for a fresh draw",
    ),
    "generator": (
        "u = RandomUniform <generator = 'threefry', seed_int64 = 3, shape = [2, 6, 1, 1]> (offset) "
        f"mask = GreaterOrEqual (u, half) {PRODUCT}",
        "generator is 'threefry', which nobody has defined",
    ),
    "no seed": (
        "u = RandomUniform <generator = 'philox4x32_10', shape = [2, 6, 1, 1]> (offset) "
        f"mask = GreaterOrEqual (u, half) {PRODUCT}",
        "its seed_int64 is missing",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_masks_of_that_generator_are_left_alone(case: str) -> None:
    body, reason = REFUSED[case]
    report = sd.explain(model(body))
    assert not report.fused
    assert [reason in record.reason for record in report.refused] == [True]


@pytest.mark.parametrize("case", [*SPELLINGS, *(case for case in REFUSED if case not in ("generator", "no seed"))])
def test_all_of_it_goes_at_inference(case: str) -> None:
    clean = sd.to_inference(model({**SPELLINGS, **{name: body for name, (body, _) in REFUSED.items()}}[case]))
    assert "RandomUniform" not in {node.op_type.removesuffix("Like") for node in clean.graph.node}
    (y,) = evaluate(clean, {"x": X.astype(np.float32)})
    assert_same_bits(y, X.astype(np.float32))


def test_one_generator_of_the_runtime_s_own_is_as_before() -> None:
    body: Any = SPELLINGS["at least"].replace("(offset)", "()").replace(DRAW, "generator = 'unspecified', seed = 3.0")
    (node,) = (node for node in sd.fuse(model(body)).graph.node if node.op_type == "SpatialDropout")
    assert next(a.i for a in node.attribute if a.name == "seed") != 3
    assert node.input[2] == "step"
