"""One file that sums up its own draws: equal to a loop of whole runs, in chunks of every size, in every runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest
from montecarlo.running import open_session, whole_runs

import onnx_spatialdrop as sd

Array = npt.NDArray[Any]
MODELS = Path(__file__).parents[2] / "models"
SAMPLES = 9
ALL = ("mean", "variance", "std", "entropy", "mutual_information", "expected_entropy", "variation_ratio")


def softmax(y: Array, axis: int) -> Array:
    power = np.exp(y.astype(np.float64) - y.max(axis, keepdims=True))
    return np.asarray(power / power.sum(axis, keepdims=True))


def statistics(p: Array, axis: int) -> dict[str, Array]:
    """Return the textbook's formulas for draws [T, N, ...] of probabilities; ``axis`` is that of classes in a draw."""
    mean = p.mean(0)
    entropy = -(mean * np.log(mean)).sum(axis)
    expected = -(p * np.log(np.maximum(p, 1e-300))).sum(axis + 1).mean(0)
    votes = np.stack([(p.argmax(axis + 1) == k).sum(0) for k in range(p.shape[axis + 1])])
    return {
        "mean": mean,
        "variance": p.var(0),
        "std": p.std(0),
        "entropy": entropy,
        "expected_entropy": expected,
        "mutual_information": entropy - expected,
        "variation_ratio": 1 - votes.max(0) / len(p),
    }


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    session = open_session(model)
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds), strict=True))


def digits(name: str, rows: int = 5) -> tuple[onnx.ModelProto, dict[str, Array]]:
    model = onnx.load(MODELS / f"{name}.onnx")
    images = dict(np.load(MODELS / ("digits_keras.npz" if "keras" in name else "digits_torch.npz")))["images"]
    return model, {model.graph.input[0].name: images[:rows]}


@pytest.mark.parametrize("chunk", ["all", 1, 4, "auto"])
@pytest.mark.parametrize(("name", "strata"), [("digits_torch", 31), ("digits_keras", 1), ("digits_function", 31)])
def test_the_file_gives_what_a_loop_of_whole_runs_gives(name: str, strata: int, chunk: Any) -> None:
    model, feeds = digits(name)
    first = np.arange(5) * 1000 + 3
    expected = statistics(softmax(whole_runs(model, feeds, first, SAMPLES, strata), 2), 1)
    made = sd.monte_carlo(model, statistics=ALL, chunk=chunk, strata=strata)
    onnx.checker.check_model(made, full_check=True)
    got = run(made, {**feeds, "step": first, "samples": np.array([SAMPLES])})
    for key in ALL:
        np.testing.assert_allclose(got[key], expected[key], atol=1e-6, err_msg=key)
    assert (got["mutual_information"] >= 0).all()


def test_a_loop_is_made_where_draws_take_more_memory_than_the_model() -> None:
    model, _ = digits("digits_torch")
    loops = {
        chunk: [n.op_type for n in sd.monte_carlo(model, chunk=chunk).graph.node].count("Loop") for chunk in ("all", 3)
    }
    assert loops == {"all": 0, 3: 1}


def test_the_defaults_are_31_draws_with_the_same_masks_for_every_row() -> None:
    model, feeds = digits("digits_torch", 2)
    feeds = {"image": np.repeat(feeds["image"][:1], 2, 0)}
    made = run(sd.monte_carlo(model), feeds)
    assert list(made) == ["mean", "variance", "entropy", "mutual_information"]
    np.testing.assert_allclose(made["mean"][0], made["mean"][1], atol=1e-7)
    expected = softmax(whole_runs(model, feeds, np.zeros(2, np.int64), 31, 31), 2).mean(0)
    np.testing.assert_allclose(made["mean"], expected, atol=1e-6)


def test_the_callers_model_is_not_changed_and_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    model, _ = digits("digits_torch")
    before = model.SerializeToString()
    one, two = (
        sd.monte_carlo(MODELS / "digits_torch.onnx", tmp_path / name).read_bytes() for name in ("a.onnx", "b.onnx")
    )
    sd.monte_carlo(model)
    assert model.SerializeToString() == before
    assert one == two


