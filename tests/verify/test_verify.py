"""A framework and a model that agree are equal; each planted fault is found where it was planted."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from verify.numpy_framework import DROPS, NumpyNetwork, X, model

import onnx_spatialdrop as sd
from onnx_spatialdrop.errors import SpecError, VerifyError
from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.verify import Verification, verify
from onnx_spatialdrop.verify.expose import ExposePass

KERNELS = [
    pytest.param("native", marks=pytest.mark.skipif(bool(native.missing_reason()), reason="no native library here")),
    "python",
    "body",
]


def parts(result: Verification, step: int, layer: str, what: str) -> bool:
    """Return whether the first divergence is the given one."""
    first = result.first
    return not result and first is not None and (first.step, first.layer, first.what) == (step, layer, what)


@pytest.mark.parametrize("kernel", KERNELS)
def test_equal_in_every_kernel(kernel: Any) -> None:
    result = verify(NumpyNetwork(), model(), X, kernel=kernel)
    assert result, str(result)
    assert [(each.layer, each.entries, each.equal) for each in result.layers] == [
        ("block.drop", 120, 120),
        ("head.drop", 120, 120),
    ]
    assert 0 < result.layers[0].dropped < result.layers[1].dropped < 120
    assert kernel in result.runtime


def test_equal_in_the_reference_evaluator() -> None:
    assert verify(NumpyNetwork(), model(), X, runtime="reference")


def test_equal_in_openvino() -> None:
    pytest.importorskip("openvino", reason="openvino is not installed (pip install openvino)")
    assert verify(NumpyNetwork(), model(), X, runtime="openvino")


def test_the_callers_model_is_not_changed() -> None:
    proto = model()
    before = proto.SerializeToString(deterministic=True)
    verify(NumpyNetwork(), proto, X, steps=1)
    assert proto.SerializeToString(deterministic=True) == before


def test_a_wrong_seed_is_found_at_its_layer() -> None:
    result = verify(NumpyNetwork().changed("head.drop", seed=7), model(), X)
    assert parts(result, 0, "head.drop", "mask")
    assert result.layers[0].first is None
    assert "mask entries differ, the first at [" in str(result.first)
    assert result.notes == ()


def test_a_wrong_rate_is_found_though_the_scale_is_right() -> None:
    result = verify(NumpyNetwork().changed("block.drop", rate=0.35), model(), X)
    assert result.first is not None
    assert (result.first.layer, result.first.what) == ("block.drop", "mask")


def test_a_wrong_scale_is_found_at_its_layer_and_its_factor_is_told() -> None:
    result = verify(NumpyNetwork().changed("head.drop", scale=2.001), model(), X)
    assert parts(result, 0, "head.drop", "value")
    assert result.first is not None
    assert result.first.text == "kept values are multiplied by 2, the framework's by 2.001"
    assert {each.what for each in result.divergences} == {"value", "output"}
    assert all(each.equal == each.entries for each in result.layers)


def test_a_scale_that_is_one_ulp_off_is_equal() -> None:
    scale = float(np.nextafter(np.float32(DROPS["head.drop"].scale), np.float32(3)))
    assert verify(NumpyNetwork().changed("head.drop", scale=scale), model(), X)


def test_wrong_axes_are_told_as_shapes() -> None:
    result = verify(NumpyNetwork().changed("block.drop", axes=(1,)), model(), X)
    assert parts(result, 0, "block.drop", "shape")
    assert result.first is not None
    assert result.first.text == "the framework's mask has shape (3, 1, 4, 5), the model's (3, 8, 1, 1)"
    assert result.layers[0].equal == 0


def test_swapped_layers_are_told_by_name() -> None:
    network = NumpyNetwork()
    network = network.changed("block.drop", seed=6, rate=0.5).changed("head.drop", seed=5, rate=0.3)
    result = verify(network, model(), X)
    assert parts(result, 0, "block.drop", "mask")
    assert result.notes == ("step 0, the framework's mask of 'block.drop' is the model's of 'head.drop'",)


@pytest.mark.parametrize(("offset", "step"), [(1, 0), (-1, 1)])
def test_steps_that_are_off_by_one_are_told(offset: int, step: int) -> None:
    result = verify(NumpyNetwork(offset=offset), model(), X, first_step=1)
    assert parts(result, 1, "block.drop", "mask")
    other = 2 if offset == 1 else 1
    told = f"step {1 + step}, the framework's mask of 'block.drop' is the model's of step {other}"
    assert result.notes == (told,)


def test_a_fault_in_a_later_step_is_found_there() -> None:
    class Forgetful(NumpyNetwork):
        def run(self, inputs: Any, step: int) -> Any:
            return super().run(inputs, min(step, 12))

    result = verify(Forgetful(), model(), X, first_step=10)
    assert parts(result, 13, "block.drop", "mask")
    assert [d.step for d in result.divergences if d.layer == "block.drop"] == [13, 14]


def test_another_output_is_found_though_all_layers_agree() -> None:
    proto = model()
    (two,) = (node for node in proto.graph.node if node.output[0] == "two")
    two.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(np.float32(-2.0001)))
    result = verify(NumpyNetwork(), proto, X)
    assert parts(result, 0, "y", "output")
    assert all(each.first is None for each in result.layers)
    assert str(result.first) == "step 0, output 'y': differs by 5e-05 of its largest value; allowed: 1e-05"
    assert verify(NumpyNetwork(), proto, X, tolerance=1e-4)


def test_a_functions_calls_are_layers_each() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18, "own": 1]>
        g (float[N, 8, H, W] x, bool training_mode, int64[1] step) => (float[N, 8, H, W] y)
        <bool training_mode = {0}, int64[1] step = {-1}> {
          h = own.Block (x, training_mode, step)
          y = own.Block (h, training_mode, step)
        }
        <domain: "own", opset_import: ["": 18, "onnx_spatialdrop": 1]> Block (a, t, s) => (b) {
          b, m = onnx_spatialdrop.SpatialDropout <axes = [2, 3], ratio = 0.5, seed = 4, scale = 2.0> (a, t, s)
        }"""
    )
    ExposePass().call(model := ir.from_proto(proto))
    names = [node.name for node in model.graph if node.op_type == "SpatialDropout"]
    assert len(names) == 2

    class Twice(NumpyNetwork):
        def run(self, inputs: Any, step: int) -> Any:
            done = super().run(inputs, step)
            keys = [layer.name for layer in self.begun[-1]]
            y = inputs["x"]
            for mask in done.masks.values():
                y = np.where(mask, y * np.float32(2), np.float32(0))
            return type(done)((y,), dict(zip(keys, done.masks.values(), strict=True)))

    drop = type(DROPS["block.drop"])(rate=0.5, seed=4, scale=2.0)
    assert verify(Twice({"block.drop": drop, "head.drop": drop}), proto, X)


