"""The tutorial's code runs, block by block, in one interpreter."""

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_tutorials_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "montecarlo.md").read_text(), re.DOTALL)
    assert len(blocks) >= 7
    (tmp_path / "models").mkdir()
    for name in ("digits_torch.onnx", "digits_torch.npz"):
        shutil.copy(ROOT / "models" / name, tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert names["draws"].shape[0] == 31
    assert (tmp_path / "mc.onnx").exists()
