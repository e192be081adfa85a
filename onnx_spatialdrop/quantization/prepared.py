"""The file that ONNX Runtime's quantiser is given: dropout as nodes, batch norms folded, no switch with a default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx_ir as ir
import onnx_ir.passes.common

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.errors import FormError, SpecError
from onnx_spatialdrop.graph import controls, scopes
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.attach import AttachPass
from onnx_spatialdrop.quantization.reader import drawing
from onnx_spatialdrop.runtime.session import quiet_options

__all__ = ["Prepared", "finish", "prepare"]

#: Operators whose weights are quantised; the last of them before an output decides about its precision.
_WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_QUANTIZED: Final = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
#: What ONNX Runtime's quantiser looks for in a model that its quant_pre_process has prepared.
_PREPARED: Final = "onnx.quant.pre_process"
_PREPARED_BY: Final = "onnxruntime.quant"


@dataclass(frozen=True)
class Prepared:
    """What is known of a prepared file.

    Attributes:
        defaults: the defaults that switches had, by name.
        heads: the nodes between each output and the last weights before it, those that hold these included.
        nodes: the names of all nodes of the main graph.
    """

    defaults: dict[str, ir.TensorProtocol]
    heads: list[str]
    nodes: frozenset[str]

    def named(self, names: Iterable[str], option: str) -> list[str]:
        """Return names of nodes that somebody gave, if there are such nodes."""
        given = arguments.strings(names, option)
        missing = [name for name in given if name not in self.nodes]
        if missing:
            raise SpecError(
                f"{option} names {missing[0]!r}, and there is no such node once batch norms and constants are folded; "
                f"there are {', '.join(sorted(self.nodes))}"
            )
        return given


def prepare(model: io.Source, file: Path) -> Prepared:
    """Write ``model`` to ``file`` as the quantiser needs it, with weights beside it where they were outside.

    Raises:
        SpecError: no dropout is in the model, nothing switches it on, or the model is quantised already.
        FormError: the opset cannot be converted, or ONNX Runtime cannot load the model.
        ModelFileError: a file that cannot be read.
    """

    def make(working: ir.Model) -> dict[str, ir.TensorProtocol]:
        _refuse_quantized(working)
        switches = drawing(working)
        names = Names(working)
        for node in working.graph:
            node.name = node.name or names.prefix(node.op_type)
        AttachPass().call(working)
        # Calibration feeds switches, and ONNX Runtime warns of inputs with a default.
        defaults = {value.name or "": value.const_value for value in switches if value.const_value is not None}
        controls.require(working.graph, switches)
        return defaults

    made, defaults = io.rewrite(model, None, make)
    assert not isinstance(made, Path)
    io.save(made, file)
    folded = _folded(file)
    folded.metadata_props[_PREPARED] = _PREPARED_BY
    for value in folded.graph.initializers.values():
        # Else onnx_ir writes value_info of weights, which ONNX Runtime 1.20 keeps for weights that it has transposed.
        value.shape = None
    io.save(folded, file)
    return Prepared(defaults, _heads(folded.graph), frozenset(node.name or "" for node in folded.graph))


def finish(model: ir.Model, defaults: dict[str, ir.TensorProtocol]) -> None:
    """Give switches their defaults back, in place, and take out what preparing has left."""
    for value in model.graph.inputs:
        if (tensor := defaults.get(value.name or "")) is not None:
            value.const_value = tensor
            model.graph.register_initializer(value)
    model.metadata_props.pop(_PREPARED, None)
    AttachPass().call(model)
    ir.passes.common.RemoveUnusedOpsetsPass()(model)


def _refuse_quantized(model: ir.Model) -> None:
    """Refuse what is quantised in part: ONNX Runtime's quantiser may not come back from it."""
    for node in scopes.all_nodes(model):
        if node.op_type in _QUANTIZED and node.domain in ("", "com.microsoft"):
            raise SpecError(
                f"the model is quantised already, at {op.describe(node)}; give the model in floating point that it was "
                "made of"
            )


def _folded(file: Path) -> ir.Model:
    """Return a file's model with batch norms and constants folded by ONNX Runtime, as its quant_pre_process does it.

    Not by that, since its session has no kernel for the nodes, and would write their bodies out.
    """
    import onnxruntime

    if native.missing_reason() is not None:
        return io.load(file)
    options = quiet_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    folded = file.with_name("folded.onnx")
    options.optimized_model_filepath = str(folded)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{folded.name}.data")
    native.register(options)
    try:
        onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # each of ONNX Runtime's errors is a class of its own
        raise FormError(f"ONNX Runtime cannot load the model: {io.first_line(error)}") from error
    model = io.load(folded)
    AttachPass().call(model)
    return model


def _heads(graph: ir.Graph) -> list[str]:
    found: dict[ir.Node, None] = {}
    pending = list(graph.outputs)
    while pending:
        node = pending.pop().producer()
        if node is None or node in found or op.is_spatial_dropout(node):
            continue
        found[node] = None
        if node.op_type not in _WEIGHTED:
            pending += [value for value in node.inputs if value is not None]
    return [node.name or "" for node in found]