def test_text_and_data_say_the_same() -> None:
    result = verify(NumpyNetwork().changed("head.drop", seed=7), model(), X, steps=2, kernel="python")
    lines = str(result).splitlines()
    assert lines[0].startswith("different: NumPy and onnxruntime ")
    assert lines[1].split() == ["layer", "equal", "entries", "dropped", "found"]
    assert lines[2].split()[:5] == ["block.drop", "48", "of", "48", str(result.layers[0].dropped)]
    assert lines[2].endswith("equal")
    told = json.loads(json.dumps(result.as_dict()))
    assert told["equal"] is False
    assert told["divergences"][0]["layer"] == "head.drop"
    assert str(verify(NumpyNetwork(), model(), X, steps=1)).startswith("equal: NumPy and onnxruntime ")


def test_what_cannot_be_compared_is_refused() -> None:
    network = NumpyNetwork()
    with pytest.raises(VerifyError, match=r"holds no SpatialDropout node and no mask input.*fuse\(\) it first"):
        verify(network, sd.remove(model()), X)
    with pytest.raises(SpecError, match=r"steps is 0; it must be in \[1, 2147483647\]"):
        verify(network, model(), X, steps=0)
    with pytest.raises(VerifyError, match=r"got 2 inputs; the model takes 1: x"):
        verify(network, model(), [X, X])
    with pytest.raises(VerifyError, match="inputs are image; the model takes x"):
        verify(network, model(), {"image": X})
    with pytest.raises(VerifyError, match="the framework has no 'head.drop'; the model has no 'tail.drop'"):
        verify(NumpyNetwork({"block.drop": DROPS["block.drop"], "tail.drop": DROPS["head.drop"]}), model(), X)
    with pytest.raises(VerifyError, match=r"cannot run a builtins\.int object"):
        verify(3, model(), X)
    with pytest.raises(VerifyError, match="inputs are missing; only a recording has its own"):
        verify(network, model())
    with pytest.raises(VerifyError, match="runtime is 'tract'; allowed: onnxruntime, reference, openvino"):
        verify(network, model(), X, runtime="tract")
    with pytest.raises(VerifyError, match=r"onnxruntime .* could not run step \[0\]: "):
        verify(network, model(), X[:, :7])


def test_a_layer_in_a_branch_is_refused_by_name() -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 18, "onnx_spatialdrop": 1]>
        g (bool c, float[N, C] x, bool training_mode, int64[1] step) => (float[N, C] y) {
          y = If (c) <
            then_branch = t () => (float[N, C] a) {
              a, m = onnx_spatialdrop.SpatialDropout <axes = [1], ratio = 0.5, seed = 4> (x, training_mode, step) },
            else_branch = e () => (float[N, C] b) { b = Identity (x) }
          > }"""
    )
    with pytest.raises(VerifyError, match="layer 'a': stands inside an If"):
        verify(NumpyNetwork(), proto, {"c": np.array(True), "x": X[:, :, 0, 0]})


def test_a_layer_that_never_drops_is_refused_by_name() -> None:
    proto = model()
    proto.graph.input.pop(1)
    with pytest.raises(VerifyError, match="layer 'block.drop': its training_mode is constantly false"):
        verify(NumpyNetwork(), proto, X)
