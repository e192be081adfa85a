"""Several processes write one file: who reads it meanwhile has one whole model with its own weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx

WRITER = """
import sys
import onnx_spatialdrop as sd
print("ready", flush=True)
sys.stdin.readline()
for _ in range(int(sys.argv[3])):
    sd.attach(sys.argv[1], sys.argv[2])
"""


def source(folder: Path, number: float) -> Path:
    """Write a model whose node is named after the number that all its weights are."""
    folder.mkdir()
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"], name=f"adds {number:g}")
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [200_000]) for name in "xy")
    weight = onnx.numpy_helper.from_array(np.full(200_000, number, np.float32), "w")
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [x], [y], [weight]), opset_imports=[onnx.helper.make_opsetid("", 18)]
    )
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    return folder / "m.onnx"


def whole(file: Path) -> bool:
    """Return whether the model in ``file`` has its own weights."""
    model = onnx.load(file)
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0])
    return bool((weights == float(model.graph.node[0].name.removeprefix("adds "))).all())


def test_readers_see_no_mixture_of_two_writers(tmp_path: Path) -> None:
    out = tmp_path / "out" / "m.onnx"
    out.parent.mkdir()
    sources = [source(tmp_path / str(number), number) for number in (1, 2)]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file), str(out), "25"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for file in sources
    ]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.flush()
    reads = 0
    while any(writer.poll() is None for writer in writers):
        if out.exists():
            assert whole(out)
            reads += 1
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert reads > 10
    assert whole(out)
    assert len(list(out.parent.iterdir())) == 3  # the model, and the weights of both
