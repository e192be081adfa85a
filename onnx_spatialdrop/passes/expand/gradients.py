"""Write nodes so that onnxruntime-training finds their gradient, and the right one, where it does not by itself.

It knows nothing of dropout: the nodes compute what they did.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.graph import replace
from onnx_spatialdrop.graph.build import NodeBuilder
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.operator import node as op

__all__ = ["GradientsPass"]

#: Recurrent layers -> their inputs that hold initial states.
_STATES: Final = {"LSTM": (5, 6), "GRU": (5,)}


class GradientsPass(ir.passes.InPlacePass):
    """Rewrite nodes of the graph for onnxruntime-training; ``said`` holds one line for each kind.

    1. BatchNormalization in inference mode becomes arithmetic on its statistics. Training would normalise by
       the batch while training and never update the statistics: the trained weights would not fit the inference model.
    2. LSTM and GRU without initial states get zeros, which is what leaving them out means; without them the inputs of
       the gradient are counted wrongly, and the graph is refused.
    3. All else stays. A model without such nodes is not modified.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        self.said = []
        found = [node for node in model.graph if node.domain == ""]
        norms = [node for node in found if node.op_type == "BatchNormalization" and _infers(node)]
        layers = [node for node in found if node.op_type in _STATES and not _has_states(node)]
        if norms or layers:
            ranks, names = _ranks(model, norms), Names(model)
            for node, rank in zip(norms, ranks, strict=True):
                _write_out(node, rank, names)  # case 1
            for node in layers:
                _add_states(node, names)  # case 2
        if norms:
            self.said.append(f"batch norm written out in {len(norms)} places: training would use the batch's numbers")
        if layers:
            self.said.append(f"initial states of zeros given to {len(layers)} recurrent layers: no gradient without")
        return ir.passes.PassResult(model, modified=bool(self.said))  # case 3


def _infers(node: ir.Node) -> bool:
    return node.attributes.get_int("training_mode", 0) == 0 and all(not each.uses() for each in node.outputs[1:])


def _has_states(node: ir.Node) -> bool:
    return any(len(node.inputs) > index and node.inputs[index] is not None for index in _STATES[node.op_type])


def _ranks(model: ir.Model, norms: list[ir.Node]) -> list[int]:
    """Return the rank of each node's input; where the file does not say, as shape inference finds it on a copy."""
    shapes = [node.inputs[0].shape if node.inputs[0] is not None else None for node in norms]
    if any(shape is None for shape in shapes):
        copy = model.clone()
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False).call(copy)
        inferred = {each.name: each.shape for node in copy.graph for each in node.inputs if each is not None}
        shapes = [inferred.get(node.inputs[0].name) if node.inputs[0] is not None else None for node in norms]
    for node, shape in zip(norms, shapes, strict=True):
        if shape is None:
            raise FormError(
                f"{op.describe(node)}: the rank of its input is unknown, and onnxruntime-training would train on the "
                "batch's statistics instead of the model's; give the model's inputs shapes"
            )
    return [len(shape) for shape in shapes if shape is not None]


def _write_out(node: ir.Node, rank: int, names: Names) -> None:
    x, scale, bias, mean, variance = node.inputs[:5]
    y, graph = node.outputs[0], node.graph
    assert graph is not None
    group = NodeBuilder(names.prefix(f"{y.name or node.name}/batch_norm"), {})
    dtype = np.dtype(np.float32) if variance is None or variance.dtype is None else variance.dtype.numpy()
    epsilon = group.constant(np.array(node.attributes.get_float("epsilon", 1e-5), dtype), "epsilon")
    # One element a channel, and as many axes after it as X has.
    channels = group.constant(np.array([-1, *[1] * (rank - 2)], np.int64), "channels")
    deviation = group.add("Sqrt", group.add("Add", variance, epsilon, role="variance"), role="deviation")
    factor = group.add("Reshape", group.add("Div", scale, deviation, role="factor"), channels, role="factors")
    centre, offset = (group.add("Reshape", v, channels, role=role) for v, role in ((mean, "means"), (bias, "offsets")))
    scaled = group.add("Mul", group.add("Sub", x, centre, role="centred"), factor, role="scaled")
    result = group.add("Add", scaled, offset, role="shifted")
    graph.insert_before(node, group.nodes)
    replace.take_over(y, result)
    graph.remove(node, safe=True)


def _add_states(node: ir.Node, names: Names) -> None:
    x, recurrence, graph = node.inputs[0], node.inputs[2], node.graph
    assert x is not None
    assert recurrence is not None
    assert graph is not None
    group = NodeBuilder(names.prefix(f"{node.outputs[0].name or node.name}/state"), {})
    # X is (steps, samples, features), or with layout 1 (samples, steps, features); R is (directions, gates, hidden).
    by_sample = node.attributes.get_int("layout", 0) == 1
    zero, one, two, three = (group.constant(np.array([n], np.int64), f"number_{n}") for n in range(4))
    sizes = group.add("Shape", x, role="sizes")
    samples = group.add("Slice", sizes, *((zero, one) if by_sample else (one, two)), role="samples")
    gates = group.add("Shape", recurrence, role="gates")
    directions = group.add("Slice", gates, zero, one, role="directions")
    hidden = group.add("Slice", gates, two, three, role="hidden")
    order = (samples, directions, hidden) if by_sample else (directions, samples, hidden)
    shape = group.add("Concat", *order, role="shape", axis=0)
    dtype = np.dtype(np.float32) if x.dtype is None else x.dtype.numpy()
    zeros = group.add("ConstantOfShape", shape, role="zeros", value=ir.tensor(np.zeros(1, dtype)))
    graph.insert_before(node, group.nodes)
    node.resize_inputs(max(len(node.inputs), _STATES[node.op_type][-1] + 1))
    for index in _STATES[node.op_type]:
        node.replace_input_with(index, zeros)
