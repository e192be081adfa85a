"""Weights of 3 GB beside a model: no verb holds them in memory."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
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


def big_model(placed: str, folder: Path) -> str:
    """Write a model with three tensors of 1 GiB; each begins and ends with its own bytes, and is empty in between.

    Sparse files stand for the weights: their size is real to every reader, and no disk is filled.
    """
    model = dropout_ir(mask=False)
    with open(folder / "big.data", "wb") as sparse:
        sparse.truncate(3 << 30)
        for index in range(3):
            for place in (index << 30, (index + 1 << 30) - 8):
                sparse.seek(place)
                sparse.write(bytes([index + 1] * 8))
    for index in range(3):
        shape, name = ir.Shape([1 << 28]), f"w{index}"
        tensor = ir.ExternalTensor(
            "big.data", index << 30, 1 << 30, ir.DataType.FLOAT, shape=shape, name=name, base_dir=folder
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
    return os.fspath(sd.save(model, folder / "big.onnx"))


def peak(lines: list[list[str]]) -> int:
    """Run command lines in one process; return its peak memory in KiB."""
    command = [sys.executable, "-c", _ALL]
    given = "\n".join(map("|".join, lines))
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1])


@pytest.mark.parametrize("placed", ["initializers", "attributes"])
def test_every_verb_passes_3_gb_through_in_little_memory(placed: str, tmp_path: Path) -> None:
    file, out = big_model(placed, tmp_path), os.fspath(tmp_path / "out.onnx")
    reading = [[verb[0], file, *verb[1:]] for verb in contract.READING]
    rewriting = [[verb[0], file, out, *verb[1:]] for verb in contract.REWRITING]
    assert peak([*reading, *rewriting]) < 200 * 1024
    assert sorted(os.listdir(tmp_path)) == ["big.data", "big.onnx", "out.onnx"]


@pytest.fixture
def away(tmp_path: Path) -> Iterator[Path]:
    """Make a folder that is empty again afterwards: copies are not sparse."""
    folder = tmp_path / "away"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("placed", ["initializers", "attributes"])
@pytest.mark.parametrize("verb", [("to-inference",), ("expand", "--form", "philox-int32"), ("attach",)])
def test_a_copy_of_3_gb_in_another_folder_takes_little_memory(
    placed: str, verb: tuple[str, ...], tmp_path: Path, away: Path
) -> None:
    """Weights are copied where the output is in another folder, byte by byte, into one file beside it."""
    home = tmp_path / "home"
    home.mkdir()
    file, out = big_model(placed, home), away / "out.onnx"
    assert peak([[verb[0], file, os.fspath(out), *verb[1:]]]) < 200 * 1024
    assert sorted(os.listdir(home)) == ["big.data", "big.onnx"]
    (data,) = away.glob("out.onnx.*.data")
    assert sorted(os.listdir(away)) == sorted(["out.onnx", data.name])
    assert data.stat().st_size == 3 << 30
    shutil.rmtree(home)  # the copy stands alone
    graph = onnx.load(out, load_external_data=False).graph
    tensors = [*graph.initializer, *(attribute.t for node in graph.node for attribute in node.attribute)]
    places = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in tensors
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    assert sorted(places) == ["w0", "w1", "w2"]
    with open(data, "rb") as copied:
        for index in range(3):
            place = places[f"w{index}"]
            assert (place["location"], int(place["length"])) == (data.name, 1 << 30)
            for offset in (0, (1 << 30) - 8):
                copied.seek(int(place["offset"]) + offset)
                assert copied.read(8) == bytes([index + 1] * 8)
