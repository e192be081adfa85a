"""One call to a session that is right, with every kernel."""

import os
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from building import assert_same_bits, dropout_ir, dropout_model

import onnx_spatialdrop as sd
from onnx_spatialdrop import reference, versions
from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.runtime.session import KERNELS, choose

KERNEL = [
    pytest.param(name, marks=pytest.mark.skipif(
        name == "native" and native.missing_reason() is not None, reason="the native library is not built here"
    ))
    for name in KERNELS
]  # fmt: skip


def quiet() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options


@pytest.mark.parametrize("kernel", KERNEL)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("step", [[3], [2**40], [5, 0, 5]])
@pytest.mark.parametrize("axes", [(2, 3), (-2,), (), (1, 3)])
def test_every_kernel_gives_the_references_bits(
    kernel: str, dtype: str, step: list[int], axes: tuple[int, ...]
) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(spec.DTYPES[dtype])
    x.flat[:3] = np.nan, -np.inf, -0.0
    session = sd.session(dropout_model(dtype=dtype, axes=axes), kernel)
    assert type(session) is onnxruntime.InferenceSession
    for training in (True, False):
        feeds = {"x": x, "training_mode": np.array(training), "step": np.array(step)}
        y, mask = session.run(None, feeds)
        scale = spec.explicit_scale(0.3, x.dtype)
        expected = reference.spatial_dropout(x, axes, 0.3, 7, step, training, scale)
        assert_same_bits(y, expected[0])
        np.testing.assert_array_equal(mask, expected[1])


@pytest.mark.parametrize("kernel", KERNEL)
def test_without_feeds_the_file_is_the_inference_model(kernel: str) -> None:
    x = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    y, mask = sd.session(dropout_model(wrap=True), kernel).run(None, {"x": x})
    np.testing.assert_array_equal(y, -np.abs(x))
    assert mask.all()


@pytest.mark.parametrize("kernel", ["native", "python"])
def test_a_negative_step_counts_from_each_sessions_creation(kernel: str) -> None:
    if kernel == "native" and native.missing_reason() is not None:
        pytest.skip("the native library is not built here")
    feeds = {"x": np.ones((2, 50, 1, 1), np.float32), "training_mode": np.array(True)}
    for _ in range(2):
        session = sd.session(dropout_model(shape=("N", 50, 1, 1)), kernel)
        session.run(None, {"x": feeds["x"]})  # an idle run does not count
        for step in range(4):
            mask = session.run(["mask"], feeds)[0]
            np.testing.assert_array_equal(mask, reference.dropout_mask((2, 50, 1, 1), [2, 3], 0.3, 7, step))


@pytest.mark.parametrize("kernel", ["native", "python"])
def test_concurrent_runs_get_different_counts(kernel: str) -> None:
    if kernel == "native" and native.missing_reason() is not None:
        pytest.skip("the native library is not built here")
    session = sd.session(dropout_model(shape=("N", 200), axes=()), kernel)
    feeds = {"x": np.ones((1, 200), np.float32), "training_mode": np.array(True)}
    masks: list[bytes] = []

    def run() -> None:
        for _ in range(20):
            masks.append(session.run(["mask"], feeds)[0].tobytes())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {reference.dropout_mask((1, 200), [], 0.3, 7, step).tobytes() for step in range(80)}
    assert set(masks) == expected


@pytest.mark.parametrize("kernel", KERNEL)
def test_external_weights_are_found_from_another_folder(
    kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    model = dropout_model(shape=("N", 4), axes=(), wrap=True, mask=False)
    weight = onnx.numpy_helper.from_array(np.arange(4000, dtype=np.float32).reshape(4, 1000), "weight")
    model.graph.initializer.append(weight)
    model.graph.node.append(onnx.helper.make_node("MatMul", ["y", "weight"], ["z"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, ["N", 1000]))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=100, location="m.data")
    monkeypatch.chdir("/")
    x = np.ones((2, 4), np.float32)
    expected = -x @ np.arange(4000, dtype=np.float32).reshape(4, 1000)
    for source in (tmp_path / "m.onnx", os.fspath(tmp_path / "m.onnx"), sd.load(tmp_path / "m.onnx")):
        np.testing.assert_array_equal(sd.session(source, kernel).run(["z"], {"x": x})[0], expected)


@pytest.mark.parametrize("kernel", KERNEL)
def test_the_callers_options_and_model_are_used_and_kept(kernel: str) -> None:
    options = quiet()
    options.intra_op_num_threads = 1
    model = dropout_ir()
    for _ in range(2):  # the same options serve twice
        session = sd.session(model, kernel, sess_options=options, providers=["CPUExecutionProvider"])
        assert session.get_session_options().intra_op_num_threads == 1
    assert [node.op_type for node in model.graph] == ["SpatialDropout"]
    assert not model.functions


@pytest.mark.parametrize("kernel", KERNEL)
@pytest.mark.parametrize("step", [[1, 2], [1, -1, 2], []])
def test_a_refused_step_is_an_error_and_the_session_lives_on(kernel: str, step: list[int]) -> None:
    session = sd.session(dropout_model(), kernel, sess_options=quiet())
    feeds = {"x": np.ones((3, 4, 2, 2), np.float32), "training_mode": np.array(True)}
    with pytest.raises(Exception, match=r"step|refused"):
        session.run(None, feeds | {"step": np.array(step, np.int64)})
    assert session.run(None, feeds | {"step": np.array([1])})[0].shape == (3, 4, 2, 2)


def test_the_python_kernel_logs_why_it_refused(caplog: pytest.LogCaptureFixture) -> None:
    session = sd.session(dropout_model(), "python", sess_options=quiet())
    with pytest.raises(Exception, match="refused, the log of 'onnx_spatialdrop' says why"):
        session.run(None, {"x": np.ones((3, 4, 2, 2), np.float32), "step": np.array([1, 2])})
    assert "node 'drop': step has 2 elements; allowed: 1, or 3 (the size of X's dim 0)" in caplog.text


def test_auto_takes_the_first_that_works_and_says_so() -> None:
    chosen, reason = choose("auto")
    usable = [name for name in KERNELS if name != "native" or native.missing_reason() is None]
    assert chosen == usable[0]
    assert reason


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(sd.KernelError, match="there is no kernel 'cuda'; known: 'auto', 'native', 'python', 'body'"):
        sd.session(dropout_model(), "cuda")


def test_a_kernel_that_is_missing_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "missing_reason", lambda: "no library")
    with pytest.raises(
        sd.KernelError, match="kernel 'native' cannot be used: no library; kernel='auto' takes one that"
    ):
        sd.session(dropout_model(), "native")
    assert choose("auto") == ("python", "native: no library")


@pytest.mark.parametrize(
    ("package", "version", "said"),
    [
        ("onnx", "1.18.0", "older than 1.19, the first that is tested: upgrade it"),
        ("onnx", "1.19.1", ""),
        ("onnxruntime", "1.99.0", "newer than "),
        ("onnxruntime", "not installed", ""),
        ("platform", "9.9", ""),
    ],
)
def test_versions_out_of_the_tested_range_are_named(package: str, version: str, said: str) -> None:
    told = versions.untested(package, version)
    assert told.startswith(said)
    assert bool(told) == bool(said)


def test_doctor_tries_every_kernel() -> None:
    report = sd.doctor()
    usable = {each.kernel: each.usable for each in report.kernels}
    assert usable == {"native": native.missing_reason() is None, "python": True, "body": True}
    assert report.versions["onnxruntime"] == onnxruntime.__version__
    assert report.auto == choose("auto")[0]
