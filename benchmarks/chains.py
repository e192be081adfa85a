"""Long chains of dropout, for measurements."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["PLAIN", "chain"]

#: How many other nodes stand before each dropout.
PLAIN: Final = 9
Dims = list[str | int | None]


def chain(drops: int, kind: str) -> onnx.ModelProto:
    """Return dropouts in a row, each after PLAIN Relu nodes: "spatial", or "off" or "on" for ONNX's Dropout."""
    nodes, infos, x = list[onnx.NodeProto](), list[onnx.ValueInfoProto](), "x"
    dims: Dims = ["N", 4, 5, 6]
    for i in range(drops):
        for j in range(PLAIN):
            nodes.append(helper.make_node("Relu", [x], [f"r{i}_{j}"], name=f"node_r{i}_{j}"))
            x = f"r{i}_{j}"
            infos.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, dims))
        nodes.append(_dropout(i, x, kind))
        x = f"d{i}"
        infos.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, dims))
    nodes.append(helper.make_node("Relu", [x], ["y"], name="last"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)]
    mode = numpy_helper.from_array(np.array(kind == "on"), "training_mode")
    other = numpy_helper.from_array(np.array(0.25, np.float32), "ratio")
    if kind == "spatial":
        other = numpy_helper.from_array(np.array([-1]), "step")
        inputs.append(helper.make_tensor_value_info("training_mode", TensorProto.BOOL, []))
        inputs.append(helper.make_tensor_value_info("step", TensorProto.INT64, ["steps"]))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)
    given = [other] if kind == "off" else [mode, other]
    graph = helper.make_graph(nodes, "chain", inputs, [output], given, value_info=infos)
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("onnx_spatialdrop", 1)]
    return helper.make_model(graph, opset_imports=imports[: 2 if kind == "spatial" else 1], ir_version=9)


def _dropout(index: int, x: str, kind: str) -> onnx.NodeProto:
    name = f"node_d{index}"
    if kind != "spatial":
        inputs = [x, "ratio", "training_mode"] if kind == "on" else [x, "ratio"]
        return helper.make_node("Dropout", inputs, [f"d{index}"], name=name)
    given: dict[str, Any] = {"axes": [2, 3], "ratio": 0.25, "seed": index + 1, "scale": 4 / 3, "rng": "philox"}
    inputs, outputs = [x, "training_mode", "step"], [f"d{index}", f"d{index}/mask"]
    return helper.make_node("SpatialDropout", inputs, outputs, name, domain="onnx_spatialdrop", **given)
