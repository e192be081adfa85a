"""Every public function checks its arguments at the door: one clear error that names the argument, or it works."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from building import dropout_ir, dropout_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from verify.numpy_framework import NumpyNetwork, X
from verify.numpy_framework import model as network_model

import onnx_spatialdrop as sd
from onnx_spatialdrop import arguments, training, verify
from onnx_spatialdrop.errors import SpecError

PACKAGE = str(Path(sd.__file__).parent)


class Odd:
    """An object that is nothing that anybody asks for."""


#: What people hand over by mistake.
ODD: list[Any] = [
    None, True, False, 0, 1, -1, 3, 2**64, -(2**63) - 1, 10**400, 0.5, 1.5, -0.1, float("nan"), float("inf"), 1j,
    "", "x", "NCHW", "1", "a\0b", "/nonexistent/a.onnx", "é" * 300, b"", b"y0", [], [None], [1.5], [True], ["1"], [3],
    [[1]], [2**70], {}, {"x": 1}, {"x": True}, {"x": "1"}, {3: 0.5}, {1}, range(2), iter([1]), np.array(0.3),
    np.array(True), np.array([1.5]), np.array([[1]]), np.array(["x"]), np.int64(2), np.uint64(2**63), np.float32(2.0),
    np.float64("nan"), np.bool_(True), Fraction(1, 3), Odd(), Odd, Path("/"), Path("nothing.onnx"), onnx.ModelProto(),
    onnx.GraphProto(), onnx.TensorProto(), ir.Value(name="x"), ir.val("x", ir.DataType.INT32, [2]), lambda: None,
]  # fmt: skip


def _clean() -> onnx.ModelProto:
    return sd.remove(dropout_model(wrap=True))


def _calls(folder: Path) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Return each public function and arguments with which it works."""
    model, output = dropout_model(wrap=True), folder / "out.onnx"
    drawn_model = dropout_model(wrap=True, mask=False)
    x = ir.val("x", ir.DataType.FLOAT, ["N", 4, 3, 3])
    drawn = {"shape": (2, 4, 3, 3), "axes": [2, 3], "ratio": 0.5, "seed": 1, "step": 0, "rng": "philox", "strata": 1}
    file = sd.save(model, folder / "in.onnx")
    network = {"framework_model": NumpyNetwork(), "onnx_model": network_model(), "inputs": X}
    return {
        "load": (sd.load, {"path": file}),
        "save": (sd.save, {"model": model, "path": output, "progress": None}),
        "find": (sd.find, {"model": model}),
        "check": (sd.check, {"model": model, "target": "openvino"}),
        "fuse": (
            sd.fuse,
            {"model": model, "output": output, "elementwise": True, "bernoulli": True, "training_mode": True,
             "seed": 1},
        ),
        "explain": (sd.explain, {"model": model, "elementwise": True, "bernoulli": True}),
        "fix": (sd.fix, {"model": model, "output": output, "training_mode": True, "step": 1}),
        "insert": (
            sd.insert,
            {"model": _clean(), "output": output, "after": "x", "after_op": None, "before_op": None, "last": False,
             "rate": 0.5, "axes": None, "noise_shape": None, "data_format": "channels_first", "seed": 0},
        ),
        "remove": (sd.remove, {"model": model, "output": output}),
        "to_inference": (sd.to_inference, {"model": model, "output": output, "strict": False}),
        "expand": (
            sd.expand, {"model": model, "output": output, "form": "uniform", "target": "onnxruntime", "defaults": True},
        ),
        "attach": (sd.attach, {"model": model, "output": output, "defaults": True}),
        "detach": (sd.detach, {"model": model, "output": output}),
        "assign_seeds": (
            sd.assign_seeds, {"model": model, "output": output, "base": 0, "keep_ties": False, "frameworks": False},
        ),
        "stratify": (sd.stratify, {"model": model, "output": output, "strata": 31}),
        "monte_carlo": (
            sd.monte_carlo,
            {"model": drawn_model, "output": output, "samples": 31, "task": "regression", "statistics": ["mean"],
             "layers": "all", "chunk": "auto", "class_axis": None, "log_variance": None, "strata": 31, "target": None},
        ),
        "triton": (
            functools.partial(sd.triton, repository=folder / "repository"),
            {"model": file, "name": "net", "version": 1, "samples": None, "max_batch_size": 32, "force": True},
        ),
        "split": (sd.split, {"model": drawn_model, "layers": "all"}),
        "session": (sd.session, {"model": model, "kernel": "body", "training_mode": True, "sess_options": None}),
        "register": (sd.register, {"session_options": None}),
        "spatial_dropout": (
            sd.spatial_dropout,
            {"x": x, "rate": 0.5, "training_mode": ir.Value(name="t"), "step": ir.Value(name="s"), "seed": 1,
             "axes": None, "noise_shape": None, "data_format": "channels_first", "scale": None, "rng": "philox",
             "strata": 1, "name": "d"},
        ),
        "reference.dropout_mask": (sd.reference.dropout_mask, {**drawn, "dtype": np.float32}),
        "reference.spatial_dropout": (
            sd.reference.spatial_dropout,
            {**{key: value for key, value in drawn.items() if key != "shape"}, "x": np.ones((2, 4, 3, 3), np.float32),
             "training_mode": True, "scale": 2.0},
        ),
        "verify": (
            verify.verify,
            {**network, "steps": 1, "first_step": 0,
             "tolerance": 1e-5, "kernel": "body", "runtime": "onnxruntime"},
        ),
        "record": (
            verify.record,
            {**network, "output": folder / "r.npz", "steps": 1, "first_step": 0, "layer_inputs": False},
        ),
        "update": (training.update, {"inference_model": _clean(), "weights": {}, "output": output}),
    }  # fmt: skip


