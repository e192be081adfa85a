"""The committed digits models, for tests: their files, records and sessions, and a view into their nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from installed import HAS_FOLDERS

from onnx_spatialdrop import io
from onnx_spatialdrop.graph.scopes import spatial_dropouts
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.attach import AttachPass

FOLDER = Path(__file__).parents[1] / "models"

#: Model with SpatialDropout nodes -> the record of its framework.
RECORDED = {
    "digits_torch": "digits_torch",
    "digits_keras": "digits_keras",
    "digits_keras_1d": "digits_keras_1d",
    "digits_if": "digits_torch",
    "digits_function": "digits_torch",
    "digits_float16": "digits_float16",
    "digits_external": "digits_torch",
}


def path(name: str) -> Path:
    return FOLDER / f"{name}.onnx"


class Record(NamedTuple):
    """Held-back images as the model takes them, their labels, and the framework's own eval logits."""

    images: np.ndarray
    labels: np.ndarray
    logits: np.ndarray


def record(name: str) -> Record:
    with np.load(FOLDER / f"{RECORDED[name]}.npz") as stored:
        return Record(stored["images"], stored["labels"], stored["logits"])


def feeds(name: str, images: np.ndarray, **switches: Any) -> dict[str, Any]:
    branch = {"monte_carlo": np.array(True)} if name == "digits_if" else {}
    return {"image": images} | branch | {key: np.asarray(value) for key, value in switches.items()}


def attached(name: str) -> ir.Model:
    """Return the model with the function body in it."""
    model = io.load(path(name))
    AttachPass().call(model)
    return model


def session(model: ir.Model) -> ort.InferenceSession:
    """Return a session of plain ONNX Runtime: no kernel of ours."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(FOLDER))
    model = model if HAS_FOLDERS else ir.external_data.load_to_model(model)
    content = ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


class Exposed(NamedTuple):
    """Names of graph outputs that show X, Y and the mask of one node at work."""

    attributes: spec.Attributes
    x: str
    y: str
    mask: str


def expose(model: ir.Model) -> list[Exposed]:
    """Make X, Y and the mask of every node outputs of the model, in place; a function's node once for each call."""
    exposed = []
    for site in spatial_dropouts(model):
        node = site.node
        attributes, values = op.read(node), (node.inputs[0], *node.outputs)
        if isinstance(site.scope, ir.Function):
            rows = _out_of_function(model, site.scope, values)
        elif node.graph is model.graph:
            rows = [values]
        else:
            rows = [_out_of_branch(model, node.graph, values)]
        for row in rows:
            model.graph.outputs.extend(row)
            exposed.append(Exposed(attributes, *(value.name for value in row)))
    return exposed


def _added_output(node: ir.Node, like: ir.Value, name: str) -> ir.Value:
    node.resize_outputs(len(node.outputs) + 1)
    output = node.outputs[-1]
    output.name, output.type = name, like.type
    return output


def _out_of_function(
    model: ir.Model, function: ir.Function, values: tuple[ir.Value, ...]
) -> list[tuple[ir.Value, ...]]:
    """Make the function return X as well; Y and the mask are what it returns already."""
    x = values[0]
    x.type = ir.TensorType(ir.DataType.FLOAT)
    function.outputs.append(x)
    calls = [node for node in model.graph if node.op_identifier() == function.identifier()]
    return [(_added_output(call, x, f"{call.name}/x"), *call.outputs[:2]) for call in calls]


def _out_of_branch(model: ir.Model, branch: ir.Graph, values: tuple[ir.Value, ...]) -> tuple[ir.Value, ...]:
    """Make the values outputs of their branch; the other branch gives zeros of the same shapes in their place."""
    (chosen,) = [node for node in model.graph if node.op_type == "If"]
    (other,) = [a.as_graph() for a in chosen.attributes.values() if a.as_graph() is not branch]
    outputs = []
    for value in values:
        nodes = _zeros_like(value, model.graph.inputs[0])
        other.extend(nodes)
        other.outputs.append(nodes[-1].outputs[0])
        branch.outputs.append(value)
        outputs.append(_added_output(chosen, value, f"{value.name}/out"))
        outputs[-1].shape = value.shape
    return tuple(outputs)


def _zeros_like(value: ir.Value, image: ir.Value) -> list[ir.Node]:
    """Return nodes that compute zeros of the shape of ``value``, whose first dimension is that of ``image``."""
    batch = ir.node("Shape", [image], {"start": 0, "end": 1})
    inner = ir.node("Constant", [], {"value_ints": [int(size) for size in value.shape[1:]]})
    shape = ir.node("Concat", [*batch.outputs, *inner.outputs], {"axis": 0})
    zeros = ir.node("ConstantOfShape", shape.outputs, {"value": ir.tensor(np.zeros(1, value.dtype.numpy()))})
    for node, role in ((batch, "batch"), (inner, "inner"), (shape, "shape"), (zeros, "none")):
        node.outputs[0].name = f"{value.name}/{role}"
    zeros.outputs[0].type, zeros.outputs[0].shape = value.type, value.shape
    return [batch, inner, shape, zeros]
