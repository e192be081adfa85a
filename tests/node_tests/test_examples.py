"""The example in C: a model, its draws and their entropy with gcc and the wheels' two libraries alone."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import onnx_spatialdrop as sd

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "digits_torch.onnx"
DRAWS = 31
IMAGE = ((np.arange(64) * 37) % 17 / 16).astype(np.float32)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    runtime = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    if compiler is None or not runtime:
        pytest.skip("needs a C compiler, and an onnxruntime with a library of its own")
    built = tmp_path_factory.mktemp("c") / "monte_carlo"
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", built, ROOT / "examples" / "monte_carlo.c", "-ldl", "-lm"], check=True)
    return [str(built), str(runtime[0])]


def expected() -> np.ndarray:
    """Return the mean of the probabilities, and its entropy behind it."""
    session, probabilities = sd.session(MODEL, "python"), []
    for step in range(DRAWS):
        feeds = {"image": IMAGE.reshape(1, 1, 8, 8), "training_mode": np.array(True), "step": np.array([step])}
        logits = session.run(["logits"], feeds)[0][0].astype(float)
        powers = np.exp(logits - logits.max())
        probabilities.append(powers / powers.sum())
    mean = np.mean(probabilities, axis=0)
    return np.append(mean, -(mean * np.log(mean)).sum())


@pytest.mark.parametrize("way", ["library", "attached", "philox"])
def test_c_gives_what_python_gives(program: list[str], way: str, tmp_path: Path) -> None:
    library, model = sd.get_library_path(), MODEL
    if way == "library" and library is None:
        pytest.skip("no native library")
    if way != "library":
        library, model = None, tmp_path / "portable.onnx"
        sd.attach(MODEL, model) if way == "attached" else sd.expand(MODEL, model, form="philox")
    call = [*program, str(library or "-"), str(model), str(DRAWS)]
    output = subprocess.run(call, input=IMAGE.tobytes(), check=True, capture_output=True).stdout.decode()
    np.testing.assert_allclose([float(line.split()[1]) for line in output.splitlines()], expected(), atol=1e-6)


def test_c_says_what_is_wrong(program: list[str]) -> None:
    usage = subprocess.run(program[:1], capture_output=True, check=False)
    assert (usage.returncode, usage.stderr[:18]) == (2, b"usage: monte_carlo")
    call = [*program, "-", "/nonexistent.onnx", "3"]
    missing = subprocess.run(call, input=IMAGE.tobytes(), capture_output=True, check=False)
    assert missing.returncode == 1
    assert missing.stderr.startswith(b"/nonexistent.onnx: Load model from /nonexistent.onnx failed")