#: Functions without arguments of their own, and what says which node an error is about.
WITHOUT = {"doctor", "get_library_path", "register_schema", "reference"}
UNTRIED = {"where", "further", "options", "repository"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some odd paths are paths all the same, and written."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    return _calls(tmp_path_factory.mktemp("arguments"))


def test_no_public_function_and_no_argument_is_left_out(
    calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]],
) -> None:
    functions = {name for name in sd.__all__ if not isinstance(getattr(sd, name), type)}
    assert functions - WITHOUT <= set(calls)
    for name, (function, given_arguments) in calls.items():
        assert set(inspect.signature(function).parameters) - UNTRIED == set(given_arguments), name


def _fault(name: str, argument: str, call: Callable[[], Any]) -> str:
    """Return what is wrong with how ``call`` ends; "" where it works or says clearly why not."""
    try:
        call()
    except (TypeError, ValueError, sd.SpatialDropError) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        if not frame.filename.startswith(PACKAGE):
            return f"{name}({argument}) ends in {frame.filename}: {type(error).__name__}: {error}"
        if "\n" in str(error):
            return f"{name}({argument}) says more than a line: {error}"
        if isinstance(error, TypeError) and argument not in str(error):
            return f"{name}({argument}) does not name its argument: {error}"
    except Exception as error:  # noqa: BLE001 - that is the fault
        return f"{name}({argument}) raises {type(error).__name__}: {error}"
    return ""


def _is_endless(argument: str, odd: Any) -> bool:
    """Return whether that is a number of steps that takes years."""
    return argument == "steps" and isinstance(odd, (int, np.integer)) and odd > 10


@given(data=st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_odd_argument_works_or_is_refused_by_name(
    data: st.DataObject, calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]]
) -> None:
    name = data.draw(st.sampled_from(sorted(calls)))
    function, valid = calls[name]
    argument = data.draw(st.sampled_from(sorted(valid)))
    odd = data.draw(st.sampled_from([each for each in ODD if not _is_endless(argument, each)]))
    assert _fault(name, argument, lambda: function(**{**valid, argument: odd})) == ""


