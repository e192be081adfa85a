"""What the native kernel refuses, in words that name the node, and that nothing it is given ends the process."""

from typing import Any

import numpy as np
import onnx
import pytest
from native_models import assert_right, drop_node, make_model, make_session, run

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.operator import reference

X = np.ones((4, 3), np.float32)


def refusal(step: Any = 3, x: np.ndarray = X, training: bool = True, dtype: str = "float32", **attributes: Any) -> str:
    """Return what ONNX Runtime said when it refused to load or to run the node; fail if it did neither."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- onnxruntime raises a dozen unrelated classes
        run(make_session(make_model([drop_node("x", "y", "", **attributes)], dtype)), x, training, step)
    assert "onnxruntime" in type(caught.value).__module__
    return str(caught.value)


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"ratio": 1.5}, "node 'drop1': ratio is 1.5; it must lie in [0, 1]"),
        ({"ratio": -0.25}, "node 'drop1': ratio is -0.25; it must lie in [0, 1]"),
        ({"ratio": float("nan")}, "node 'drop1': ratio is nan; it must lie in [0, 1]"),
        ({"ratio": float("inf")}, "node 'drop1': ratio is inf; it must lie in [0, 1]"),
        ({"ratio": None}, "node 'drop1': attribute ratio is missing or not a FLOAT"),
        ({"ratio": 1}, "node 'drop1': attribute ratio is missing or not a FLOAT"),
        ({"ratio": [0.5]}, "node 'drop1': attribute ratio is missing or not a FLOAT"),
        ({"seed": None}, "node 'drop1': attribute seed is missing or not an INT; give a number that no other node has"),
        ({"seed": 0.5}, "node 'drop1': attribute seed is missing or not an INT"),
        ({"axes": None}, "node 'drop1': attribute axes is missing or not INTS"),
        ({"axes": 1}, "node 'drop1': attribute axes is missing or not INTS"),
        ({"axes": [0.5]}, "node 'drop1': attribute axes is missing or not INTS"),
        ({"axes": "1"}, "node 'drop1': attribute axes is missing or not INTS"),
        ({"axes": [1, 0, 1]}, "node 'drop1': axes [1, 0, 1] name an axis twice; name each once"),
        ({"axes": [16]}, "node 'drop1': axes [16] exceed the largest rank, 16"),
        ({"axes": list(range(17))}, "node 'drop1': axes has 17 elements; the largest rank is 16"),
        ({"axes": [-(2**63), 2**63 - 1]}, "exceed the largest rank, 16"),
        ({"axes": [2]}, "node 'drop1': axis 2 is out of range for rank 2; allowed: [-2, 1]"),
        ({"axes": [1, -1]}, "node 'drop1': axis -1 of a rank-2 tensor is named twice in axes; name each once"),
        ({"strata": 4}, "node 'drop1': strata is 4; it must be 1 or a prime number from 3 to 127"),
        ({"strata": -1}, "node 'drop1': strata is -1; it must be 1 or a prime number from 3 to 127"),
        ({"strata": 31.0}, "node 'drop1': attribute strata is not an INT; give 1 or a prime number from 3 to 127"),
        ({"strata": [31]}, "node 'drop1': attribute strata is not an INT"),
        (
            {"strata": 31, "rng": "keras_jax"},
            "node 'drop1': strata is 31, but rng 'keras_jax' draws as its framework does",
        ),
        ({"rng": "mt19937"}, "node 'drop1': rng is 'mt19937'; this version knows 'philox', 'keras_tf'"),
        ({"rng": ""}, "node 'drop1': rng is ''; this version knows 'philox', 'keras_tf'"),
        ({"rng": "p" * 4000}, "this version knows 'philox', 'keras_tf'"),
        ({"rng": 1}, "node 'drop1': attribute rng is not a STRING; this version knows 'philox', 'keras_tf'"),
        ({"scale": 2}, "node 'drop1': attribute scale is not a FLOAT"),
        ({"scale": "2"}, "node 'drop1': attribute scale is not a FLOAT"),
        ({"name": ""}, ""),
    ],
)
def test_attributes(attributes: dict[str, Any], text: str) -> None:
    if attributes == {"name": ""}:  # a node need not have a name
        assert "a SpatialDropout node without a name: ratio is 2;" in refusal(name="", ratio=2.0)
    else:
        assert text in refusal(**attributes)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("step", "attributes", "text"),
    [
        ([0, 1], {}, "node 'drop1': step has 2 elements; allowed: 1, or 4 (the size of X's dim 0)"),
        ([], {}, "node 'drop1': step has 0 elements; allowed: 1, or 4 (the size of X's dim 0)"),
        ([0, 1, 2, 3], {"axes": [0]}, "node 'drop1': step has 4 elements but axis 0 is shared; give it one element"),
        ([0, 1, 2, -7], {}, "node 'drop1': step[3] is -7; in a step of several elements none may be negative"),
    ],
)
def test_steps(step: list[int], attributes: dict[str, Any], text: str, training: bool) -> None:
    # Also in inference, so that a wrong model does not wait for its first training run to say so.
    assert text in refusal(step, training=training, **attributes)


def test_a_step_of_any_shape_with_the_right_count_is_fine() -> None:
    session = make_session(make_model([drop_node("x", "y", "mask")], outputs=("y", "mask")))
    for shape in ((4,), (2, 2), (1, 4, 1)):
        y, mask = session.run(None, {"x": X, "training_mode": np.array([[True]]), "step": np.arange(4).reshape(shape)})
        assert_right(X, y, mask, axes=[1], ratio=0.5, seed=7, step=np.arange(4))


def test_training_mode_of_two_elements() -> None:
    session = make_session(make_model([drop_node("x", "y")]))
    with pytest.raises(Exception, match="node 'drop1': training_mode has 2 elements; it must have one"):
        session.run(None, {"x": X, "training_mode": np.array([True, False]), "step": np.array([0])})


def test_ranks() -> None:
    assert "node 'drop1': X has rank 0; ranks 1 to 16 are allowed" in refusal(x=np.ones((), np.float32), axes=[0])
    assert "node 'drop1': X has rank 17; ranks 1 to 16 are allowed" in refusal(x=np.ones((1,) * 17, np.float32))


def test_a_mask_too_large_for_memory() -> None:
    # X is empty, and so needs no memory; its mask has 2**60 entries.
    x = np.zeros((0, 2**30, 2**30), np.float32)
    model = make_model([drop_node("x", "y", "mask", axes=[0])], outputs=("y", "mask"))
    with pytest.raises(Exception, match=r"drop1.*(?i:alloc|memory)"):
        run(make_session(model), x)
    assert run(make_session(make_model([drop_node("x", "y", None, axes=[0])])), x)[0].shape == x.shape


def wrong_type(input_name: str, type_: int) -> onnx.ModelProto:
    model = make_model([drop_node("x", "y")])
    for value in model.graph.input:
        if value.name == input_name:
            value.type.tensor_type.elem_type = type_
    model.graph.output[0].type.tensor_type.elem_type = model.graph.input[0].type.tensor_type.elem_type
    return model


@pytest.mark.parametrize(
    ("name", "type_"),
    [("x", onnx.TensorProto.INT32), ("x", onnx.TensorProto.INT8), ("x", onnx.TensorProto.STRING),
     ("training_mode", onnx.TensorProto.FLOAT), ("step", onnx.TensorProto.INT32)],
)  # fmt: skip
def test_a_wrong_type_is_refused_at_load(name: str, type_: int) -> None:
    with pytest.raises(Exception, match="(?i)type"):
        make_session(wrong_type(name, type_))


@pytest.mark.parametrize("inputs", [["x"], ["x", "training_mode"], ["x", "", "step"], ["x", "training_mode", ""]])
def test_a_missing_input_is_refused_at_load(inputs: list[str]) -> None:
    node = drop_node("x", "y")
    del node.input[:]
    node.input.extend(inputs)
    with pytest.raises(Exception, match="drop1|input"):
        make_session(make_model([node]))


def test_defaults_of_scale_and_rng() -> None:
    y = run(make_session(make_model([drop_node("x", "y", "", scale=None, rng=None)])), X)[0]
    assert_right(X, y, None, axes=[1], ratio=0.5, seed=7, step=[3])


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), float("-inf"), -2.0, 1e-45, 3e38, -0.0])
def test_any_scale_is_a_scale(scale: float) -> None:
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        x = np.linspace(-3, 3, 50).astype(reference.spec.DTYPES[dtype])
        y = run(make_session(make_model([drop_node("x", "y", "", axes=[], scale=scale)], dtype)), x)[0]
        assert_right(x, y, None, axes=[], ratio=0.5, seed=7, scale=scale, step=[3])


def random_value(rng: np.random.Generator) -> Any:
    integers = [0, 1, -1, 5, 15, 16, -16, -17, 2**31, 2**63 - 1, -(2**63)]
    floats = [0.0, 0.25, 1.0, -0.5, 7.0, float("nan"), float("inf"), 1e-45]
    return [
        lambda: int(rng.choice(np.array(integers, np.int64))),
        lambda: float(rng.choice(floats)),
        lambda: str(rng.choice(["philox", "keras_tf", "keras_tf_xla", "keras_jax"])),
        lambda: "".join(map(chr, rng.integers(32, 400, rng.integers(0, 200)))),
        lambda: [int(rng.integers(-4, 5)) for _ in range(rng.integers(0, 5))],
        lambda: [float(rng.random())],
        lambda: None,
    ][rng.integers(7)]()


def test_any_attributes_are_refused_by_name_or_give_the_right_result() -> None:
    rng = np.random.default_rng(0)
    right = refused = 0
    for case in range(1000):
        attributes: dict[str, Any] = {"axes": [1], "ratio": 0.5, "seed": 7, "scale": 0.0, "rng": "philox", "strata": 1}
        for name in rng.choice(list(attributes), 1 + case % 2, replace=False):
            attributes[name] = random_value(rng)
        if attributes["axes"] == []:
            attributes["axes"] = [1]
        x = np.ones(tuple(rng.integers(0, 4, rng.integers(1, 4))), np.float32)
        step = rng.integers(0, 9, int(rng.choice([1, 1, x.shape[0], 2])))
        model = make_model([drop_node("x", "y", "mask", **attributes)], outputs=("y", "mask"))
        try:
            y, mask = run(make_session(model), x, True, step)
        except Exception as error:  # noqa: BLE001 -- onnxruntime raises a dozen unrelated classes
            assert "drop1" in str(error), case  # noqa: PT017
            refused += 1
            continue
        arguments = {name: value for name, value in attributes.items() if value is not None}
        assert_right(x, y, mask, **arguments, step=step)
        right += 1
    assert right > 50
    assert refused > 50


def test_what_the_kernel_refuses_the_reference_refuses() -> None:
    for attributes in (
        {"ratio": 1.5},
        {"axes": [1, 1]},
        {"axes": [2]},
        {"rng": "mt19937"},
        {"axes": [0]},
        {"strata": 9},
    ):
        with pytest.raises(SpecError):
            reference.spatial_dropout(X, **({"axes": [1], "ratio": 0.5, "seed": 7, "step": range(4)} | attributes))
        assert "drop1" in refusal(range(4), **attributes)
