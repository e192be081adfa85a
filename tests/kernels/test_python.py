"""The Python kernel's op and its lowering, without a session; tests/runtime runs them in one."""

import logging

import numpy as np
import pytest
from building import dropout_ir, dropout_model

import onnx_spatialdrop as sd
from onnx_spatialdrop import io, reference
from onnx_spatialdrop.kernels import python
from onnx_spatialdrop.operator import dialects, spec, stratified
from onnx_spatialdrop.passes.lower import LowerPass

ATTRIBUTES = {
    "seed": 7,
    "strata": 1,
    "threshold": spec.threshold(0.3),
    "counter": 10**9,
    "full": 1,
    "rng": "philox",
    "dtype": "float16",
    "node": "node 'd'",
}


def draw(training: bool = True, step: tuple[int, ...] = (3,), **changed: object) -> tuple[np.ndarray, np.ndarray]:
    inputs = (np.array([3, 4, 5, 5]), np.array([2, 3]), np.array([training]), np.array(step))
    return python.draw(*inputs, **(ATTRIBUTES | changed))


def test_the_op_draws_the_references_mask_flat_with_its_shape() -> None:
    flat, shape = draw()
    np.testing.assert_array_equal(flat.reshape(shape), reference.dropout_mask((3, 4, 5, 5), [2, 3], 0.3, 7, 3))


@pytest.mark.parametrize("rng", spec.RNGS)
def test_it_draws_every_dialect_with_the_test_of_its_type(rng: str) -> None:
    for name in dialects.DIALECTS[rng].tests:
        flat, shape = draw(rng=rng, dtype=name, threshold=dialects.threshold(0.3, rng, name), step=(3, 0, 2**40))
        expected = reference.dropout_mask((3, 4, 5, 5), [2, 3], 0.3, 7, [3, 0, 2**40], rng=rng, dtype=name)
        np.testing.assert_array_equal(flat.reshape(shape), expected)


def test_it_balances_draws_and_begins_negative_sequences_with_a_cycle() -> None:
    changed = {"strata": 31, "threshold": stratified.threshold(0.3, 31), "counter": 10**9 + 1}
    for step, expected in (((3, 0, 2**40),) * 2, ((-2,), (spec.fresh_step(-2, 0, 31),))):
        flat, shape = draw(step=step, **changed)
        mask = reference.dropout_mask((3, 4, 5, 5), [2, 3], 0.3, 7, expected, strata=31)
        np.testing.assert_array_equal(flat.reshape(shape), mask)


def test_an_idle_mask_that_nobody_reads_is_one_entry() -> None:
    assert [part.tolist() for part in draw(training=False, full=0)] == [[True], [1, 1, 1, 1]]
    flat, shape = draw(training=False)
    assert (flat.all(), shape.tolist()) == (True, [3, 4, 1, 1])


def test_a_fault_is_logged_and_answered_with_a_shape_that_does_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    """An exception would end the process."""
    with caplog.at_level(logging.ERROR, "onnx_spatialdrop"):
        flat, shape = draw(step=(1, 2))
    assert flat.size != np.prod(shape)
    assert "node 'd': step has 2 elements; allowed: 1, or 3" in caplog.text
    flat, shape = python.draw(None, None, None, None)
    assert flat.size != np.prod(shape)


def test_nodes_of_a_model_have_counters_of_their_own() -> None:
    lowered, _ = io.rewrite(dropout_model(), None, LowerPass(iter([41])).call)
    (mask,) = (node for node in lowered.graph.node if node.op_type == "SpatialDropoutMask")
    assert {a.name: a.i for a in mask.attribute if a.name in ("counter", "threshold")} == {
        "counter": 41, "threshold": spec.threshold(0.3),
    }  # fmt: skip


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