def test_a_training_mode_export_is_fused_first() -> None:
    model, feeds = digits("digits_torch_train_export")
    made = run(sd.monte_carlo(model), feeds)
    assert made["variance"].max() > 1e-3


@pytest.mark.parametrize("chunk", ["auto", "all", 4])
def test_an_empty_batch_gives_empty_statistics(chunk: Any) -> None:
    model, feeds = digits("digits_torch")
    results = run(sd.monte_carlo(model, chunk=chunk), {name: value[:0] for name, value in feeds.items()})
    assert [value.shape for value in results.values()] == [(0, 10), (0, 10), (0,), (0,)]


@pytest.mark.parametrize("target", [None, "onnxruntime"])
@pytest.mark.parametrize("chunk", ["all", 4])
def test_plain_onnxruntime_gives_the_numbers_that_our_kernel_gives(chunk: Any, target: str | None) -> None:
    import onnxruntime

    model, feeds = digits("digits_torch")
    feeds |= {"step": np.arange(5) << 20}
    nodes = run(sd.detach(sd.monte_carlo(model, chunk=chunk)), feeds)
    plain = sd.monte_carlo(model, chunk=chunk, target=target)
    session = onnxruntime.InferenceSession(plain.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    for name, got in zip(names, session.run(None, feeds), strict=True):
        np.testing.assert_allclose(got, nodes[name], atol=1e-7, err_msg=name)


def test_sizes_inside_a_branch_follow_the_draws() -> None:
    """A branch names its sizes, too, and the batch is longer where draws are laid behind each other."""
    model, feeds = digits("digits_if")
    feeds |= {"monte_carlo": np.array(True), "step": np.arange(5)}
    wanted = run(sd.monte_carlo(model), feeds)
    for name, value in run(sd.monte_carlo(model, target="onnxruntime"), feeds).items():
        np.testing.assert_allclose(value, wanted[name], atol=1e-6, err_msg=name)


@pytest.mark.openvino
def test_in_openvino() -> None:
    openvino = pytest.importorskip("openvino")
    model, feeds = digits("digits_torch")
    given = {**feeds, "step": np.arange(5) * (31 << 10) + 5, "samples": np.array([7])}
    for chunk in ("all", 3):
        expected = run(sd.monte_carlo(model, chunk=chunk), given)
        plain = sd.monte_carlo(model, chunk=chunk, target="openvino")
        compiled = openvino.Core().compile_model(
            openvino.Core().read_model(plain.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        results = compiled(given)
        for output in compiled.outputs:
            np.testing.assert_allclose(results[output], expected[output.get_any_name()], atol=5e-6)


HEAD = """
<ir_version: 9, opset_import: ["": 20, "onnx_spatialdrop": 1]>
g (float[N,6] x, bool training_mode, int64[steps] step) => (OUTPUTS)
<bool training_mode = {0}, int64[1] step = {-1}, float[6,1] w = {1.,-1.,2.,-2.,0.5,1.},
 float[6,1] v = {0.1,0.2,-0.1,0.1,0.2,0.},
 float[6,4] u = {1.,0.,2.,1.,0.,1.,-1.,2.,2.,1.,0.,1.,
                 1.,1.,2.,0.,0.,1.,1.,1.,2.,0.,1.,0.}>
{ d, mask = onnx_spatialdrop.SpatialDropout <axes: ints = [], ratio = 0.4, seed = 11, scale = 0.0>
      (x, training_mode, step)
"""


def small(outputs: str, body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD.replace("OUTPUTS", outputs) + body + "}")


def test_a_heteroscedastic_head_gives_both_parts_of_the_variance() -> None:
    model = small("float[N,1] mu, float[N,1] s", "mu = MatMul (d, w) s = MatMul (d, v)")
    x = np.random.default_rng(1).random((4, 6)).astype(np.float32)
    first = np.arange(4) * 50
    swapped = small("float[N,1] s, float[N,1] mu", "mu = MatMul (d, w) s = MatMul (d, v)")
    mu, log = (whole_runs(each, {"x": x}, first, SAMPLES, 31) for each in (model, swapped))
    for chunk in ("all", 2):
        made = sd.monte_carlo(model, log_variance="s", chunk=chunk)
        got = run(made, {"x": x, "step": first, "samples": np.array([SAMPLES])})
        np.testing.assert_allclose(got["mean"], mu.mean(0), atol=1e-6)
        np.testing.assert_allclose(got["epistemic"], mu.var(0), atol=1e-6)
        np.testing.assert_allclose(got["aleatoric"], np.exp(log).mean(0), atol=1e-6)
        np.testing.assert_allclose(got["variance"], mu.var(0) + np.exp(log).mean(0), atol=1e-6)


def test_several_outputs_have_their_names_before_their_statistics_and_fixed_ones_stay() -> None:
    model = small("float[N,4] a, float[N,1] b, float[N,6] c", "a = MatMul (d, u) b = MatMul (d, w) c = Neg (x)")
    made = sd.monte_carlo(model)
    names = [value.name for value in made.graph.output]
    assert names == ["c", "a_mean", "a_variance", "a_entropy", "a_mutual_information", "b_mean", "b_variance"]
    x = np.random.default_rng(1).random((3, 6)).astype(np.float32)
    got = run(made, {"x": x})
    np.testing.assert_array_equal(got["c"], -x)
    assert got["a_entropy"].shape == (3,)


def test_a_sigmoid_makes_a_yes_and_no_of_every_entry() -> None:
    model = small("float[N,4] p", "a = MatMul (d, u) p = Sigmoid (a)")
    x = np.random.default_rng(1).random((3, 6)).astype(np.float32)
    p = whole_runs(model, {"x": x}, np.arange(3) * 9, SAMPLES, 31).astype(np.float64)
    both = np.stack([1 - p, p], 2)
    expected = statistics(both, 1)
    got = run(
        sd.monte_carlo(model, statistics=ALL, chunk=2),
        {"x": x, "step": np.arange(3) * 9, "samples": np.array([SAMPLES])},
    )
    np.testing.assert_allclose(got["mean"], p.mean(0), atol=1e-6)
    for key in ("entropy", "mutual_information", "expected_entropy", "variation_ratio"):
        np.testing.assert_allclose(got[key], expected[key], atol=1e-6, err_msg=key)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"samples": 0}, "samples is 0; it must be in"),
        ({"chunk": 0}, "chunk is 0"),
        ({"task": "ranking"}, "task is 'ranking'"),
        ({"statistics": ["median"]}, "no statistic 'median'"),
        ({"layers": ["nowhere"]}, "no live dropout 'nowhere'; there are 'relu/SpatialDropout'"),
        ({"class_axis": 0}, "class_axis is 0"),
        ({"log_variance": "logits"}, "say which it belongs to"),
        ({"target": "abacus"}, "target is 'abacus'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(sd.SpatialDropError, match=text):
        sd.monte_carlo(MODELS / "digits_torch.onnx", **arguments)


def test_a_model_without_dropout_is_refused_with_the_line_that_puts_it_in() -> None:
    with pytest.raises(sd.SpecError, match="onnx-spatialdrop insert MODEL --last"):
        sd.monte_carlo(MODELS / "digits_torch_eval_export.onnx")


def test_layers_chooses_what_draws() -> None:
    model, feeds = digits("digits_torch")
    last = run(sd.monte_carlo(model, layers="last"), feeds)["variance"].mean()
    named = run(sd.monte_carlo(model, layers=["relu_2/SpatialDropout"]), feeds)["variance"].mean()
    every = run(sd.monte_carlo(model), feeds)["variance"].mean()
    assert last == named
    assert last < every


@pytest.mark.parametrize("target", ["tract", "onnx2torch", "onnx2pytorch"])
def test_a_target_that_draws_once_a_run_is_refused(target: str) -> None:
    with pytest.raises(sd.FormError, match=f"{target} cannot draw at several steps"):
        sd.monte_carlo(digits("digits_torch")[0], target=target)
