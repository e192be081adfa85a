"""Olive runs this package's passes and surgeons, as people call it: a configuration and a package configuration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import zoo

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main
from onnx_spatialdrop.integrations.olive_package import package_config

OWN = "onnx_spatialdrop.integrations.olive."


def olive(folder: Path, model: str, *passes: dict[str, Any], packages: Path | None = None) -> onnx.ModelProto:
    pytest.importorskip("olive", reason="Olive is not installed (pip install olive-ai requests)")
    config = {
        "input_model": {"type": "ONNXModel", "model_path": str(zoo.path(model))},
        "passes": {f"pass_{place}": each for place, each in enumerate(passes)},
        "output_dir": str(folder / "out"),
        "cache_dir": str(folder / "cache"),
    }
    (folder / "run.json").write_text(json.dumps(config))
    command = ["-m", "olive", "run", "--config", str(folder / "run.json")]
    subprocess.run(
        [sys.executable, *command, "--package-config", str(packages or package_config())],
        check=True,
        capture_output=True,
        env=os.environ | {"OLIVE_DISABLE_TELEMETRY": "1"},
    )
    return onnx.load(folder / "out" / "model.onnx")


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_olives_own_passes_leave_dropout_in_and_ours_take_it_out(tmp_path: Path) -> None:
    pytest.importorskip("olive", reason="Olive is not installed (pip install olive-ai requests)")
    packages = package_config(tmp_path / "both.json")
    passes = {"type": "OnnxPeepholeOptimizer"}, {"type": "SpatialDropoutToInference"}
    source = onnx.load(zoo.path("digits_torch_train_export"))
    clean = olive(tmp_path, "digits_torch_train_export", *passes, packages=packages)
    assert "Dropout" not in operators(clean)
    assert len(clean.graph.node) < len(source.graph.node) / 2
    feeds = {"image": zoo.record("digits_torch").images}
    logits = sd.session(clean).run(None, feeds)[0]
    np.testing.assert_allclose(logits, zoo.record("digits_torch").logits, atol=1e-4)


def test_fuse_and_monte_carlo(tmp_path: Path) -> None:
    passes = {"type": "SpatialDropoutFuse"}, {"type": "SpatialDropoutMonteCarlo", "samples": 3}
    made = olive(tmp_path, "digits_torch_train_export", *passes)
    wanted = sd.monte_carlo(sd.fuse(onnx.load(zoo.path("digits_torch_train_export"))), samples=3)
    assert [each.name for each in made.graph.output] == [each.name for each in wanted.graph.output]
    feeds = {"image": zoo.record("digits_torch").images[:4]}
    for mine, theirs in zip(*(sd.session(model).run(None, feeds) for model in (made, wanted)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("kind", ["pass", "surgeon"])
def test_options_arrive(kind: str, tmp_path: Path) -> None:
    options = {"target": "openvino", "form": "uniform"}
    surgeries = [{"surgeon": "ExpandSpatialDropout", **options}]
    given = {"type": "SpatialDropoutExpand", **options} if kind == "pass" else None
    expanded = olive(tmp_path, "digits_torch", given or {"type": "GraphSurgeries", "surgeries": surgeries})
    wanted = sd.expand(onnx.load(zoo.path("digits_torch")), **options)
    assert sorted(operators(expanded)) == sorted(operators(wanted))
    assert not {tensor.name for tensor in expanded.graph.initializer} & {"training_mode", "step"}


def test_the_file_names_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Without Olive: the module is read, not imported."""
    assert main(["olive"]) == 0
    file = Path(capsys.readouterr().out.strip())
    module = file.with_name("olive.py").read_text()
    named = {each["module_path"] for each in json.loads(file.read_text())["passes"].values()}
    assert {OWN + name for name in ("SpatialDropoutToInference", "SpatialDropoutMonteCarlo", "GraphSurgeries")} <= named
    assert all(path.startswith(OWN) and f'"{path[len(OWN) :]}",' in module for path in named)
