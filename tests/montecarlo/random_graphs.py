"""Random graphs with dropout in them, for the proof of the batch axis: some treat samples one by one, many do not.

The oracle is running: whole runs with a step a sample are what draws laid behind each other have to equal.
"""

from __future__ import annotations

import numpy as np
import onnx
from montecarlo.growing import ROWS, Array, Graph
from montecarlo.random_layers import LAYERS
from montecarlo.random_views import VIEWS
from onnx import TensorProto, helper, numpy_helper

MAKERS = (*VIEWS, *LAYERS)


def random_model(seed: int) -> onnx.ModelProto:
    """Return a model ``x`` [N, ...] -> ``y`` with one to three SpatialDropout nodes and three to eight other steps."""
    rng = np.random.default_rng(seed)
    g = Graph(rng)
    shape = (ROWS, *(int(size) for size in rng.integers(2, 5, int(rng.integers(1, 4)))))
    g.shapes["x"] = shape
    steps = int(rng.integers(3, 9))
    drops = {int(at) for at in rng.integers(0, steps, int(rng.integers(1, 4)))}
    value = "x"
    for step in range(steps):
        if step in drops:
            value = g.drop(value)
        made = MAKERS[int(rng.integers(0, len(MAKERS)))](g, value)
        if 1 <= len(g.shapes[made]) <= 5 and 0 < np.prod(g.shapes[made]) < 4000:
            value = made
    y = g.op("Identity", value, shape=g.shapes[value])
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape[1:]]),
        helper.make_tensor_value_info("training_mode", TensorProto.BOOL, []),
        helper.make_tensor_value_info("step", TensorProto.INT64, ["steps"]),
    ]
    output = onnx.ValueInfoProto(name=y)
    output.type.tensor_type.elem_type = TensorProto.FLOAT
    switches = [numpy_helper.from_array(np.array(False), "training_mode")]
    switches.append(numpy_helper.from_array(np.array([-1], np.int64), "step"))
    graph = helper.make_graph(g.nodes, "random", inputs, [output], g.weights + switches)
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("onnx_spatialdrop", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def feed(model: onnx.ModelProto, seed: int) -> Array:
    """Return values for ``x``."""
    dims = [dim.dim_value or ROWS for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(seed).standard_normal(dims).astype(np.float32)
