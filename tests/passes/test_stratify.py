"""stratify: which nodes it balances, what it leaves alone, and that the masks are then balanced."""

import re

import numpy as np
import onnx_ir as ir
import pytest
from building import dropout_ir, dropout_model
from onnx.reference import ReferenceEvaluator

import onnx_spatialdrop as sd
from onnx_spatialdrop.operator import reference
from onnx_spatialdrop.operator.evaluator import SpatialDropout
from onnx_spatialdrop.passes.stratify import StratifyPass


def test_nodes_of_the_operators_own_generator_are_balanced() -> None:
    model = dropout_model()
    before = model.SerializeToString(deterministic=True)
    balanced = sd.stratify(model)
    assert [found.strata for found in sd.find(balanced)] == [31]
    assert sd.stratify(balanced, strata=1).SerializeToString(deterministic=True) == before
    assert model.SerializeToString(deterministic=True) == before
    evaluator = ReferenceEvaluator(balanced, new_ops=[SpatialDropout])
    x = np.ones((31, 4, 2, 2), np.float32)
    feeds = {"x": x, "training_mode": np.array(True), "step": np.arange(62, 93)}
    mask = evaluator.run(None, feeds)[1]
    np.testing.assert_array_equal(mask, reference.dropout_mask(x.shape, [2, 3], 0.3, 7, feeds["step"], strata=31))
    assert set((~mask).sum(axis=0).reshape(-1).tolist()) <= {9, 10}
    fresh = [evaluator.run(None, feeds | {"x": x[:1], "step": np.array([-2])})[1] for _ in range(31)]
    assert set((~np.concatenate(fresh)).sum(axis=0).reshape(-1).tolist()) <= {9, 10}


def test_nodes_that_draw_as_a_framework_does_stay_as_they_are() -> None:
    model = dropout_ir(rng="keras_jax")
    rewrite = StratifyPass()
    assert not rewrite.call(model).modified
    assert rewrite.kept == 1


def test_a_model_that_is_balanced_already_is_not_modified() -> None:
    assert not StratifyPass().call(dropout_ir(strata=31)).modified


def test_a_number_that_is_no_prime_is_refused_before_anything_changes() -> None:
    model = dropout_ir()
    with pytest.raises(sd.SpecError, match=re.escape("strata is 30; it must be 1 or a prime number")):
        sd.stratify(model, strata=30)
    assert [found.strata for found in sd.find(model)] == [1]


def test_a_file_without_the_attribute_draws_independently() -> None:
    model = dropout_ir()
    del next(iter(model.graph)).attributes["strata"]
    assert [found.strata for found in sd.find(ir.to_proto(model))] == [1]
