"""Move a model to another version of ONNX's default operator set. It changes versions, and no meaning.

onnx's own converter does the work; what it loses on the way is kept out of its reach.
"""

from __future__ import annotations

from typing import Any, Final

import onnx
import onnx.shape_inference
import onnx_ir as ir
from onnx import version_converter
from onnx_ir.passes.common import InlinePass

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.attach import DetachPass
from onnx_spatialdrop.versions import older

__all__ = ["InlineFunctionsPass", "OpsetPass"]

#: Initializers over this many bytes are not shown to the converter, which looks at axes and shapes only.
_LARGE: Final = 1024
#: The first onnx whose converter ends no process with SIGSEGV, and knows how to go back from opset 19.
_FIRST_CONVERTER: Final = "1.21"
#: What onnx raises for a model that it does not understand or cannot convert.
_CANNOT: Final = (
    RuntimeError,
    ValueError,
    onnx.shape_inference.InferenceError,
    version_converter.ConvertError,
)


class InlineFunctionsPass(ir.passes.InPlacePass):
    """Write model-local functions out where they are called.

    1. The operator's own body is taken out first, or the SpatialDropout nodes would be written out with it.
    2. A node of a function that is called twice stands in the graph twice, with one seed, as it had it before.
    3. A model without functions is not modified.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        if not model.functions:
            return ir.passes.PassResult(model, modified=False)  # case 3
        DetachPass().call(model)  # case 1
        if model.functions:
            InlinePass().call(model)
        return ir.passes.PassResult(model, modified=True)


class OpsetPass(ir.passes.InPlacePass):
    """Convert the model to one version of ONNX's default operator set.

    1. Functions are written out first: onnx's converter drops them without a word.
    2. Large weights never reach the converter, so they stay where they are, on disk too.
    3. Types, shapes and metadata that the converter forgets are put back by name.
    4. A model that imports the version already is not modified.
    5. Attributes that an operator did not have yet go where they say what was meant without them, which onnx's
       converter leaves undone (ReduceMean's noop_with_empty_axes).
    6. A model that onnx cannot convert is refused, and stays as it is but for case 1.
    """

    def __init__(self, version: int) -> None:
        super().__init__()
        self.version = version

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        before = model.opset_imports.get("", 1)
        if before == self.version:
            return ir.passes.PassResult(model, modified=False)  # case 4
        if older(onnx.__version__, _FIRST_CONVERTER):
            raise FormError(
                f"the model imports opset {before}; to convert it to {self.version} takes onnx "
                f"{_FIRST_CONVERTER} or newer, since older converters may end the process; this is {onnx.__version__}: "
                "run 'pip install -U onnx'"
            )
        InlineFunctionsPass().call(model)  # case 1
        stripped, large = _without_large(model)
        try:
            converted = version_converter.convert_version(ir.to_proto(stripped), self.version)
        except _CANNOT as error:
            reason = str(error).strip().splitlines()[0].split("failed: ")[-1]
            raise FormError(
                f"the model imports opset {before}, and onnx cannot convert it to {self.version} ({reason}); "
                f"export it at opset {self.version}"
            ) from error
        result = ir.from_proto(converted)
        try:
            _drop_newer_attributes(result, before, self.version)
        except onnx.defs.SchemaError as error:
            raise FormError(
                f"the model imports opset {before}, and not all of its nodes exist there: {error}"
            ) from error
        _take_over(model, result, large)
        return ir.passes.PassResult(model, modified=True)


def _without_large(model: ir.Model) -> tuple[ir.Model, dict[str, Any]]:
    """Return a copy in which large initializers are inputs, and their tensors."""
    copy, large = model.clone(), dict[str, Any]()
    for name, value in list(copy.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None:
            continue
        if tensor.nbytes <= _LARGE:
            if isinstance(tensor, ir.ExternalTensor):
                value.const_value = ir.tensor(tensor.numpy().copy(), name=name)
            continue
        large[name] = tensor
        del copy.graph.initializers[name]
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        value.const_value = None
        if value not in copy.graph.inputs:
            copy.graph.inputs.append(value)
    return copy, large


def _drop_newer_attributes(model: ir.Model, before: int, version: int) -> None:
    for node in model.graph.all_nodes():
        if node.domain != "" or not onnx.defs.has(node.op_type, version, ""):
            continue
        known = onnx.defs.get_schema(node.op_type, version, "").attributes
        newer = onnx.defs.get_schema(node.op_type, before, "").attributes
        for name in [name for name in node.attributes if name not in known]:
            given = ir.to_proto(node.attributes[name]).SerializeToString(deterministic=True)
            is_default = name in newer and newer[name].default_value.SerializeToString(deterministic=True) == given
            # It is about empty axes, and these are none: tf2onnx writes 1 on every reduction.
            is_idle = name == "noop_with_empty_axes" and "axes" in node.attributes and node.attributes["axes"].value
            if not (is_default or is_idle):
                raise FormError(
                    f"{op.describe(node)}: {node.op_type} has no attribute {name} at opset {version}, "
                    f"and its value means something; export the model at opset {version}"
                )
            del node.attributes[name]  # case 5


def _take_over(model: ir.Model, converted: ir.Model, large: dict[str, Any]) -> None:
    old, new = model.graph, converted.graph
    inputs = {value.name for value in old.inputs}
    for value in list(new.inputs):
        if value.name in large:
            value.const_value = large[value.name or ""]
            new.register_initializer(value)
            if value.name not in inputs:
                new.inputs.remove(value)
    for name, value in new.initializers.items():
        known = old.initializers.get(name)
        if known is not None and isinstance(known.const_value, ir.ExternalTensor):
            value.const_value = known.const_value  # case 2, for small ones
    values = {output.name: output for node in old.all_nodes() for output in node.outputs}
    nodes = {node.name: node for node in old.all_nodes() if node.name}
    for node in new.all_nodes():  # case 3
        before = nodes.get(node.name or "")
        if before is not None and before.op_identifier() == node.op_identifier():
            node.metadata_props.update(before.metadata_props)
            node.doc_string = before.doc_string
        for output in node.outputs:
            like = values.get(output.name or "")
            if like is not None:
                output.type, output.shape = output.type or like.type, output.shape or like.shape
    new.metadata_props.update(old.metadata_props)
    model.graph = new
