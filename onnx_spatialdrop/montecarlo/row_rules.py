"""Where the rows of a batch are after a node that computes: element-wise ops, layers, products, reductions.

A rule is asked only where an input has rows. It returns where the outputs' rows are, provided that each row of the
outputs follows from the same row of the inputs alone and is of the same size for any number of rows; else it raises
Unproven. An operator without a rule is not proven.
"""

from __future__ import annotations

from typing import Final

from onnx_spatialdrop.montecarlo.facts import Unproven
from onnx_spatialdrop.montecarlo.product_rules import einsum, gemm, matmul
from onnx_spatialdrop.montecarlo.view import UNUSABLE, Place, Places, Rule, View, needs_broadcast, same_place

__all__ = ["LAYERS", "elementwise"]

#: All inputs are broadcast against each other.
_ELEMENTWISE: Final = (
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd",
    "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div",
    "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid",
    "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean",
    "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round",
    "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum",
    "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
)  # fmt: skip
#: Rows are along axis 0, and all other inputs are parameters.
_SAMPLES_FIRST: Final = (
    "AveragePool", "Conv", "ConvInteger", "ConvTranspose", "DepthToSpace", "GlobalAveragePool",
    "GlobalLpPool", "GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "LRN", "LpPool",
    "QLinearConv", "SpaceToDepth",
)  # fmt: skip
_REDUCTIONS: Final = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip


def elementwise(view: View) -> Places:
    """Inputs with rows have them along one axis; what is shared is broadcast over it."""
    facts = [view.maybe(index) for index in range(len(view.inputs))]
    known = [fact for fact in facts if fact is not None]
    rank = max(fact.rank for fact in known)
    if all(fact.axis is None for fact in known):
        raise Unproven("it computes with the number of samples")
    place = same_place([(f.axis + rank - f.rank, f.block) for f in known if f.axis is not None])
    for fact in known:
        if fact.axis is None:
            if not fact.shared:
                raise Unproven("it computes with the number of samples")
            needs_broadcast(fact.dims or (), place[0] - (rank - fact.rank))
    return place


def _samples_first(view: View) -> Places:
    view.shared_from(1)
    return view.first_axis()


def _max_pool(view: View) -> Places:
    # Indices count through the whole batch.
    return [view.first_axis(), UNUSABLE]


def _batch_normalization(view: View) -> Places:
    attributes = view.node.attributes
    if attributes.get_int("training_mode", 0) or view.opset < 9 or len(view.node.outputs) > 1:
        raise Unproven("batch normalization in training mode: statistics of the whole batch")
    return _samples_first(view)


def _quantize(view: View) -> Places:
    axis, block, rank = view.rows()
    view.shared_from(1)
    scale = view.get(1)
    if view.node.attributes.get_int("block_size", 0):
        raise Unproven("its scales come in blocks")
    if scale.rank == 1 and scale.dims != (1,) and view.axis(1, rank) == axis:
        raise Unproven("it has a scale a sample")
    if scale.rank > 1:
        raise Unproven("its scales come in blocks")
    return axis, block


def _softmax(view: View) -> Places:
    axis, block, rank = view.rows()
    over = view.axis(-1 if view.opset >= 13 else 1, rank)
    if over == axis or (view.opset < 13 and over <= axis):
        raise Unproven("it normalises over the samples")
    return axis, block


def _along_axis(view: View, default: int) -> Places:
    axis, block, rank = view.rows()
    if view.axis(default, rank) == axis:
        raise Unproven("it works along the samples' axis")
    return axis, block


def _layer_normalization(view: View) -> Places:
    axis, block, rank = view.rows()
    view.shared_from(1)
    over = view.axis(-1, rank)
    if over <= axis:
        raise Unproven("it normalises over the samples")
    for index in range(1, len(view.inputs)):
        fact = view.maybe(index)
        if fact is not None:
            needs_broadcast(fact.dims or (), axis - (rank - fact.rank))
    return axis, block


