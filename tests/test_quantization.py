"""int8 models: their draws spread as the float model's do, and check sees those that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from building import dropout_model
from onnxruntime.quantization import CalibrationDataReader, QuantType
from onnxruntime.quantization import quantize_dynamic as dynamic
from onnxruntime.quantization import quantize_static as by_onnxruntime

import onnx_spatialdrop as sd
from onnx_spatialdrop import quantization
from onnx_spatialdrop.errors import FormError, SpecError
from onnx_spatialdrop.montecarlo import feeding
from onnx_spatialdrop.versions import older

MODELS = Path(__file__).parents[1] / "models"
RECORDED = np.load(MODELS / "digits_torch.npz")
IMAGES, LABELS = RECORDED["images"], RECORDED["labels"]
#: The first images calibrate, the others judge.
CALIBRATION, JUDGED = 64, slice(64, None)


def feeds() -> list[dict[str, npt.NDArray[Any]]]:
    return [{"image": IMAGES[first : first + 8]} for first in range(0, CALIBRATION, 8)]


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """What people write who call ONNX Runtime themselves."""

    def __init__(self) -> None:
        self.feeds = iter(feeds())

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)


def draws(model: Any, kernel: sd.Kernel = "auto", count: int = 12) -> npt.NDArray[np.float32]:
    session = sd.session(model, kernel)
    on = {"image": IMAGES[JUDGED], "training_mode": np.array(True)}
    return np.stack([session.run(["logits"], on | {"step": np.array([step])})[0] for step in range(count)])


def assert_draws_alike(model: Any) -> None:
    expected, got = draws(MODELS / "digits_torch.onnx"), draws(model)
    assert abs(got.std(0).mean() / expected.std(0).mean() - 1) < 0.05
    # Draw by draw: it is the same masks that are drawn, not only as many.
    assert np.abs(got - expected).mean() < 0.1 * expected.std(0).mean()
    right = [float((each.mean(0).argmax(1) == LABELS[JUDGED]).mean()) for each in (expected, got)]
    assert abs(right[0] - right[1]) <= 0.01


def source(form: str, opset: int) -> onnx.ModelProto:
    model = onnx.load(MODELS / "digits_torch.onnx")
    if opset != 20:
        if older(onnx.__version__, "1.21"):
            pytest.skip(f"onnx {onnx.__version__} cannot convert opsets")
        model = onnx.version_converter.convert_version(model, opset)
        for node in model.graph.node:
            for attribute in [each for each in node.attribute if each.name == "noop_with_empty_axes" and opset < 18]:
                node.attribute.remove(attribute)  # which the converter leaves
    if form == "nodes":
        return model
    return sd.attach(model) if form == "attached" else sd.expand(model, form=form)


@pytest.mark.parametrize(
    ("form", "opset", "options"),
    [
        ("nodes", 17, {}),
        ("nodes", 21, {"activation_type": QuantType.QUInt8}),
        ("attached", 20, {"per_channel": True}),
        ("philox", 20, {"quantize_outputs": True}),
        ("uniform", 20, {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8}),
    ],
)
def test_draws_spread_as_the_float_models(form: str, opset: int, options: dict[str, Any]) -> None:
    model = source(form, opset)
    before = model.SerializeToString()
    made = quantization.quantize_static(model, reader=feeds(), **options)
    assert model.SerializeToString() == before
    assert isinstance(made, onnx.ModelProto)
    assert sum(node.op_type == "QuantizeLinear" for node in made.graph.node) >= 5
    if form != "uniform":  # whose seeds are the runtime's own
        assert_draws_alike(made)
    assert not sd.check(made)


# ONNX Runtime's quantiser leaves nodes of expanded files unsorted.
@pytest.mark.filterwarnings("ignore::onnx_spatialdrop.errors.ModelFileWarning")
def test_ordinary_calibration_cuts_draws_off_and_check_says_so(tmp_path: Path) -> None:
    sd.attach(MODELS / "digits_torch.onnx", tmp_path / "attached.onnx")
    by_onnxruntime(tmp_path / "attached.onnx", tmp_path / "off.onnx", Reader())
    expected = draws(MODELS / "digits_torch.onnx")
    assert draws(tmp_path / "off.onnx").std(0).mean() < 0.95 * expected.std(0).mean()
    assert [finding.rule for finding in sd.check(tmp_path / "off.onnx")] == ["calibrated-off"]
    sd.expand(MODELS / "digits_torch.onnx", tmp_path / "expanded.onnx")
    by_onnxruntime(tmp_path / "expanded.onnx", tmp_path / "off.onnx", Reader())
    assert {finding.rule for finding in sd.check(tmp_path / "off.onnx")} >= {"calibrated-off", "quantized-mask"}


def test_one_draw_that_drops_the_largest_value_of_one_node_is_no_finding() -> None:
    made = quantization.quantize_static(source("nodes", 20), reader=[{"image": IMAGES[5:6]}], draws=1)
    assert not sd.check(made)


def test_a_reader_is_fed_with_dropout_on_and_another_step_each_run() -> None:
    reader = quantization.DrawingReader(Reader(), MODELS / "digits_torch.onnx", draws=3)
    runs = list(iter(reader.get_next, None))
    assert [int(run["step"][0]) for run in runs] == list(range(3 * len(feeds())))
    assert all(bool(run["training_mode"]) for run in runs)
    np.testing.assert_array_equal(runs[4]["image"], IMAGES[8:16])


def test_dynamic_ranges_follow_the_draws() -> None:
    # ONNX Runtime 1.20 has no ConvInteger of int8 weights.
    made = quantization.quantize_dynamic(source("nodes", 20), weight_type=QuantType.QUInt8)
    assert any(node.op_type == "DynamicQuantizeLinear" for node in made.graph.node)  # type: ignore[union-attr]
    assert_draws_alike(made)
    assert "draws run at once: proven" not in str(sd.split(made))


def test_a_quantised_file_is_expanded_and_summed_up_like_any_other(tmp_path: Path) -> None:
    file = quantization.quantize_static(MODELS / "digits_torch.onnx", tmp_path / "int8.onnx", reader=Reader())
    assert file == tmp_path / "int8.onnx"
    np.testing.assert_array_equal(draws(file), draws(sd.expand(file)))
    one, result = sd.monte_carlo(file, tmp_path / "mc.onnx", samples=9), sd.MCDropout(file, samples=9)
    given = {"image": IMAGES[:4], "samples": np.array([9]), "step": feeding.first_steps(np.arange(4), 31)}
    means = sd.session(one).run(["mean"], given)[0]
    np.testing.assert_allclose(means, result.predict(IMAGES[:4]).mean, atol=1e-5)


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        quantization.quantize_static(MODELS / "digits_torch.onnx", tmp_path / name, reader=feeds())
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


DENSE = """<ir_version: 9, opset_import: ["": 20]> g (float[N,16] X) => (float[N,4] y) {
  a = MatMul (X, w) b = Add (a, v) c = Relu (b) d = MatMul (c, u) e = Add (d, t) y = Softmax (e) }"""


def dense(name: str = "x") -> onnx.ModelProto:
    """MatMul and Add, as Keras and transformers write a layer, and as ONNX Runtime makes a Gemm of it."""
    model, random = onnx.parser.parse_model(DENSE.replace("X", name)), np.random.default_rng(0)
    for weight, shape in (("w", (16, 32)), ("v", (32,)), ("u", (32, 4)), ("t", (4,))):
        array = random.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, weight))
    return sd.insert(model, after="c", rate=0.3, axes=[])


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("network", ["digits", "dense"])
def test_the_last_layers_stay_in_floating_point_unless_asked(network: str, asked: bool) -> None:
    model = source("nodes", 20) if network == "digits" else dense()
    x = [{"x": np.random.default_rng(1).standard_normal((8, 16)).astype(np.float32)}]
    made = quantization.quantize_static(model, reader=x if network == "dense" else feeds(), quantize_outputs=asked)
    makers = {name: node for node in made.graph.node for name in node.output}  # type: ignore[union-attr]
    node = makers[made.graph.output[0].name]  # type: ignore[union-attr]
    quantized = []
    while node.op_type != "Gemm":
        quantized.append(node.op_type == "QuantizeLinear")
        node = makers[node.input[0]]
    assert any(quantized) == asked
    assert node.input[1].endswith("DequantizeLinear_Output") == asked


def test_names_of_nodes_reach_the_quantiser() -> None:
    name = next(node.name for node in source("nodes", 20).graph.node if node.op_type == "Conv")
    made = quantization.quantize_static(source("nodes", 20), reader=feeds(), nodes_to_exclude=[name])
    (node,) = (node for node in made.graph.node if node.name == name)  # type: ignore[union-attr]
    assert not node.input[1].endswith("DequantizeLinear_Output")


def test_large_weights_go_through_a_file_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = quantization.quantize_static(MODELS / "digits_external.onnx", reader=feeds())
    monkeypatch.setattr("onnx_spatialdrop.quantization.quantize._LARGE", 0)
    made = quantization.quantize_static(MODELS / "digits_external.onnx", tmp_path / "made.onnx", reader=feeds())
    np.testing.assert_array_equal(draws(made), draws(whole))


def test_without_the_native_library_nothing_is_folded_and_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setattr("onnx_spatialdrop.kernels.native.missing_reason", lambda: "it is not there")
        made = quantization.quantize_static(source("nodes", 20), reader=feeds())
    assert_draws_alike(made)


def test_switches_keep_their_defaults_and_nobody_is_warned_of_them(capfd: pytest.CaptureFixture[str]) -> None:
    made = quantization.quantize_static(source("nodes", 20), reader=feeds())
    assert "training_mode" not in "".join(capfd.readouterr())
    (logits,) = sd.session(made).run(None, {"image": IMAGES[JUDGED]})
    assert np.abs(logits - RECORDED["logits"][JUDGED]).mean() < 0.3  # dropout is off


def test_what_onnxruntime_says_comes_in_one_line() -> None:
    wrong = [{"image": np.zeros((1, 1, 8), np.float32)}]
    with pytest.raises(FormError, match="ONNX Runtime cannot quantise the model: .*image"):
        quantization.quantize_static(source("nodes", 20), reader=wrong)


def test_only_what_the_file_needs_is_imported() -> None:
    made = quantization.quantize_static(source("nodes", 20), reader=feeds())
    assert {entry.domain for entry in made.opset_import} == {"", "onnx_spatialdrop"}  # type: ignore[union-attr]


def test_an_input_called_samples_is_the_users_own_where_no_draws_are_summed_up() -> None:
    made = quantization.quantize_dynamic(dense("samples"))
    assert made.graph.input[0].name == "samples"  # type: ignore[union-attr]


def test_ranges_of_several_draws_at_once_are_found(tmp_path: Path) -> None:
    file = sd.monte_carlo(dense(), tmp_path / "mc.onnx", task="regression")
    assert not sd.check(file)
    dynamic(file, tmp_path / "int8.onnx", extra_options={"EnableSubgraph": True})
    assert [finding.rule for finding in sd.check(tmp_path / "int8.onnx")] == ["range-of-a-run"]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"reader": 3}, TypeError, "reader"),
        ({"draws": 0}, SpecError, "draws"),
        ({"nodes_to_exclude": ["nothing"]}, SpecError, "nodes_to_exclude names 'nothing'"),
        ({"per_chanel": True}, TypeError, "per_chanel"),
        ({"quantize_outputs": 1}, TypeError, "quantize_outputs"),
        ({"model": sd.remove(MODELS / "digits_torch.onnx")}, SpecError, "insert"),
        ({"model": sd.monte_carlo(MODELS / "digits_torch.onnx")}, SpecError, "samples"),
        ({"model": quantization.quantize_dynamic(dense())}, SpecError, "quantised already"),
        ({"model": sd.fix(MODELS / "digits_torch.onnx", training_mode=False)}, SpecError, "fix"),
    ],
)
def test_what_cannot_be_quantised_is_refused(change: dict[str, Any], error: type[Exception], said: str) -> None:
    given = {"model": dropout_model(), "reader": feeds()} | change
    with pytest.raises(error, match=said):
        quantization.quantize_static(**given)
