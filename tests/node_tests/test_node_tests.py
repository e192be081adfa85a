"""The node tests as data: every kernel, the body and the examples in other languages give what the files hold.

onnx's own backend test runner runs them, and a program in C++ that knows no Python.
"""

import runpy
import shutil
import subprocess
import unittest
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import pytest
from expanding import with_float_ends
from onnx import numpy_helper
from onnx.backend.base import Backend, BackendRep
from onnx.backend.test import loader, runner
from onnx.reference import ReferenceEvaluator

import onnx_spatialdrop as sd
from onnx_spatialdrop.operator.evaluator import SpatialDropout

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NATIVE = sd.get_library_path()


def load_cases() -> list[Any]:
    return loader.load_model_tests(data_dir=str(ROOT), kind="node_tests")


CASES = {case.name: Path(case.model_dir) for case in load_cases()}

Arrays = list[np.ndarray[Any, Any]]
Runner = Callable[[onnx.ModelProto, Mapping[str, Any]], Arrays]


def tensors(folder: Path, kind: str) -> dict[str, np.ndarray[Any, Any]]:
    """Return the inputs or outputs of a case by name."""
    files = [onnx.load_tensor(str(file)) for file in sorted((folder / "test_data_set_0").glob(f"{kind}_*.pb"))]
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in files}


def model_of(folder: Path) -> onnx.ModelProto:
    return onnx.load(folder / "model.onnx")


def attributes_of(model: onnx.ModelProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in model.graph.node[0].attribute}


