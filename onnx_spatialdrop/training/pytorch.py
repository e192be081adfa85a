"""SpatialDropout nodes in onnx2torch: imported as PyTorch's feature dropout over the node's axes, and weights back.

It needs torch and onnx2torch, which are imported with it. Draws are PyTorch's own: the distribution is the operator's,
the bits are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.errors import TrainerError
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.expand.trainers import TrainerPass
from onnx_spatialdrop.training.parameters import chosen, in_memory, trainable

try:
    import onnx2torch
    import torch
    from onnx2torch.node_converters import registry
    from onnx2torch.onnx_graph import OnnxGraph, ValueType
    from onnx2torch.onnx_node import OnnxNode
    from onnx2torch.utils.common import OperationConverterResult, onnx_mapping_from_node
    from torch import nn
except ImportError as error:
    raise TrainerError(
        f"training with PyTorch needs onnx2torch and torch ({error}); 'pip install onnx_spatialdrop[onnx2torch]'"
    ) from error

__all__ = ["SpatialDropout", "convert", "register", "weights"]


class SpatialDropout(nn.Module):
    """Dropout of whole slices along any axes: on in ``train()``, off in ``eval()``.

    For ``axes`` = (2, 3) of an NCHW tensor it is torch.nn.Dropout2d, mask for mask under one ``torch.manual_seed``. A
    dropped value is 0 even where it was NaN or infinite.

    Args:
        axes: the axes along which one mask entry is shared; negatives count from the end, () is element-wise.
        ratio: fraction dropped, in [0, 1].
        scale: what kept values are multiplied by; 0 means 1 / (1 - ratio).
        switched: ``forward`` has to be told ``training_mode`` = true as well, because the graph computes it.
    """

    def __init__(self, axes: Sequence[int], ratio: float, scale: float = 0.0, *, switched: bool = False) -> None:
        super().__init__()
        self.attributes = spec.Attributes(tuple(axes), ratio, 0, scale)
        self.switched = switched

    def forward(
        self, x: torch.Tensor, training_mode: torch.Tensor | None = None, step: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x with slices dropped, and the mask (true: kept), of x's shape with ``axes`` set to 1."""
        del step  # PyTorch's generator has a state of its own
        axes, ratio = self.attributes.axes, _as_written(self.attributes.ratio)
        shared = spec.normalize_axes(axes, x.dim(), "SpatialDropout")
        shape = [1 if axis in shared else size for axis, size in enumerate(x.shape)]
        on = self.training and (not self.switched or training_mode is None or bool(training_mode.all()))
        if not on:
            return x, torch.ones(shape, dtype=torch.bool, device=x.device)
        # Drawn as torch's feature_dropout does, in x's type, so that one seed gives both the same mask.
        mask = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1.0 - ratio).bool()
        if ratio == 1.0:
            return torch.zeros_like(x) * 1.0, mask
        scale = self.attributes.scale or 1.0 / (1.0 - ratio)
        return torch.where(mask, x * scale, torch.zeros((), dtype=x.dtype, device=x.device)), mask

    def extra_repr(self) -> str:
        """Return the attributes as repr shows them."""
        return f"axes={list(self.attributes.axes)}, ratio={_as_written(self.attributes.ratio)}"


def _as_written(ratio: float) -> float:
    """Return the double that people mean by a float32 ratio: 0.3, and not 0.30000001192092896."""
    return float(str(np.float32(ratio)))


