"""Measure fuse on 100,000 nodes with 10,000 patterns, against loading and saving the same file with onnx-ir.

Run ``python benchmarks/fuse.py``; it prints one table. The limit that the project set itself is twice load + save.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from onnx_spatialdrop.passes.fuse import FusePass

Dims = list[str | int]


def torch_style(patterns: int, plain: int, typed: bool) -> onnx.ModelProto:
    """Return a chain of ``patterns`` channel dropouts, each followed by ``plain`` Relu nodes, as torch writes them."""
    nodes, infos, x = list[onnx.NodeProto](), list[onnx.ValueInfoProto](), "x"
    small: Dims = ["n", 4, 1, 1]
    large: Dims = ["n", 4, 5, 6]

    def node(op_type: str, inputs: list[str], output: str, shape: Dims | None, **attributes: object) -> None:
        nodes.append(helper.make_node(op_type, inputs, [output], name=f"node_{output}", **attributes))
        if typed and shape is not None:
            infos.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))

    for i in range(patterns):
        node("Shape", [x], f"batch{i}", None, start=0, end=1)
        node("Concat", [f"batch{i}", "c", "one", "one"], f"shape{i}", None, axis=0)
        node("ConstantOfShape", [f"shape{i}"], f"zeros{i}", small)
        node("RandomUniformLike", [f"zeros{i}"], f"rand{i}", small, low=0.0, high=1.0)
        node("Less", [f"rand{i}", "keep"], f"less{i}", None)
        node("Cast", [f"less{i}"], f"mask{i}", small, to=TensorProto.FLOAT)
        node("Div", [f"mask{i}", "keep"], f"scaled{i}", small)
        node("Mul", [x, f"scaled{i}"], f"y{i}", large)
        x = f"y{i}"
        for j in range(plain):
            node("Relu", [x], f"relu{i}_{j}", large)
            x = f"relu{i}_{j}"
    constants = {"c": np.array([4]), "one": np.array([1]), "keep": np.array(0.8, np.float32)}
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, large)],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, large)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
        value_info=infos[:-1],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def measure(name: str, model: onnx.ModelProto, folder: Path) -> None:
    """Print how long loading, fusing and saving take."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    start = time.perf_counter()
    loaded = ir.load(path)
    read = time.perf_counter()
    ir.save(loaded, folder / "out.onnx")
    written = time.perf_counter()
    rewriter = FusePass()
    rewriter.call(loaded)
    fused = time.perf_counter()
    row = (name, len(model.graph.node), len(rewriter.report.fused), f"{written - start:.2f} s", f"{read - start:.2f} s")
    ratio = (fused - written) / (written - start)
    print("|", " | ".join(map(str, row)), f"| {fused - written:.2f} s | {ratio:.2f} |", flush=True)


def main() -> None:
    """Measure all models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patterns", type=int, default=10_000)
    patterns = parser.parse_args().patterns
    print("| model | nodes | fused | load + save | load | fuse | fuse / (load + save) |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        measure("with shapes", torch_style(patterns, 2, typed=True), Path(folder))
        measure("without shapes", torch_style(patterns, 2, typed=False), Path(folder))
        measure("directly in series", torch_style(patterns, 0, typed=True), Path(folder))
        plain = torch_style(1, 10 * patterns - 8, typed=True)
        del plain.graph.node[:8]
        plain.graph.node[0].input[0] = "x"
        measure("no dropout", plain, Path(folder))


if __name__ == "__main__":
    main()