def evaluated(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> Arrays:
    evaluator: Any = ReferenceEvaluator(model, new_ops=[SpatialDropout])
    return [np.asarray(output) for output in evaluator.run(None, dict(feeds))]


def in_session(kernel: Any) -> Runner:
    def run(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> Arrays:
        x = feeds["X"]
        narrow = x.dtype.name == "bfloat16"  # onnxruntime's Python API takes none
        session = sd.session(with_float_ends(model) if narrow else model, kernel)
        y, mask = session.run(None, {**feeds, "X": x.astype(np.float32) if narrow else x})
        return [y.astype(x.dtype), mask]

    return run


def assert_equal(got: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> None:
    """Compare bit for bit; NaNs compare as NaNs."""
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    if wanted.dtype == np.bool_:
        np.testing.assert_array_equal(got, wanted)
        return
    nan, words = np.isnan(wanted), f"u{wanted.dtype.itemsize}"
    np.testing.assert_array_equal(np.isnan(got), nan)
    bits = [np.where(nan, 0, np.ascontiguousarray(array).view(words)) for array in (got, wanted)]
    np.testing.assert_array_equal(*bits)


class BitRunner(runner.Runner):
    """onnx's backend test runner, without its tolerance."""

    @classmethod
    def assert_similar_outputs(cls, ref_outputs: Sequence[Any], outputs: Sequence[Any], *_: Any, **__: Any) -> None:
        for wanted, got in zip(ref_outputs, outputs, strict=True):
            assert_equal(got, wanted)


def backend_tests(run: Runner) -> type[unittest.TestCase]:
    """Return the tests that onnx's runner makes of our cases for a backend that is ``run``."""

    class Prepared(BackendRep):
        def __init__(self, model: onnx.ModelProto) -> None:
            self._model = model

        def run(self, inputs: Any, **_: Any) -> Any:
            return run(self._model, dict(zip(("X", "training_mode", "step"), inputs, strict=True)))

    class Ours(Backend):
        @classmethod
        def prepare(cls, model: onnx.ModelProto, *_: Any, **__: Any) -> BackendRep:
            return Prepared(model)

        @classmethod
        def supports_device(cls, device: str) -> bool:
            return device == "CPU"

    # It loads onnx's own tests, two thousand of which hold no node of ours.
    with mock.patch.object(runner, "load_model_tests", lambda kind: load_cases() if kind == "node" else []):
        tests = BitRunner(Ours, __name__).tests
    for name in [name for name in dir(tests) if name.endswith("_cuda")]:
        delattr(tests, name)
    return tests


TestReferenceEvaluator = backend_tests(evaluated)
TestPythonKernel = backend_tests(in_session("python"))
TestBody = backend_tests(in_session("body"))
TestNativeKernel = pytest.mark.skipif(NATIVE is None, reason="no native library")(backend_tests(in_session("native")))


def test_the_runner_runs_every_case_and_sees_a_wrong_bit() -> None:
    def wrong(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> Arrays:
        y, mask = evaluated(model, feeds)
        return [np.negative(y), mask]

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(backend_tests(wrong)).run(result)
    assert result.testsRun == len(CASES)
    assert len(result.failures) >= len(CASES) - 5  # empty tensors, and such of NaNs, have no sign


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the call of the program in C++ with ONNX Runtime and the native library."""
    compiler = shutil.which("c++") or shutil.which("g++")
    runtime = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    if compiler is None or not runtime or NATIVE is None:
        pytest.skip("needs a C++ compiler, the native library, and an onnxruntime with a library of its own")
    built = tmp_path_factory.mktemp("cpp") / "node_tests"
    flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", built, EXAMPLES / "node_tests.cc", "-ldl"], check=True)
    return [str(built), str(runtime[0]), str(NATIVE)]


def test_a_program_without_python_runs_every_case(program: list[str]) -> None:
    ran = subprocess.run([*program, *CASES.values()], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, f"{len(CASES)} cases, 0 wrong\n"), ran.stdout


def test_the_program_sees_a_wrong_bit(program: list[str], tmp_path: Path) -> None:
    case = shutil.copytree(CASES["test_spatialdropout_nchw_float16"], tmp_path / "case")
    for index, name in ((1, "mask"), (0, "Y")):
        path = case / "test_data_set_0" / f"output_{index}.pb"
        stored = path.read_bytes()
        tensor = onnx.load_tensor(str(path))
        tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]
        path.write_bytes(tensor.SerializeToString())
        ran = subprocess.run([*program, case], capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout) == (1, f"{case}: values of {name}\n1 cases, 1 wrong\n")
        path.write_bytes(stored)


def test_the_files_are_what_the_script_writes(tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "node_tests" / "build.py"))["build"](tmp_path)
    written, stored = (
        {file.relative_to(folder): file.read_bytes() for file in folder.glob("test_*/**/*") if file.is_file()}
        for folder in (tmp_path, ROOT / "node_tests")
    )
    assert written == stored


def test_models_pass_the_checker() -> None:
    for folder in CASES.values():
        onnx.checker.check_model(model_of(folder), full_check=True)


def _rows(case: str) -> tuple[list[tuple[int, int, int, float, int]], str] | None:
    """Return what the examples take for each row of a case's mask, and the whole mask; None for other generators."""
    folder = CASES[case]
    attributes, inputs = attributes_of(model_of(folder)), tensors(folder, "input")
    mask = tensors(folder, "output")["mask"]
    if attributes["rng"] != b"philox" or not inputs["training_mode"].all():
        return None
    rows = [
        (attributes["seed"], int(step), mask.size // len(inputs["step"]), attributes["ratio"], attributes["strata"])
        for step in inputs["step"]
    ]
    return rows, "".join("01"[int(kept)] for kept in mask.reshape(-1))


MASKS = {case: rows for case in CASES if (rows := _rows(case)) is not None}


def test_the_example_in_python_gives_every_mask() -> None:
    is_kept = runpy.run_path(str(EXAMPLES / "spatialdropout.py"))["is_kept"]
    for case, (rows, wanted) in MASKS.items():
        got = [
            is_kept(seed, step, entry, ratio, strata)
            for seed, step, entries, ratio, strata in rows
            for entry in range(entries)
        ]
        assert "".join("01"[kept] for kept in got) == wanted, case


def test_the_example_in_c_gives_every_mask(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    program = tmp_path / "mask"
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", program, EXAMPLES / "mask.c", "-lm"], check=True)
    for case, (rows, wanted) in MASKS.items():
        lines = [
            subprocess.run([program, *map(repr, row)], check=True, capture_output=True, text=True).stdout.strip()
            for row in rows
        ]
        assert "".join(lines) == wanted, case


def test_the_example_in_javascript_gives_every_mask(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js")
    calls = [
        f"[{seed}n, {step}n, {entries}, {ratio!r}, {strata}]"
        for rows, _ in MASKS.values()
        for seed, step, entries, ratio, strata in rows
    ]
    script = tmp_path / "masks.mjs"
    script.write_text(
        f"import {{ maskRow }} from {str((EXAMPLES / 'spatialdropout.mjs').as_uri())!r};\n"
        f"for (const row of [{', '.join(calls)}]) console.log(maskRow(...row).map(Number).join(''));\n"
    )
    lines = subprocess.run([node, script], check=True, capture_output=True, text=True).stdout.split("\n")[:-1]
    assert "".join(lines) == "".join(wanted for _, wanted in MASKS.values())
