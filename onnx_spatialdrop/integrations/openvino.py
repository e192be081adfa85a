"""OpenVINO reads SpatialDropout nodes as they stand in a file. What a node becomes is expand's business."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import onnx_ir as ir

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.graph.controls import STEP, TRAINING_MODE
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.expand import ExpandPass

__all__ = ["extension"]

_LOG: Final = logging.getLogger("onnx_spatialdrop")

#: What OpenVINO calls the types: the first four are X's.
_TYPES: Final = {
    "f16": ir.DataType.FLOAT16,
    "bf16": ir.DataType.BFLOAT16,
    "f32": ir.DataType.FLOAT,
    "f64": ir.DataType.DOUBLE,
    "boolean": ir.DataType.BOOL,
    "i64": ir.DataType.INT64,
}
_ATTRIBUTES: Final[dict[str, Callable[..., ir.Attr]]] = {
    "axes": ir.AttrInt64s,
    "ratio": ir.AttrFloat32,
    "seed": ir.AttrInt64,
    "scale": ir.AttrFloat32,
    "rng": ir.AttrString,
    "strata": ir.AttrInt64,
}
#: The first opset with all that expand(target="openvino") writes; OpenVINO's own operators know no opset of ONNX.
_OPSET: Final = 18


def extension() -> Any:
    """Return what makes OpenVINO read SpatialDropout nodes: ``core.add_extension(extension())``.

    Give it to ``openvino.convert_model(path, extension=[extension()])`` as well. A node becomes the operators of
    expand(target="openvino"), with the operator's own bits for steps in [0, 2**31), and fresh draws for -1. They are
    OpenVINO's own: ``openvino.save_model`` writes them, and whoever reads that file needs no extension.

    OpenVINO takes an input that has a default for a constant. So the switches have to come without, as
    ``attach(model, defaults=False)`` writes them; else dropout is off for good, of which a warning is logged to
    "onnx_spatialdrop".

    Returns:
        An ``openvino.frontend.onnx.ConversionExtension``.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    from openvino.frontend.onnx import ConversionExtension

    return ConversionExtension(spec.OP_TYPE, spec.DOMAIN, _convert)


def _convert(context: Any) -> list[Any]:
    """Return OpenVINO's outputs for Y and the mask of a node; what is raised becomes part of OpenVINO's error."""
    import openvino

    inputs = [context.get_input(place) for place in range(context.get_input_size())]
    if len(inputs) != 3:
        raise SpecError(f"SpatialDropout has {len(inputs)} inputs; it takes X, training_mode and step")
    training = inputs[1].get_node()
    constant = training.data.reshape(()) if training.get_type_name() == "Constant" else None
    if constant is not None and not constant:
        _LOG.warning(
            "OpenVINO reads a SpatialDropout whose training_mode is constantly false: it drops nothing. OpenVINO takes "
            "an input with a default for a constant; attach(model, defaults=False) leaves the default out"
        )
    model = _model_of(context, inputs, constant)
    written = openvino.Core().read_model(ir.to_proto(model).SerializeToString())
    for node in written.get_ordered_ops():
        for output in node.outputs():
            output.get_tensor().set_names(set())  # two nodes must not name their values alike
    given = dict(zip(("x", TRAINING_MODE, STEP), inputs, strict=True))
    names = [value.name or "" for value in model.graph.inputs]
    for name, parameter in zip(names, written.get_parameters(), strict=True):
        for target in parameter.output(0).get_target_inputs():
            target.replace_source_output(given[name])
    return [result.input_value(0) for result in written.get_results()]


def _model_of(context: Any, inputs: Sequence[Any], training: Any) -> ir.Model:
    """Return a model of the node alone, expanded; a training_mode that is constant is no input of it."""
    kinds = (inputs[0].get_element_type().to_string(), "boolean", "i64")
    if kinds[0] not in _TYPES:
        raise SpecError(f"SpatialDropout: X has OpenVINO's type {kinds[0]}; allowed: {', '.join([*_TYPES][:4])}")
    values = [
        ir.val(name, _TYPES[kind], _dims(name, value.get_partial_shape()))
        for name, kind, value in zip(("x", TRAINING_MODE, STEP), kinds, inputs, strict=True)
    ]
    given = [
        make(name, context.get_attribute(name)) for name, make in _ATTRIBUTES.items() if context.has_attribute(name)
    ]
    node = ir.Node(spec.DOMAIN, spec.OP_TYPE, values, given, num_outputs=2)
    for output, name in zip(node.outputs, ("y", "mask"), strict=True):
        output.name = name
    graph = ir.Graph(values, node.outputs, nodes=[node], opset_imports={"": _OPSET, spec.DOMAIN: 1}, name="node")
    if training is not None:
        values[1].const_value = ir.tensor(training, name=TRAINING_MODE)
        graph.register_initializer(values[1])
        graph.inputs.remove(values[1])
    model = ir.Model(graph, ir_version=9)
    ExpandPass(target="openvino")(model)
    return model


def _dims(name: str, shape: Any) -> list[int | str] | None:
    """Return a shape of OpenVINO's, open dimensions under names."""
    if shape.rank.is_dynamic:
        return None
    return [dim.get_length() if dim.is_static else f"{name}_{axis}" for axis, dim in enumerate(shape)]