def _import_node(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
    attributes = node.attributes
    switched = len(node.input_values) > 1 and graph.value_type(node.input_values[1]) in (
        ValueType.GRAPH_INPUT,
        ValueType.NODE_OUTPUT,
    )
    module = SpatialDropout(attributes["axes"], attributes["ratio"], attributes.get("scale", 0.0), switched=switched)
    return OperationConverterResult(torch_module=module, onnx_mapping=onnx_mapping_from_node(node))


def register() -> None:
    """Make onnx2torch.convert import SpatialDropout nodes; calling it again changes nothing.

    A ``training_mode`` that is an initializer, as the switches are, is left to ``train()`` and ``eval()``; one that the
    graph computes, or an input without a default, has to be true as well. ``step`` is not used.
    """
    description = registry.OperationDescription(spec.DOMAIN, spec.OP_TYPE, spec.VERSION)
    if description not in registry._CONVERTER_REGISTRY:
        registry.add_converter(operation_type=spec.OP_TYPE, version=spec.VERSION, domain=spec.DOMAIN)(_import_node)


def convert(model: io.Source, *, requires_grad: Sequence[str] | None = None) -> torch.fx.GraphModule:
    """Return the model as a PyTorch module, as onnx2torch imports it, with SpatialDropout in the place of its nodes.

    The model is made readable for onnx2torch first (functions, opset, Reshape; see TrainerPass); what was done stands
    in the module's ``meta["onnx_spatialdrop.prepared"]``. onnx2torch keeps some weights, those of MatMul and Add among
    them, as buffers, which no optimizer trains; they become parameters here.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        requires_grad: names of initializers to train; by default all that ``trainable`` finds. Others are frozen.

    Raises:
        TrainerError: a name that the model does not have.
        FormError: a model that cannot be converted to an opset that onnx2torch reads.
        NotImplementedError: onnx2torch knows no such operator.
    """
    prepared, said = _prepared(model)
    names = chosen(prepared, requires_grad)
    module = _import(prepared)
    for key, (name, _) in _places(prepared).items():
        owner, _, attribute = key.rpartition(".")
        holder = module.get_submodule(owner)
        if attribute in holder._buffers and name in names:
            tensor = cast("torch.Tensor", holder._buffers.pop(attribute))
            holder.register_parameter(attribute, nn.Parameter(tensor.clone()))
        elif attribute in holder._parameters:
            cast("nn.Parameter", holder._parameters[attribute]).requires_grad_(name in names)
    module.meta["onnx_spatialdrop.prepared"] = said
    return module


def weights(module: nn.Module, model: io.Source) -> dict[str, npt.NDArray[Any]]:
    """Return the module's weights under the names and in the layout of the model that it was converted from.

    Args:
        module: what ``convert`` (or onnx2torch.convert) made of ``model``, trained or not.
        model: that model.

    Returns:
        Arrays by initializer, for ``update``.

    Raises:
        TrainerError: a weight of the model that the module holds nowhere, or twice with different values.
    """
    prepared, _ = _prepared(model)
    state, arrays = module.state_dict(), dict[str, npt.NDArray[Any]]()
    for key, (name, transposed) in _places(prepared).items():
        array = state[key].detach().cpu().numpy()
        array = np.ascontiguousarray(array.T if transposed else array)
        if name in arrays and not np.array_equal(arrays[name], array):
            raise TrainerError(
                f"weight {name!r} is used in several places, and onnx2torch trained copies of it apart; "
                "train with onnxruntime-training, or leave it out of requires_grad"
            )
        arrays[name] = array
    lost = [name for name in trainable(prepared) if name not in arrays]
    if lost:
        raise TrainerError(f"weight {lost[0]!r} is nowhere in the module in a layout that can be read back")
    return arrays


def _prepared(model: io.Source) -> tuple[ir.Model, tuple[str, ...]]:
    """Return a copy that onnx2torch reads, SpatialDropout nodes still in it, and what was changed."""
    prepare = TrainerPass("onnx2torch")
    result = io.rewrite(model, None, prepare.call)[0]
    prepared = ir.from_proto(result) if isinstance(result, onnx.ModelProto) else cast("ir.Model", result)
    for site in scopes.spatial_dropouts(prepared):
        _complete(site.node)
    return in_memory(prepared), tuple(prepare.said)


def _complete(node: ir.Node) -> None:
    """Give a node's outputs types, and users of their own where they are the graph's outputs."""
    op.complete(node)
    x, (y, mask) = node.inputs[0], node.outputs
    # onnx2torch returns all outputs of a node of which the graph returns one.
    for value, dtype in ((y, x.dtype if x is not None else None), (mask, ir.DataType.BOOL)):
        if value.type is None and dtype is not None:
            value.type = ir.TensorType(dtype)
        if not value.is_graph_output():
            continue
        assert node.graph is not None
        inner = f"{value.name}/inner"
        identity = ir.node("Identity", [value], name=f"{value.name}/output")
        output = identity.outputs[0]
        node.graph.insert_after(node, identity)
        for index, existing in enumerate(node.graph.outputs):
            if existing is value:
                node.graph.outputs[index] = output
        output.name, output.type, output.shape = value.name, value.type, value.shape
        value.name = inner


def _import(prepared: ir.Model) -> torch.fx.GraphModule:
    register()
    return onnx2torch.convert(ir.to_proto(prepared))


def _places(prepared: ir.Model) -> dict[str, tuple[str, bool]]:
    """Return where onnx2torch puts each initializer: key of the module's state -> its name, and whether transposed.

    A twin is imported in which every weight holds numbers of its own, and what is found in it is told by them.
    """
    twin = prepared.clone()
    tags: dict[str, npt.NDArray[Any]] = {}
    for index, (name, value) in enumerate(twin.graph.initializers.items()):
        tensor = value.const_value
        if value.dtype not in op.FLOAT_TYPES or tensor is None or not tensor.shape.dims:
            continue
        numbers = np.random.default_rng(index).uniform(1, 2, tensor.shape.numpy())
        tags[name] = numbers.astype(tensor.dtype.numpy())
        value.const_value = ir.tensor(tags[name], name=name)
    places = {}
    for key, held in _import(twin).state_dict().items():
        array = held.numpy()
        for name, tag in tags.items():
            if np.array_equal(array, tag):
                places[key] = (name, False)
            elif array.ndim == 2 and np.array_equal(array.T, tag):
                places[key] = (name, True)
    return places