@pytest.mark.slow
def test_every_odd_argument_works_or_is_refused_by_name(
    calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]],
) -> None:
    faults = [
        fault
        for name, (function, valid) in calls.items()
        for argument in valid
        for odd in ODD
        if not _is_endless(argument, odd)
        if (fault := _fault(name, argument, lambda f=function, v=valid, a=argument, o=odd: f(**{**v, a: o})))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("whole", [2, 2.0, np.int8(2), np.uint64(2), np.float32(2), np.array(2), Fraction(2)])
def test_whole_numbers_of_any_type_are_the_same(whole: Any) -> None:
    assert arguments.integer(whole, "seed") == 2
    assert type(arguments.integer(whole, "seed")) is int
    assert arguments.integers([whole, -1], "axes") == (2, -1)
    assert arguments.integers(whole, "axes") == (2,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: arguments.fraction(True, "rate"), "rate must be a number in [0, 1], not bool"),
        (lambda: arguments.fraction(np.bool_(True), "rate"), "rate must be a number in [0, 1], not bool"),
        (lambda: arguments.fraction(10**400, "rate"), f"rate is 1{'0' * 56}...; it must lie in [0, 1]"),
        (lambda: arguments.fraction(float("nan"), "rate"), "rate is nan; it must lie in [0, 1]"),
        (lambda: arguments.factor(-1.0, "scale"), "scale is -1.0; it must be finite, and 0 or more"),
        (lambda: arguments.factor(float("nan"), "scale"), "scale is nan; it must be finite, and 0 or more"),
        (lambda: arguments.integer(1.5, "steps"), "steps is 1.5; it must be a whole number"),
        (lambda: arguments.integer(0, "steps", 1), "steps is 0; it must be 1 or more"),
        (lambda: arguments.integers(np.array([1.5]), "axes"), "axes[0] is 1.5; it must be a whole number"),
        (lambda: arguments.integers("1", "axes"), "axes must be a sequence of numbers, not str"),
        (lambda: arguments.noise_shape("NCHW", "noise_shape"),
         "noise_shape must be a sequence of numbers and None, not str"),
        (lambda: arguments.noise_shape([None, 0], "noise_shape"), "noise_shape[1] is 0; it must be 1 or more"),
        (lambda: arguments.flag(1, "defaults"), "defaults must be True or False, not int"),
        (lambda: arguments.path(b"a", "output"),
         "output must be a path, a str or an os.PathLike of str, not bytes"),
        (lambda: arguments.path("", "output"), "output is empty; it must be the path of a file"),
        (lambda: arguments.choice("b", "form", ("a", "c")), "form is 'b'; allowed: a, c"),
    ],
)  # fmt: skip
def test_what_is_said(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, SpecError)) as caught:
        call()
    assert str(caught.value) == message.replace("not bool", type_said(call, "bool"))


def type_said(call: Callable[[], Any], default: str) -> str:
    """Return how NumPy calls its truth value, which differs between its versions."""
    constants = [each for each in call.__code__.co_names if each == "bool_"]
    return f"not {np.bool_.__name__ if constants else default}"


@pytest.mark.parametrize(
    ("noise_shape", "message"),
    [
        ([2, 5, 1, 1], "noise_shape[1] is 5; X has 4 there, so it must be 1, 4 or None"),
        ([None, 1, 1], "noise_shape (None, 1, 1) has 3 entries; X has rank 4"),
    ],
)
def test_a_noise_shape_that_does_not_fit_is_refused(noise_shape: list[int | None], message: str) -> None:
    x = ir.val("x", ir.DataType.FLOAT, ["N", 4, 3, 3])
    steering = {"training_mode": ir.Value(name="t"), "step": ir.Value(name="s"), "seed": 1}
    with pytest.raises(SpecError) as caught:
        sd.spatial_dropout(x, 0.5, noise_shape=noise_shape, name="d", **steering)
    assert str(caught.value) == f"node 'd': {message}"
    node = sd.spatial_dropout(x, 0.5, noise_shape=[2, 4, 1, 1], **steering)
    assert list(node.attributes["axes"].as_ints()) == [2, 3]
    clean = sd.remove(dropout_ir(shape=("N", 4, 3, 3), wrap=True))
    with pytest.raises(SpecError, match="value 'x': noise_shape"):
        sd.insert(clean, after="x", noise_shape=noise_shape)
