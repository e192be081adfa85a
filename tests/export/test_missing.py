"""Exporters without their frameworks: light to import, and clear about what to install."""

import subprocess
import sys

import pytest


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_torch_exporter_is_light_to_import() -> None:
    code = "import onnx_spatialdrop.export.torch, sys; print('torch' in sys.modules, 'onnxscript' in sys.modules)"
    assert run(code) == "False False"


@pytest.mark.parametrize("call", ["export(None)", "exporting().__enter__()", "translation_table()"])
@pytest.mark.parametrize("missing", ["torch", "onnxscript"])
def test_a_missing_framework_is_named_with_the_extra(call: str, missing: str) -> None:
    if missing == "onnxscript":
        pytest.importorskip("torch", reason="onnxscript is looked for after torch, which is not installed here")
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import onnx_spatialdrop as sd, onnx_spatialdrop.export.torch as sdt\n"
        f"try: sdt.{call}\n"
        "except sd.SpatialDropError as error: print(error)"
    )
    assert run(code) == f'{missing} is not installed: pip install "onnx_spatialdrop[torch]"'
