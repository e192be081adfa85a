"""onnx's own tools work past SpatialDropout nodes."""

import numpy as np
import onnx
import pytest
from building import assert_same_bits, dropout_model
from onnx.reference import ReferenceEvaluator

import onnx_spatialdrop
from onnx_spatialdrop import reference
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.evaluator import SpatialDropout


def test_the_checker_accepts_a_node_and_refuses_one_without_a_ratio() -> None:
    model = dropout_model()
    onnx.checker.check_model(model, full_check=True, check_custom_domain=True)
    ratio = next(a for a in model.graph.node[0].attribute if a.name == "ratio")
    model.graph.node[0].attribute.remove(ratio)
    with pytest.raises(onnx.checker.ValidationError, match="Required attribute 'ratio' is missing"):
        onnx.checker.check_model(model, check_custom_domain=True)


def test_shape_inference_goes_past_the_node() -> None:
    model = dropout_model(wrap=True, shape=("N", 4, 6, "W"), axes=(1, -1), mask=False)
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    found = {v.name: v.type.tensor_type for v in inferred.graph.value_info}
    dims = {name: [d.dim_param or d.dim_value for d in t.shape.dim] for name, t in found.items()}
    assert (found["dropped"].elem_type, dims["dropped"]) == (onnx.TensorProto.FLOAT, ["N", 4, 6, "W"])
    assert (found["mask"].elem_type, dims["mask"]) == (onnx.TensorProto.BOOL, ["N", 1, 6, 1])


def test_shape_inference_refuses_axes_out_of_range() -> None:
    model = dropout_model()
    axes = next(a for a in model.graph.node[0].attribute if a.name == "axes")
    axes.ints[:] = [5]
    with pytest.raises(onnx.shape_inference.InferenceError, match=r"axis 5 is out of range for rank 4"):
        onnx.shape_inference.infer_shapes(model, strict_mode=True)


@pytest.mark.skipif(not hasattr(onnx.defs.OpSchema, "NodeDeterminism"), reason="onnx says so from 1.20 on")
def test_the_schema_says_that_the_operator_is_random() -> None:
    schema = onnx.defs.get_schema("SpatialDropout", 1, "onnx_spatialdrop")
    assert schema.node_determinism == onnx.defs.OpSchema.NodeDeterminism.NonDeterministic
    onnx_spatialdrop.register_schema()  # a second time: no error


@pytest.mark.parametrize("rng", spec.RNGS)
def test_the_reference_evaluator_runs_nodes_and_counts_negative_steps(rng: str) -> None:
    evaluator = ReferenceEvaluator(dropout_model(rng=rng), new_ops=[SpatialDropout])
    x = np.random.default_rng(0).random((2, 4, 3, 3), np.float32)
    on = {"x": x, "training_mode": np.array(True)}
    for fed, step in ((9, 9), (-1, 0), (-1, 1), (-7, 2 + 6 * 2**20), (-(2**63), 3 + 2**63 - 2**20)):
        y, mask = evaluator.run(None, on | {"step": np.array([fed])})
        expected = reference.spatial_dropout(x, [2, 3], 0.3, 7, step, scale=spec.explicit_scale(0.3), rng=rng)
        assert_same_bits(y, expected[0])
        np.testing.assert_array_equal(mask, expected[1])
    off = {"x": x, "training_mode": np.array(False), "step": np.array([-1])}
    np.testing.assert_array_equal(evaluator.run(None, off)[0], x)
