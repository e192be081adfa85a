"""Models at another opset, with nothing lost on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import zoo
from building import dropout_ir, dropout_model
from installed import CONVERTS
from onnx import version_converter

import onnx_spatialdrop as sd
from onnx_spatialdrop import io
from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.graph.scopes import spatial_dropouts
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.attach import AttachPass
from onnx_spatialdrop.passes.opset import InlineFunctionsPass, OpsetPass


@CONVERTS
@pytest.mark.parametrize("name", ["digits_torch", "digits_keras", "digits_function", "digits_external"])
@pytest.mark.parametrize("version", [17, 18, 21, 22, 24])
def test_the_model_answers_as_before_and_keeps_its_nodes(name: str, version: int) -> None:
    model = io.load(zoo.path(name))
    OpsetPass(version).call(model)
    assert model.opset_imports[""] == version
    record = zoo.record(name)
    inference = sd.remove(model)
    (logits,) = zoo.session(inference).run(None, {"image": record.images})
    np.testing.assert_allclose(logits, record.logits, atol=1e-4)
    before = [op.read(site.node) for site in spatial_dropouts(io.load(zoo.path(name)))]
    after = [op.read(site.node) for site in spatial_dropouts(model)]
    # digits_function calls a function of one node twice, and so has it twice once that is written out
    assert {each.seed for each in before} == {each.seed for each in after}
    assert len(after) == 3


def test_onnxs_converter_by_itself_drops_functions() -> None:
    """The trap of case 1."""
    assert not version_converter.convert_version(onnx.load(zoo.path("digits_function")), 21).functions


@CONVERTS
def test_large_weights_are_never_read_and_small_ones_stay_on_disk(tmp_path: Path) -> None:
    whole = onnx.load(zoo.path("digits_torch"))
    expected = {each.name: onnx.numpy_helper.to_array(each) for each in whole.graph.initializer}
    onnx.save(whole, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data")
    model = io.load(tmp_path / "m.onnx")
    OpsetPass(18).call(model)
    kept = {name: value.const_value for name, value in model.graph.initializers.items() if name in expected}
    assert {"0.weight", "0.bias", "4.weight"} <= kept.keys()
    for name, tensor in kept.items():
        assert isinstance(tensor, ir.ExternalTensor), name
        np.testing.assert_array_equal(tensor.numpy(), expected[name])


@CONVERTS
def test_what_the_converter_forgets_is_put_back() -> None:
    model = dropout_ir(opset=20, wrap=True)
    model.metadata_props["author"] = "somebody"
    for node in model.graph:
        node.metadata_props["layer"] = f"of {node.name}"
    OpsetPass(18).call(model)
    assert model.metadata_props["author"] == "somebody"
    assert [node.metadata_props.get("layer") for node in model.graph] == ["of before", "of drop", "of after"]
    (site,) = spatial_dropouts(model)
    assert [value.dtype for value in (site.node.inputs[0], *site.node.outputs)] == [1, 1, 9]
    assert [value.name for value in model.graph.inputs] == ["x", "training_mode", "step"]
    assert [value.name for value in model.graph.outputs] == ["y", "mask"]


def test_the_body_is_taken_out_and_not_written_out() -> None:
    model = dropout_ir(opset=20)
    AttachPass().call(model)
    assert InlineFunctionsPass().call(model).modified
    assert not model.functions
    assert [node.op_type for node in model.graph] == ["SpatialDropout"]


def test_a_model_at_that_opset_or_without_functions_is_left_alone() -> None:
    model = dropout_ir(opset=18)
    before = ir.to_proto(model)
    assert not OpsetPass(18).call(model).modified
    assert not InlineFunctionsPass().call(model).modified
    assert ir.to_proto(model) == before


@CONVERTS
@pytest.mark.parametrize("name", ["digits_torch", "digits_keras"])
def test_onnxs_converter_by_itself_leaves_an_attribute_that_is_not_known_yet(name: str) -> None:
    """The trap of case 5: ReduceMean has noop_with_empty_axes from opset 18 on."""
    converted = version_converter.convert_version(onnx.load(zoo.path(name)), 17)
    (mean,) = [node for node in converted.graph.node if node.op_type == "ReduceMean"]
    assert "noop_with_empty_axes" in [each.name for each in mean.attribute]
    model = io.load(zoo.path(name))
    OpsetPass(17).call(model)
    (mean,) = [node for node in model.graph if node.op_type == "ReduceMean"]
    assert "noop_with_empty_axes" not in mean.attributes


@CONVERTS
def test_an_attribute_that_means_something_is_refused() -> None:
    proto = dropout_model(opset=18, mask=False)
    proto.graph.node.append(onnx.helper.make_node("ReduceMax", ["y"], ["z"], name="max", noop_with_empty_axes=1))
    with pytest.raises(
        FormError,
        match="node 'max': ReduceMax has no attribute noop_with_empty_axes at opset 17, and its value means something; "
        "export the model at opset 17",
    ):
        OpsetPass(17).call(ir.from_proto(proto))


@CONVERTS
def test_what_onnx_cannot_convert_is_refused() -> None:
    model = io.load(zoo.path("digits_torch"))
    with pytest.raises(
        FormError,
        match=r"the model imports opset 20, and onnx cannot convert it to 12 \(No Adapter From Version .* for Relu\); "
        "export it at opset 12",
    ):
        OpsetPass(12).call(model)
    assert model.opset_imports[""] == 20
