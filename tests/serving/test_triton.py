"""A Triton repository: what is in it, that batching changes no answer, and that nothing is half-written."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from building import dropout_model
from exported import exported
from montecarlo import random_graphs
from zoo import FOLDER, path

import onnx_spatialdrop as sd
from onnx_spatialdrop import io
from onnx_spatialdrop.cli import main
from onnx_spatialdrop.montecarlo.feeding import first_steps
from onnx_spatialdrop.serving.triton import TritonPass

IMAGES = np.random.default_rng(3).random((6, 1, 8, 8), dtype=np.float32)
STEPS = first_steps(np.array([4, 0, 9, 9, 77, 5]), 31)[:, None]

#: The samples meet in a mean over the batch.
MEETING = """
<ir_version: 9, opset_import: ["": 20]>
net (float[N,4] x) => (float[N,4] y) {
  mean = ReduceMean <keepdims = 1> (x, axes)
  y = Sub (x, mean)
}
"""


def ran(folder: Path, version: int = 1, **feeds: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(folder / str(version) / "model.onnx", options).run(None, feeds)


def sizes(text: str) -> dict[str, str]:
    return dict(re.findall(r'name: "([^"]+)" data_type: \w+ dims: (\[[^]]*\])', text))


def test_the_folder_and_its_configuration(tmp_path: Path) -> None:
    folder = sd.triton(path("digits_torch"), tmp_path / "new" / "repository")
    assert folder == tmp_path / "new" / "repository" / "digits_torch"
    assert sorted(str(each.relative_to(folder)) for each in folder.rglob("*")) == ["1", "1/model.onnx", "config.pbtxt"]
    assert (folder / "config.pbtxt").read_text() == (
        'name: "digits_torch"\n'
        'backend: "onnxruntime"\n'
        "max_batch_size: 32\n"
        "input [\n"
        '  { name: "image" data_type: TYPE_FP32 dims: [ 1, 8, 8 ] },\n'
        '  { name: "step" data_type: TYPE_INT64 dims: [ 1 ] }\n'
        "]\n"
        "output [\n"
        '  { name: "mean" data_type: TYPE_FP32 dims: [ 10 ] },\n'
        '  { name: "variance" data_type: TYPE_FP32 dims: [ 10 ] },\n'
        '  { name: "entropy" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } },\n'
        '  { name: "mutual_information" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }\n'
        "]\n"
        "dynamic_batching { }\n"
    )
    assert {node.domain for node in onnx.load(folder / "1" / "model.onnx").graph.node} == {""}


@pytest.mark.parametrize("name", ["digits_torch", "digits_torch_train_export", "digits_if", "digits_function"])
@pytest.mark.parametrize("samples", [31, None])
def test_requests_that_are_laid_behind_each_other_get_the_same_answers(
    name: str, samples: int | None, tmp_path: Path
) -> None:
    folder = sd.triton(path(name), tmp_path, samples=samples)
    further = {"monte_carlo": np.array(True)} if name == "digits_if" else {}
    if further:  # not of the batch: each request runs alone
        assert "max_batch_size: 0\n" in (folder / "config.pbtxt").read_text()
    together = ran(folder, image=IMAGES, step=STEPS, **further)
    for row in range(len(IMAGES)):
        one = slice(row, row + 1)
        for alone, all_ in zip(ran(folder, image=IMAGES[one], step=STEPS[one], **further), together, strict=True):
            np.testing.assert_allclose(alone, all_[one], atol=2e-6)


def test_an_export_with_an_operator_of_its_framework_is_converted(tmp_path: Path) -> None:
    """Opset 15, with a random operator of TensorFlow that no converter and no runtime knows."""
    folder = sd.triton(exported("keras3_dropout_mc.onnx"), tmp_path, samples=None)
    model = onnx.load(folder / "1" / "model.onnx")
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x, name = np.random.default_rng(0).random((6, *shape), dtype=np.float32), model.graph.input[0].name
    (together,) = ran(folder, step=STEPS, **{name: x})
    (alone,) = ran(folder, step=STEPS[2:3], **{name: x[2:3]})
    np.testing.assert_allclose(alone, together[2:3], atol=1e-6)
    assert "dynamic_batching" in (folder / "config.pbtxt").read_text()


def test_an_answer_is_what_mcdropout_gives(tmp_path: Path) -> None:
    folder = sd.triton(path("digits_torch"), tmp_path)
    mean, _, entropy, _ = ran(folder, image=IMAGES, step=STEPS)
    wanted = sd.MCDropout(path("digits_torch")).predict(IMAGES[1:], STEPS[1:, 0] // (2**20 // 31 * 31))
    np.testing.assert_allclose(mean[1:], wanted.mean, atol=1e-6)
    np.testing.assert_allclose(entropy[1:], wanted.entropy, atol=1e-5)


def test_a_step_that_no_draw_has_fails_nobody(tmp_path: Path) -> None:
    """Elsewhere a negative step among several is an error, which would be that of all requests of the batch."""
    folder = sd.triton(path("digits_torch"), tmp_path)
    odd = STEPS.copy()
    odd[1], odd[2] = -1, 2**63 - 1
    given, wanted = ran(folder, image=IMAGES, step=odd), ran(folder, image=IMAGES, step=STEPS)
    for one, other in zip(given, wanted, strict=True):
        np.testing.assert_allclose(np.delete(one, [1, 2], 0), np.delete(other, [1, 2], 0), atol=2e-6)
    same = STEPS.copy()
    same[1] = same[2] = 2**62 - 1
    for one, other in zip(given, ran(folder, image=IMAGES, step=same), strict=True):
        np.testing.assert_array_equal(one, other)


def test_where_samples_meet_each_request_runs_alone(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(MEETING)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "axes"))
    folder = sd.triton(sd.insert(model, after="x", rate=0.5, axes=[]), tmp_path, name="meeting", samples=None)
    text = (folder / "config.pbtxt").read_text()
    assert "max_batch_size: 0\n" in text
    assert "dynamic_batching" not in text
    assert sizes(text) == {"x": "[ -1, 4 ]", "step": "[ -1, 1 ]", "y": "[ -1, 4 ]"}


def test_no_random_graph_is_batched_and_wrong() -> None:
    """The oracle is running: a request alone against the same among others."""
    counts = {"proven": 0, "refused": 0}
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    for seed in range(150):
        model, rewrite = random_graphs.random_model(seed), TritonPass(None)
        x, steps = random_graphs.feed(model, seed), np.array([[5], [9], [2]])
        try:
            session = ort.InferenceSession(io.rewrite(model, None, rewrite.call)[0].SerializeToString(), options)
        except sd.SpatialDropError:  # one mask for all samples
            continue
        counts["refused" if rewrite.meets else "proven"] += 1
        if rewrite.meets:
            continue
        (together,) = session.run(None, {"x": x, "step": steps})
        for row in range(len(x)):
            one = slice(row, row + 1)
            (alone,) = session.run(None, {"x": x[one], "step": steps[one]})
            np.testing.assert_allclose(alone, together[one], rtol=1e-4, atol=1e-5, err_msg=f"seed {seed}")
    assert counts["proven"] > 20
    assert counts["refused"] > 60


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    folder = sd.triton(path("digits_external"), tmp_path)
    assert len(list((folder / "1").glob("*.data"))) == 1
    whole = sd.triton(path("digits_torch"), tmp_path)
    for one, other in zip(*(ran(each, image=IMAGES, step=STEPS) for each in (folder, whole)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_version_is_replaced_with_force_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = sd.triton(path("digits_torch"), tmp_path)
    before = {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()}
    with pytest.raises(sd.ModelFileError, match="digits_torch/1: is there already; choose another version, or let"):
        sd.triton(path("digits_torch"), tmp_path, samples=None)
    assert {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()} == before
    config = folder / "config.pbtxt"
    config.write_text("# mine\n" + config.read_text())
    with caplog.at_level(logging.INFO, "onnx_spatialdrop"):
        sd.triton(path("digits_torch"), tmp_path, version=2)
    assert config.read_text().startswith("# mine\n")
    assert "config.pbtxt: stays, and is not what would be written; force replaces it" in caplog.text
    sd.triton(path("digits_torch"), tmp_path, version=2, samples=None, force=True)
    assert sizes(config.read_text()) == {"image": "[ 1, 8, 8 ]", "step": "[ 1 ]", "logits": "[ 10 ]"}
    assert len(ran(folder, 2, image=IMAGES, step=STEPS)) == 1


@pytest.mark.parametrize("version", [1, 2])
def test_what_fails_leaves_nothing(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if version == 2:
        sd.triton(path("digits_torch"), tmp_path)
    before = sorted(tmp_path.rglob("*"))

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnx_spatialdrop.serving.triton._configuration", fail)
    with pytest.raises(sd.ModelFileError, match="No space left on device"):
        sd.triton(path("digits_torch"), tmp_path, version=version)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_onnxruntime_does_not_load_is_said_in_a_line(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20, "mine": 1]> net (float[N,4] x) => (float[N,4] y) { y = mine.Own (x) }'
    )
    with pytest.raises(sd.KernelError, match="ONNX Runtime, which Triton runs, does not load the file: "):
        sd.triton(sd.insert(model, after="x", rate=0.5, axes=[]), tmp_path, name="net", samples=None)
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(sd.SpecError, match=r"name is '../x'; it must be made of letters, digits"):
        sd.triton(path("digits_torch"), tmp_path, name="../x")
    with pytest.raises(sd.SpecError, match="name is missing: a model that is no file has none of its own"):
        sd.triton(dropout_model(), tmp_path)
    with pytest.raises(sd.SpecError, match="the model has an input 'samples', as files of monte_carlo have"):
        sd.triton(sd.monte_carlo(onnx.load(path("digits_torch"))), tmp_path, name="x")
    with pytest.raises(sd.FormError, match=r"has one mask for all samples \(axis 0 is shared\)"):
        sd.triton(dropout_model(axes=(0,)), tmp_path, name="x", samples=None)
    assert list(tmp_path.iterdir()) == []


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["triton", str(path("digits_torch")), str(tmp_path), "--name", "net", "--one-draw"]) == 0
    assert capsys.readouterr().err == f"wrote {tmp_path / 'net' / '1'} and {tmp_path / 'net' / 'config.pbtxt'}\n"
    assert main(["triton", str(path("digits_torch")), str(tmp_path), "--name", "net", "--version", "3"]) == 0
    assert sorted(each.name for each in (tmp_path / "net").iterdir()) == ["1", "3", "config.pbtxt"]
    assert main(["triton", str(path("digits_torch")), str(tmp_path), "--name", "net", "--version", "3"]) == 1


@pytest.mark.parametrize("samples", [31, None])
def test_the_configuration_is_one_of_tritons_schema(samples: int | None, tmp_path: Path) -> None:
    schema = pytest.importorskip(
        "tritonclient.grpc.model_config_pb2",
        reason='tritonclient is not installed: pip install "onnx_spatialdrop[serving]"',
        exc_type=Exception,
    )
    from google.protobuf import text_format

    for name in ("digits_torch", "canvas", "digits_float16"):
        folder = sd.triton(FOLDER / f"{name}.onnx", tmp_path, samples=samples)
        read = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
        session = ort.InferenceSession(folder / "1" / "model.onnx")
        assert (read.name, read.backend, read.max_batch_size) == (name, "onnxruntime", 32)
        assert read.HasField("dynamic_batching")
        for entries, values in ((read.input, session.get_inputs()), (read.output, session.get_outputs())):
            assert [entry.name for entry in entries] == [value.name for value in values]
            for entry, value in zip(entries, values, strict=True):
                assert list(entry.reshape.shape if entry.HasField("reshape") else entry.dims) == value.shape[1:]
                assert 0 not in entry.dims
                assert len(entry.dims) >= 1
    odd = sd.triton(dropout_model(wrap=True), tmp_path, name="odd", samples=None)
    text_format.Parse((odd / "config.pbtxt").read_text(), schema.ModelConfig())
