"""The form "standard", the RandomUniform of onnx/onnx #8161: by an evaluator of its own, and back by fuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from building import assert_same_bits, dropout_ir, dropout_model
from standard_random import evaluate

import onnx_spatialdrop as sd
from onnx_spatialdrop import reference
from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.evaluator import SpatialDropout
from onnx_spatialdrop.passes.expand import ExpandPass, expand

ON, OFF = np.array(True), np.array(False)
SHAPE = (3, 5, 2, 2)


def written(**arguments: Any) -> onnx.ModelProto:
    return expand(dropout_model(**{"shape": SHAPE, "opset": 28} | arguments), form="standard", target="onnx")


def numbers(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """Return numbers of both signs, with Inf, NaN and -0 among them."""
    values = (np.arange(np.prod(shape)) * 7919 % 509 - 254) / 32
    values[:4] = np.inf, np.nan, -0.0, -np.inf
    return values.reshape(shape).astype(spec.DTYPES[dtype])


@pytest.mark.parametrize("dtype", list(spec.DTYPES))
@pytest.mark.parametrize("ratio", [0.0, 2.0**-25, 0.3, 0.5, 0.9, 1.0])
def test_bits_and_values_are_the_reference_s(dtype: str, ratio: float) -> None:
    x = numbers(SHAPE, dtype)
    for axes in ((), (2, 3), (0, 2, 3), (1,), (0, 1, 2, 3)):
        for seed, step in ((7, 0), (-(2**63), 2**40 + 3), (2**63 - 1, 2**63 - 1)):
            model = written(dtype=dtype, ratio=ratio, axes=axes, seed=seed)
            wanted = reference.spatial_dropout(x, axes, ratio, seed, step, scale=spec.explicit_scale(ratio, x.dtype))
            got = evaluate(model, {"x": x, "training_mode": ON, "step": np.array([step])})
            for a, b in zip(got, wanted, strict=True):
                assert_same_bits(a, b)
            idle, kept = evaluate(model, {"x": x, "training_mode": OFF, "step": np.array([step])})
            assert kept.all()
            assert_same_bits(idle, x)


def test_a_dropout_is_about_six_nodes() -> None:
    computing = [n.op_type for n in written(mask=False).graph.node if n.op_type != "Constant"]
    assert sorted(computing) == ["Less", "Mul", "RandomUniform", "Squeeze", "Where", "Where", "Where"]
    always = written(mask=False, training_mode=True, step=[4]).graph.node
    assert [n.op_type for n in always if n.op_type != "Constant"] == [
        "Squeeze",
        "RandomUniform",
        "Less",
        "Mul",
        "Where",
    ]


def test_the_step_has_to_be_fed_and_the_switch_has_not() -> None:
    model = written()
    assert {tensor.name for tensor in model.graph.initializer} == {"training_mode"}
    (step,) = (value for value in model.graph.input if value.name == "step")
    assert [dim.dim_value for dim in step.type.tensor_type.shape.dim] == [1]


ELSE = "use form='philox' for a runtime that there is, or form='mask-inputs'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"shape": ("N", 4, 2, 2)},
            "form 'standard' needs a mask of a fixed shape, and the file leaves sizes open; "
            f"fix them (onnx.tools.update_model_dims), or {ELSE}",
        ),
        ({"step": [1, 2, 3]}, f"form 'standard' takes one step a run, and this node has 3; {ELSE}"),
        (
            {"step": [-1]},
            "form 'standard' knows no fresh draw, and the step is always -1; make it an input or a number from 0 on "
            "(fix)",
        ),
        ({"strata": 31}, f"form 'standard' has no generator for strata 31; {ELSE}"),
        ({"rng": "keras_tf"}, f"form 'standard' has no generator for rng 'keras_tf'; {ELSE}"),
        ({"opset": 27}, "form 'standard' in onnx needs opset 28 or newer, and the model imports 27; "
                        "convert the model's opset to 28 before expanding"),
    ],
)  # fmt: skip
def test_what_it_cannot_hold_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(FormError) as error:
        ExpandPass("standard", "onnx").call(dropout_ir(**{"shape": SHAPE, "opset": 28} | arguments))
    assert str(error.value) == f"node 'drop': {message}"


@pytest.mark.parametrize("target", [target for target in sd.passes.expand.TARGETS if target != "onnx"])
def test_every_runtime_refuses_it(target: str) -> None:
    with pytest.raises(FormError) as error:
        ExpandPass("standard", target).call(dropout_ir(shape=SHAPE, opset=28))
    assert "form 'standard' does not run in " in str(error.value)
    assert str(error.value).endswith("; no runtime has it yet, and target='onnx' writes it")


@pytest.mark.parametrize("stripped", [False, True])
@pytest.mark.parametrize("arguments", [{}, {"training_mode": True, "step": [4]}, {"training_mode": True}])
def test_fuse_gives_the_node_back(stripped: bool, arguments: dict[str, Any]) -> None:
    model = written(seed=2**62 + 1, ratio=0.35, mask=False, **arguments)
    for node in model.graph.node:
        if stripped:
            del node.metadata_props[:]
    fused = sd.fuse(model, seed=5)
    (node,) = (node for node in fused.graph.node if node.op_type == spec.OP_TYPE)
    assert not {"RandomUniform", "Less", "Mul"} & {other.op_type for other in fused.graph.node}
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert (found["seed"], found["ratio"], found["axes"]) == (2**62 + 1, np.float32(0.35), [2, 3])
    x, feeds = numbers(SHAPE), {"training_mode": ON, "step": np.array([9])}
    (got,) = evaluate(fused, {"x": x, **feeds}, SpatialDropout)
    (wanted,) = evaluate(model, {"x": x, **feeds})
    assert_same_bits(got, wanted)
