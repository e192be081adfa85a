"""The committed digits models: they run, agree with their frameworks, and drop the maps that the definition says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnx_spatialdrop import io
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import reference, spec
from onnx_spatialdrop.passes.attach import AttachPass
from onnx_spatialdrop.passes.find import find
from onnx_spatialdrop.passes.remove import remove
from onnx_spatialdrop.passes.scopes import spatial_dropouts

FOLDER = Path(__file__).parents[2] / "models"

#: Model -> the record of its framework.
RECORDED = {
    "digits_torch": "digits_torch",
    "digits_keras": "digits_keras",
    "digits_keras_1d": "digits_keras_1d",
    "digits_if": "digits_torch",
    "digits_function": "digits_torch",
    "digits_float16": "digits_float16",
    "digits_external": "digits_torch",
}
EXPORTS = ("digits_torch_eval_export", "digits_torch_train_export", "digits_keras_eval_export")
INVALID = "digits_keras_train_export"
#: Logits are up to about 20; float32 sums in another order move them by a few ulps, float16 by a few of its own.
TOLERANCE = {"digits_float16": 0.1}


class Record(NamedTuple):
    images: np.ndarray
    labels: np.ndarray
    logits: np.ndarray


def record(name: str) -> Record:
    with np.load(FOLDER / f"{RECORDED[name]}.npz") as stored:
        return Record(stored["images"], stored["labels"], stored["logits"])


def session(model: ir.Model) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(FOLDER))
    content = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def attached(name: str) -> ir.Model:
    model = io.load(FOLDER / f"{name}.onnx")
    AttachPass().call(model)
    return model


def feeds(name: str, images: np.ndarray, **switches: Any) -> dict[str, Any]:
    branch = {"monte_carlo": np.array(True)} if name == "digits_if" else {}
    return {"image": images} | branch | {key: np.asarray(value) for key, value in switches.items()}


@pytest.mark.parametrize("name", [*RECORDED, *EXPORTS])
def test_every_file_is_valid_small_and_of_versions_that_onnxruntime_1_20_reads(name: str) -> None:
    path = FOLDER / f"{name}.onnx"
    onnx.checker.check_model(path, full_check=True)
    proto = onnx.load(path, load_external_data=False)
    assert proto.ir_version <= 10
    assert 18 <= {entry.domain: entry.version for entry in proto.opset_import}[""] <= 20
    assert path.stat().st_size < 300_000


def test_the_folder_is_small_and_names_nothing_of_the_machine_that_made_it() -> None:
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    for path in files:
        if path.suffix in {".onnx", ".json", ".md"}:
            assert re.search(rb"site-packages|/home/|/work/|/tmp/", path.read_bytes()) is None, path


@pytest.mark.parametrize("name", RECORDED)
def test_eval_logits_and_accuracy_are_the_frameworks(name: str) -> None:
    known = record(name)
    (logits,) = session(attached(name)).run(["logits"], feeds(name, known.images))
    assert logits.dtype == known.images.dtype
    np.testing.assert_allclose(
        logits.astype(np.float64), known.logits.astype(np.float64), rtol=0, atol=TOLERANCE.get(name, 2e-5)
    )
    correct = int((logits.argmax(1) == known.labels).sum())
    assert correct == int((known.logits.argmax(1) == known.labels).sum())
    assert correct > 0.97 * len(known.labels)


def test_float16_stays_close_to_float32() -> None:
    half, full = record("digits_float16"), record("digits_torch")
    assert np.abs(half.logits.astype(np.float32) - full.logits).max() < 0.1
    assert (half.labels == full.labels).all()


def test_both_branches_give_the_recorded_logits_and_only_one_of_them_samples() -> None:
    known = record("digits_if")
    run = session(attached("digits_if"))
    plain = feeds("digits_if", known.images, training_mode=True, step=[3]) | {"monte_carlo": np.array(False)}
    masked = run.run(["logits"], plain)[0]  # the first node stands before the branch
    sampled = run.run(["logits"], plain | {"monte_carlo": np.array(True)})[0]
    assert (masked != sampled).any(axis=1).mean() > 0.9
    np.testing.assert_allclose(
        run.run(["logits"], plain | {"training_mode": np.array(False)})[0], known.logits, rtol=0, atol=2e-5
    )


class Exposed(NamedTuple):
    attributes: spec.Attributes
    x: str
    y: str
    mask: str


def expose(model: ir.Model) -> list[Exposed]:
    """Make X, Y and the mask of every node outputs of the model, in place, and return their names."""
    exposed = []
    for site in spatial_dropouts(model):
        node, attributes = site.node, op.read(site.node)
        if isinstance(site.scope, ir.Function):
            conv = model.functions["digits", "Stage", ""][0]
            calls = [call for call in model.graph if call.op_type == "Stage"]
            site.scope.outputs.append(node.inputs[0])
            assert conv.op_type == "Conv"
            for call in calls:
                call.resize_outputs(3)
                call.outputs[2].name = f"{call.name}/x"
                call.outputs[2].type = ir.TensorType(ir.DataType.FLOAT)
                y, mask, x = call.outputs
                model.graph.outputs.extend([x, y, mask])
                exposed.append(Exposed(attributes, x.name, y.name, mask.name))
            continue
        names = Exposed(attributes, node.inputs[0].name, *(out.name for out in node.outputs))
        if node.graph is model.graph:
            model.graph.outputs.extend([node.inputs[0], *node.outputs])
        else:
            names = _out_of_branch(model, node)
        exposed.append(names)
    return exposed


def _out_of_branch(model: ir.Model, node: ir.Node) -> Exposed:
    """Make the values outputs of their branch; the other branch gives single zeros in their place."""
    branch = node.graph
    (chosen,) = [each for each in model.graph if each.op_type == "If"]
    other = next(a.as_graph() for a in chosen.attributes.values() if a.as_graph() is not branch)
    names = []
    for value in (node.inputs[0], *node.outputs):
        zero = ir.node("Constant", [], {"value": ir.tensor(np.zeros((1, 1, 1, 1), value.dtype.numpy()))})
        zero.outputs[0].name = f"{value.name}/none"
        zero.outputs[0].type, zero.outputs[0].shape = value.type, ir.Shape([1, 1, 1, 1])
        other.append(zero)
        other.outputs.append(zero.outputs[0])
        branch.outputs.append(value)
        chosen.resize_outputs(len(chosen.outputs) + 1)
        out = chosen.outputs[-1]
        out.name, out.type = f"{value.name}/out", value.type
        model.graph.outputs.append(out)
        names.append(out.name)
    return Exposed(op.read(node), *names)


@pytest.mark.parametrize("step", [[0], [2**40 + 3], range(24)], ids=["first", "beyond 2^40", "one a sample"])
@pytest.mark.parametrize("name", RECORDED)
def test_dropped_maps_are_the_references_bit_for_bit(name: str, step: Any) -> None:
    model = attached(name)
    exposed = expose(model)
    steps, images = np.array(step, np.int64), record(name).images[:24]
    wanted = [name for each in exposed for name in (each.x, each.y, each.mask)]
    values = dict(
        zip(wanted, session(model).run(wanted, feeds(name, images, training_mode=True, step=steps)), strict=True)
    )
    assert len(exposed) == (2 if name == "digits_keras_1d" else 3)
    for attributes, x, y, mask in exposed:
        expected, kept = reference.spatial_dropout(
            values[x], attributes.axes, attributes.ratio, attributes.seed, steps, scale=attributes.scale
        )
        assert values[mask].tobytes() == kept.tobytes()
        assert values[mask].shape == kept.shape
        assert not kept.all()
        assert values[y].dtype == values[x].dtype
        assert np.array_equal(values[y], expected)


def test_channels_are_shared_the_way_each_layout_has_them() -> None:
    axes = {name: [found.axes for found in find(FOLDER / f"{name}.onnx")] for name in RECORDED}
    assert axes.pop("digits_keras") == [(1, 2)] * 3
    assert axes.pop("digits_keras_1d") == [(1,)] * 2
    assert axes.pop("digits_function") == [(2, 3)] * 2  # one of the two stands in the function and runs twice
    assert set(map(tuple, axes.values())) == {((2, 3),) * 3}


def test_seeds_are_unique_and_the_nodes_lie_where_the_names_say() -> None:
    for name in RECORDED:
        seeds = [found.seed for found in find(FOLDER / f"{name}.onnx")]
        assert len(set(seeds)) == len(seeds)
    scopes = {name: [found.scope for found in find(FOLDER / f"{name}.onnx")] for name in RECORDED}
    assert scopes["digits_if"] == ["", "/subgraph", "/subgraph"]
    assert scopes["digits_function"] == ["", "function digits::Stage"]
    assert {found.dtype for found in find(FOLDER / "digits_float16.onnx")} == {"float16"}


def test_external_weights_stay_in_their_file() -> None:
    path = FOLDER / "digits_external.onnx"
    proto = onnx.load(path, load_external_data=False)
    outside = [tensor for tensor in proto.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"} == {
        "digits_external.onnx.data"
    }
    held = {value.name: value.const_value.numpy() for value in io.load(path).graph.initializers.values()}
    for value in io.load(FOLDER / "digits_torch.onnx").graph.initializers.values():
        assert held[value.name].tobytes() == value.const_value.numpy().tobytes()


def test_without_its_nodes_digits_torch_is_the_exporters_own_eval_file() -> None:
    bare = remove(onnx.load(FOLDER / "digits_torch.onnx"))
    assert bare.SerializeToString(deterministic=True) == (FOLDER / "digits_torch_eval_export.onnx").read_bytes()


@pytest.mark.parametrize(
    ("name", "framework"), [("digits_torch_eval_export", "digits_torch"), ("digits_keras_eval_export", "digits_keras")]
)
def test_eval_exports_have_no_dropout_left_and_agree_with_the_framework(name: str, framework: str) -> None:
    model = io.load(FOLDER / f"{name}.onnx")
    known = record(framework)
    assert not any("Random" in node.op_type or "Dropout" in node.op_type for node in model.graph)
    (output,) = model.graph.outputs
    (logits,) = session(model).run([output.name], {"image": known.images})
    np.testing.assert_allclose(logits, known.logits, rtol=0, atol=2e-5)


def test_the_train_export_of_torch_drops_maps_in_every_run_and_cannot_be_told_not_to() -> None:
    model = io.load(FOLDER / "digits_torch_train_export.onnx")
    assert sum(node.op_type == "RandomUniformLike" for node in model.graph) == 3
    assert [value.name for value in model.graph.inputs] == ["image"]
    run, known = session(model), record("digits_torch")
    first, second = (run.run(None, {"image": known.images})[0] for _ in range(2))
    assert (first != second).any(axis=1).mean() > 0.9


def test_the_train_export_of_keras_is_not_a_valid_model() -> None:
    path = FOLDER / f"{INVALID}.onnx"
    frozen = [node for node in onnx.load(path).graph.node if node.op_type == "StatelessRandomUniformV2"]
    assert len(frozen) == 3
    assert {node.domain for node in frozen} == {""}
    with pytest.raises(onnx.checker.ValidationError, match="StatelessRandomUniformV2"):
        onnx.checker.check_model(path)
    with pytest.raises(Exception, match="StatelessRandomUniformV2"):
        ort.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", RECORDED)
def test_the_mean_of_20_draws_is_as_accurate_and_its_entropy_tells_mistakes(name: str) -> None:
    known, run = record(name), session(attached(name))
    mean = np.zeros((len(known.labels), 10))
    for step in range(20):
        (logits,) = run.run(["logits"], feeds(name, known.images, training_mode=True, step=[step]))
        powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        mean += powers / powers.sum(1, keepdims=True) / 20
    entropy = -(mean * np.log(mean)).sum(1)
    right = mean.argmax(1) == known.labels
    assert right.mean() > 0.97
    assert entropy[~right].mean() > 2 * entropy[right].mean()