def _mean_variance(view: View) -> Places:
    axis, block, rank = view.rows()
    if axis in [each % rank for each in view.node.attributes.get_ints("axes", (0, 2, 3))]:
        raise Unproven("it normalises over the samples")
    return axis, block


def _reduction(view: View) -> Places:
    axis, block, rank = view.rows()
    axes = view.axes(rank)
    if not axes:
        if view.node.attributes.get_int("noop_with_empty_axes", 0):
            return axis, block
        raise Unproven("it reduces over the samples")
    if axis in axes:
        raise Unproven("it reduces over the samples")
    kept = view.node.attributes.get_int("keepdims", 1)
    return (axis if kept else axis - sum(each < axis for each in set(axes))), block


def _arg(view: View) -> Places:
    axis, block, rank = view.rows()
    over = view.axis(0, rank)
    if over == axis:
        raise Unproven("it reduces over the samples")
    return (axis if view.node.attributes.get_int("keepdims", 1) else axis - (over < axis)), block


def _cumsum(view: View) -> Places:
    axis, block, rank = view.rows()
    if view.get(1).ints()[0] % rank == axis:
        raise Unproven("it adds up over the samples")
    return axis, block


def _topk(view: View) -> Places:
    view.shared_from(1)
    return _along_axis(view, -1)


def _recurrent(view: View) -> Places:
    layout = view.node.attributes.get_int("layout", 0)
    axis, block, _ = view.rows()
    if axis != (0 if layout else 1):
        raise Unproven("the samples are not along its batch axis")
    for index in range(1, len(view.inputs)):
        fact = view.maybe(index)
        if fact is None:
            continue
        wanted = 0 if index == 4 else (0 if layout else 1)
        if index < 4 or index == 7:
            if not fact.shared:
                raise Unproven("a parameter depends on the samples")
        elif fact.axis != wanted or fact.block != block:
            raise Unproven("its initial state or lengths have a batch of their own")
    state = 0 if layout else 1
    outputs: list[Place] = [(0 if layout else 2, block), (state, block), (state, block)]
    return outputs[: len(view.node.outputs)]


def _dropout(view: View) -> Places:
    axis, block, _ = view.rows()
    view.shared_from(1)
    return axis, block


def _like(view: View) -> Places:
    axis, block, _ = view.rows()
    return axis, block


def _dynamic_quantize(_: View) -> Places:
    raise Unproven("it takes one scale from the whole batch")


def _range(_: View) -> Places:
    raise Unproven("it counts the samples")


def _grid_sample(view: View) -> Places:
    return same_place([view.first_axis(0), view.first_axis(1)])


def _deform_conv(view: View) -> Places:
    places = [view.first_axis(0), view.first_axis(2)]
    for index in (1, 3):
        fact = view.maybe(index)
        if fact is not None and not fact.shared:
            raise Unproven("a parameter depends on the samples")
    if view.maybe(4) is not None:
        places.append(view.first_axis(4))
    return same_place(places)


def _trilu(view: View) -> Places:
    axis, block, rank = view.rows()
    view.shared_from(1)
    if axis >= rank - 2:
        raise Unproven("it works along the samples' axis")
    return axis, block


LAYERS: Final[dict[str, Rule]] = {
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    **dict.fromkeys(_SAMPLES_FIRST, _samples_first),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _softmax),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _layer_normalization),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantize),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("Bernoulli", "RandomNormalLike", "RandomUniformLike"), _like),
    "BatchNormalization": _batch_normalization,
    "CastLike": lambda view: view.rows()[:2],
    "CumSum": _cumsum,
    "DeformConv": _deform_conv,
    "Dropout": _dropout,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "Einsum": einsum,
    "Gemm": gemm,
    "GridSample": _grid_sample,
    "LpNormalization": lambda view: _along_axis(view, -1),
    "MatMul": matmul,
    "MatMulInteger": matmul,
    "MaxPool": _max_pool,
    "MeanVarianceNormalization": _mean_variance,
    "Multinomial": lambda view: view.first_axis(),
    "Range": _range,
    "QLinearMatMul": lambda view: matmul(view, 3),
    "TopK": _topk,
    "Trilu": _trilu,
}
