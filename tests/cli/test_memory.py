"""Weights of 3 GB beside a model: no verb holds them in memory."""

import os
import subprocess
import sys
from pathlib import Path

import onnx_ir as ir
import pytest
from building import dropout_ir
from fuzz import contract

import onnx_spatialdrop as sd

_ALL = """
import sys
from onnx_spatialdrop.cli import main
for line in sys.stdin.read().splitlines():
    code = main(line.split("|"))
    if code not in (0, 3):
        sys.exit(f"{line}: {code}")
# Not ru_maxrss: a child inherits its parent's.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
"""


@pytest.mark.parametrize("placed", ["initializers", "attributes"])
def test_every_verb_passes_3_gb_through_in_little_memory(placed: str, tmp_path: Path) -> None:
    """Sparse files stand for the weights: their size is real to every reader, and no disk is filled."""
    model = dropout_ir(mask=False)
    data = tmp_path / "big.data"
    with open(data, "wb") as sparse:
        sparse.truncate(3 << 30)
    for index in range(3):
        shape, name = ir.Shape([1 << 28]), f"w{index}"
        tensor = ir.ExternalTensor(
            "big.data", index << 30, 1 << 30, ir.DataType.FLOAT, shape=shape, name=name, base_dir=tmp_path
        )
        if placed == "attributes":
            model.graph.insert_before(
                model.graph[0], ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], name=name)
            )
            model.graph[index].outputs[0].name = name
        else:
            value = ir.Value(name=name, const_value=tensor, shape=shape, type=ir.TensorType(tensor.dtype))
            model.graph.register_initializer(value)
            model.graph.insert_before(model.graph[0], ir.node("Abs", [value], name=f"abs{index}"))
            model.graph[0].outputs[0].name = f"abs{index}"
    file = os.fspath(sd.save(model, tmp_path / "big.onnx"))
    lines = [
        "|".join(
            [verb[0], file, *([os.fspath(tmp_path / "out.onnx")] if verb in contract.REWRITING else []), *verb[1:]]
        )
        for verb in (*contract.READING, *contract.REWRITING)
    ]
    command = [sys.executable, "-c", _ALL]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.splitlines()[-1]) < 200 * 1024  # KiB
    assert sorted(os.listdir(tmp_path)) == ["big.data", "big.onnx", "out.onnx"]
