"""IREE: why expand refuses it as a target, and the form that it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from building import dropout_model

import onnx_spatialdrop as sd


def compiled(model: onnx.ModelProto, folder: Path) -> Any:
    pytest.importorskip("iree.compiler", reason="IREE is not installed (pip install iree-base-compiler)")
    runtime = pytest.importorskip("iree.runtime", reason="IREE is not installed (pip install iree-base-runtime)")
    source, text, made = (folder / f"model.{kind}" for kind in ("onnx", "mlir", "vmfb"))
    onnx.save(model, source)
    bin = Path(sys.executable).parent  # noqa: A001 - as the folder is called
    device = ("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu")
    for command in (("iree-import-onnx", source, "-o", text), ("iree-compile", text, *device, "-o", made)):
        subprocess.run([bin / command[0], *command[1:]], check=True, capture_output=True)
    config = runtime.Config("local-task")
    context = runtime.SystemContext(config=config)
    module = runtime.VmModule.copy_buffer(config.vm_instance, made.read_bytes())
    context.add_vm_module(module)
    name = next(name for name in module.function_names if not name.endswith("$async"))
    return getattr(context.modules, module.name)[name]


def both(model: onnx.ModelProto, folder: Path, *feeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString())
    wanted = session.run(None, dict(zip((each.name for each in session.get_inputs()), feeds, strict=True)))[0]
    return compiled(model, folder)(*feeds).to_host(), wanted


X = np.random.default_rng(0).standard_normal((2, 8, 4, 4)).astype(np.float32)


def test_masks_that_are_fed_are_right(tmp_path: Path) -> None:
    model = sd.expand(dropout_model(shape=X.shape, mask=False), form="mask-inputs", defaults=False)
    mask = np.random.default_rng(1).random((2, 8, 1, 1)) < 0.7
    np.testing.assert_array_equal(*both(model, tmp_path, X, np.array(True), mask))


def test_the_generator_in_32_bits_comes_out_wrong(tmp_path: Path) -> None:
    model = sd.expand(dropout_model(shape=X.shape, mask=False), target="openvino")
    got, wanted = both(model, tmp_path, X, np.array(True), np.array([5]))
    assert not np.array_equal(got, wanted)


@pytest.mark.parametrize("target", ["iree", "onnx2tf", "tensorrt"])
def test_tools_that_draw_wrong_are_refused_by_name(target: str) -> None:
    for call in (sd.expand, sd.check):
        with pytest.raises(sd.FormError, match=f"target is '{target}', which .*(mask-inputs|to_inference)"):
            call(dropout_model(), target=target)
