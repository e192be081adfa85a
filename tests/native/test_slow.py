"""What takes minutes or gigabytes: sizes past 2**31 elements, AddressSanitizer inside ONNX Runtime, packaging."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from native_models import drop_node, make_model, make_session

from onnx_spatialdrop.operator import reference

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "ops" / "CMakeLists.txt").is_file(), reason="needs the sources"),
]


def run_python(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=os.environ | environment
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def available_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("shape", "axes"), [((5, 2**29 + 3), [1]), ((3, 2**29 + 1, 2), [1]), ((2**31 + 77,), [])])
def test_more_than_2_to_the_31_elements(shape: tuple[int, ...], axes: list[int]) -> None:
    if available_bytes() < 13 * 2**30:
        pytest.skip("needs 13 GiB of free memory")
    x = np.ones(shape, np.float16)
    session = make_session(make_model([drop_node("x", "y", "", axes=axes)], "float16"), threads=2)
    y = session.run(None, {"x": x, "training_mode": np.array(True), "step": np.array([3])})[0].reshape(-1)
    del x
    assert y.size > 2**31
    if axes == []:
        # Words past 2**31 lie in blocks past 2**29.
        from onnx_spatialdrop.operator import dialects, philox

        start = 2**31 - 1000
        words = philox.words(7, [3], 1077, start)[0]
        expected = np.where((words >> 8) >= dialects.threshold(0.5), np.float16(2), np.float16(0))
        np.testing.assert_array_equal(y[start:], expected)
    else:
        mask = reference.dropout_mask((*shape[:1], 1, *shape[2:]), [1], 0.5, 7, [3])
        view = y.reshape(shape)
        for position in (0, 1, shape[1] // 2, shape[1] - 1):
            np.testing.assert_array_equal(view[:, position], np.where(mask[:, 0], np.float16(2), np.float16(0)))


ASAN = """
import numpy as np
from native_models import *
import sys
sys.path.insert(0, "tests/native")
from test_random import check_random_model
for seed in range(150):
    check_random_model(seed)
x = np.ones((4, 700, 50, 49), np.float32)
for axes in ([2, 3], [1, 2], [1], [0, 2], []):
    run(make_session(make_model([drop_node("x", "y", "", axes=axes)], shape=list(x.shape)), threads=2), x)
print("finished", native.get_library_path())
"""


def test_under_address_sanitizer_inside_onnx_runtime(tmp_path: Path) -> None:
    if shutil.which("cmake") is None or shutil.which("gcc") is None:
        pytest.skip("needs CMake and GCC")
    # libstdc++ too: AddressSanitizer looks for the functions that throw when it starts.
    names = ["libasan.so", "libstdc++.so.6"]
    find = [subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True) for name in names]
    preload = " ".join(found.stdout.strip() for found in find)
    build = ["cmake", "-S", str(ROOT / "ops"), "-B", str(tmp_path / "build"), "-DSPATIALDROP_SANITIZE=address"]
    subprocess.run(build, check=True, capture_output=True)
    make = ["cmake", "--build", str(tmp_path / "build"), "--target", "onnx_spatialdrop"]
    subprocess.run(make, check=True, capture_output=True)
    package = tmp_path / "onnx_spatialdrop"
    shutil.copytree(ROOT / "onnx_spatialdrop", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(tmp_path / "build" / "libonnx_spatialdrop.so", package / "kernels")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "tests")])
    # Python itself leaks, so only wrong accesses count; without the arena every tensor has its own red zones.
    out = run_python(
        "-c", ASAN, PYTHONPATH=path, LD_PRELOAD=preload, ASAN_OPTIONS="detect_leaks=0", PYTHONSAFEPATH="1"
    )  # fmt: skip
    assert f"finished {package}" in out


def wheel_of(folder: Path, **environment: str) -> Path:
    run_python("-m", "pip", "wheel", str(ROOT), "--no-deps", "--quiet", "--wheel-dir", str(folder), **environment)
    return next(folder.glob("*.whl"))


def test_the_wheel_is_tied_to_the_platform_and_to_no_python(tmp_path: Path) -> None:
    wheel = wheel_of(tmp_path)
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")
    assert any("kernels/libonnx_spatialdrop." in name for name in zipfile.ZipFile(wheel).namelist())


def test_without_a_compiler_the_install_succeeds_and_says_what_is_missing(tmp_path: Path) -> None:
    wheel = wheel_of(tmp_path, CC="/nonexistent/cc", CXX="/nonexistent/c++")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "from onnx_spatialdrop.kernels import native; print(native.missing_reason())"
    said = run_python("-c", code, PYTHONPATH=str(tmp_path / "site"), PYTHONSAFEPATH="1")
    assert "the package was installed without a C++ compiler" in said


def test_an_editable_install_has_the_library(tmp_path: Path) -> None:
    run_python("-m", "venv", "--system-site-packages", str(tmp_path / "venv"))
    python = tmp_path / "venv" / "bin" / "python"
    outer = os.pathsep.join(path for path in sys.path if "site-packages" in path)
    paths = os.environ | {"PYTHONPATH": outer}
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".git", "build", "*.so", "__pycache__", ".*_cache"))
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--editable", str(checkout)]
    subprocess.run(install, check=True, capture_output=True)
    code = "import onnx_spatialdrop as s; print(s.__file__); print(s.get_library_path())"
    done = subprocess.run([str(python), "-P", "-c", code], capture_output=True, text=True, env=paths, cwd=tmp_path)
    source, library = done.stdout.split()
    assert source.startswith(str(checkout))
    assert library.startswith(str(tmp_path / "venv"))
