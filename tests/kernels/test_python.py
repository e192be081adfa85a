"""The Python kernel's op and its lowering, without a session; tests/runtime runs them in one."""

import json
import logging

import numpy as np
import pytest
from building import dropout_ir, dropout_model

import onnx_spatialdrop as sd
from onnx_spatialdrop import io, reference
from onnx_spatialdrop.kernels import python
from onnx_spatialdrop.operator import dialects, spec
from onnx_spatialdrop.passes.lower import MASKS_OP, LowerPass

SHAPE, AXES = (3, 4, 5, 5), [2, 3]


def fact(seed: int = 7, strata: int = 1, rng: str = "philox", dtype: str = "float16", **changed: int) -> list[object]:
    threshold = spec.Attributes((), 0.3, seed, rng=rng, strata=strata).threshold(spec.DTYPES[dtype])
    return [seed, changed.get("threshold", threshold), strata, rng, dtype, "node 'd'"]


def draw(*facts: list[object], training: bool = True, step: tuple[int, ...] = (3,), counter: int = 10**9) -> np.ndarray:
    """Return the kept entries of nodes whose masks have the shape (3, 4, 1, 1), (nodes, 3, 4)."""
    sizes = np.array([3] + [4] * len(facts))
    flat = python.draw(sizes, np.array([training]), np.array(step), counter=counter, nodes=json.dumps(facts))
    return ~flat.reshape(3, len(facts), 4).transpose(1, 0, 2)


def mask(seed: int, step: object, **changed: object) -> np.ndarray:
    return reference.dropout_mask(SHAPE, AXES, 0.3, seed, step, **changed).reshape(3, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [(3,), (3, 0, 2**40)])
def test_one_call_draws_the_references_masks_of_all_nodes(step: tuple[int, ...]) -> None:
    kept = draw(fact(7), fact(-(2**63)), fact(2**40, strata=31), fact(7, rng="keras_tf"), fact(0), step=step)
    np.testing.assert_array_equal(kept[0], mask(7, step))
    np.testing.assert_array_equal(kept[1], mask(-(2**63), step))
    np.testing.assert_array_equal(kept[2], mask(2**40, step, strata=31))
    np.testing.assert_array_equal(kept[3], mask(7, step, rng="keras_tf", dtype="float16"))
    np.testing.assert_array_equal(kept[4], mask(0, step))


@pytest.mark.parametrize("rng", spec.RNGS)
def test_it_draws_every_dialect_with_the_test_of_its_type(rng: str) -> None:
    for name in dialects.DIALECTS[rng].tests:
        (kept,) = draw(fact(rng=rng, dtype=name), step=(3, 0, 2**40))
        np.testing.assert_array_equal(kept, mask(7, [3, 0, 2**40], rng=rng, dtype=name))


def test_it_balances_draws_and_begins_negative_sequences_with_a_cycle() -> None:
    for step, expected in (((3, 0, 2**40),) * 2, ((-2,), (spec.fresh_step(-2, 0, 31),))):
        kept = draw(fact(strata=31), fact(), step=step, counter=10**9 + 1)
        np.testing.assert_array_equal(kept[0], mask(7, expected, strata=31))
        if step == (-2,):
            expected = (spec.fresh_step(-2, 0),)
        np.testing.assert_array_equal(kept[1], mask(7, expected))


def test_an_idle_mask_keeps_all_and_takes_no_number_of_the_counter() -> None:
    assert draw(fact(), training=False, step=(-1,), counter=10**9 + 2).all()
    np.testing.assert_array_equal(draw(fact(), step=(-1,), counter=10**9 + 2)[0], mask(7, 0))


def test_a_fault_is_logged_and_answered_with_an_entry_too_many(caplog: pytest.LogCaptureFixture) -> None:
    """An exception would end the process."""
    arguments = {"counter": 0, "nodes": json.dumps([fact()])}
    with caplog.at_level(logging.ERROR, "onnx_spatialdrop"):
        assert python.draw(np.array([3, 4]), np.array(True), np.array([1, 2]), **arguments).size == 13
    assert "node 'd': step has 2 elements; allowed: 1, or 3" in caplog.text
    assert python.draw(None, None, None).size == 1  # type: ignore[arg-type]


def test_one_node_of_the_kernel_has_a_counter_of_its_own() -> None:
    lowered, _ = io.rewrite(dropout_model(), None, LowerPass(iter([41])).call)
    (made,) = (node for node in lowered.graph.node if node.op_type == MASKS_OP)
    assert next(a.i for a in made.attribute if a.name == "counter") == 41


def test_opsets_that_lack_what_the_lowering_needs_are_refused() -> None:
    model = dropout_model(opset=12)
    with pytest.raises(
        sd.FormError, match="node 'drop': opset 12 is too old for the Python kernel; convert the model to"
    ):
        sd.session(model, "python")
    for changed in ({"opset": 14}, {"opset": 18, "rng": "keras_tf"}):
        unknown = dropout_ir(wrap=True, **changed)
        unknown.graph[0].outputs[0].type = None
        with pytest.raises(
            sd.FormError, match="the type of its input 'before_out' is not in the file; run onnx.shape_inf"
        ):
            sd.session(unknown, "python")


def test_where_its_library_has_no_package_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "find_spec", lambda name: None if name == "onnxruntime_extensions" else object())
    monkeypatch.setattr(python.sys, "platform", "win32")
    monkeypatch.setattr(python.platform, "machine", lambda: "ARM64")
    assert python.missing_reason() == (
        "onnxruntime-extensions has no package for Windows on Arm; use kernel='native' or kernel='body'"
    )
    monkeypatch.setattr(python.platform, "machine", lambda: "AMD64")
    assert python.missing_reason() == ("onnxruntime-extensions is not installed (pip install onnxruntime-extensions)")
