"""What ONNX's operators are, for everything that reads graphs: an operator a row, a fact a column. Data only.

An operator that is missing here is unknown to every analysis; one without facts is known to have none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any, Final

import numpy as np
import onnx_ir as ir

__all__ = [
    "NO_FACTS",
    "OPERATORS",
    "Fact",
    "Operator",
    "compute",
    "entry_function",
    "has",
    "names_of",
    "operator",
    "parameters",
]


class Fact(Flag):
    """What is known of an operator.

    ENTRY: each entry of the result is a function of that entry of the first input; other inputs are parameters.
    ENTRIES: each entry of the result is a function of the entries of all inputs there, broadcast.
    SHAPE: the result has the first input's shape.
    TYPE: the result has the first input's type.
    BOOLEAN: the result is bool.
    SCALE: f(c x) = c f(x) for c > 0, of the first input.
    SCALES: the same of all inputs together.
    VIEW: the result is made of entries of the first input, or all of them, in some order.
    REDUCES: the result goes without axes of the input, or has them with size 1.
    DRAWS: the result is random.
    """

    NONE = 0
    ENTRY = auto()
    ENTRIES = auto()
    SHAPE = auto()
    TYPE = auto()
    BOOLEAN = auto()
    SCALE = auto()
    SCALES = auto()
    VIEW = auto()
    REDUCES = auto()
    DRAWS = auto()


@dataclass(frozen=True)
class Operator:
    """A row of the table.

    Attributes:
        facts: what is known.
        function: what NumPy computes of entries, given as arrays, and of the parameters; None where no function does.
        parameters: the attributes that the function takes after the entries, and their defaults.
    """

    facts: Fact
    function: Callable[..., Any] | None = None
    parameters: tuple[tuple[str, float], ...] = ()


_OF_ONE: Final = Fact.ENTRY | Fact.SHAPE | Fact.TYPE
_VIEW: Final = Fact.VIEW | Fact.TYPE | Fact.SCALE
_REDUCTION: Final = Fact.REDUCES | Fact.TYPE
_TEST: Final = Fact.ENTRIES | Fact.BOOLEAN
_NUMBERS: Final = Fact.ENTRIES | Fact.TYPE
_LIKE: Final = Fact.SHAPE | Fact.TYPE
_SELU: Final = (("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875))


def _erf(a: Any) -> Any:
    return np.vectorize(math.erf, otypes=[np.float64])(a)


def _divided(a: Any, b: Any) -> Any:
    if np.asarray(a).dtype.kind not in "iub":
        return np.divide(a, b)
    quotient = np.floor_divide(a, b)  # ONNX divides whole numbers towards 0
    return quotient + ((quotient < 0) & (quotient * b != a))


def _sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


OPERATORS: Final[dict[str, Operator]] = {
    "Abs": Operator(_OF_ONE | Fact.SCALE, np.abs),
    "Acos": Operator(_OF_ONE, np.arccos),
    "Acosh": Operator(_OF_ONE, np.arccosh),
    "Add": Operator(_NUMBERS | Fact.SCALES, np.add),
    "And": Operator(_TEST, np.logical_and),
    "Asin": Operator(_OF_ONE, np.arcsin),
    "Asinh": Operator(_OF_ONE, np.arcsinh),
    "Atan": Operator(_OF_ONE, np.arctan),
    "Atanh": Operator(_OF_ONE, np.arctanh),
    "AveragePool": Operator(Fact.TYPE | Fact.SCALE),
    "BatchNormalization": Operator(_LIKE),
    "Bernoulli": Operator(Fact.SHAPE | Fact.DRAWS),
    "Cast": Operator(Fact.ENTRY | Fact.SHAPE),
    "CastLike": Operator(Fact.ENTRY | Fact.SHAPE),
    "Ceil": Operator(_OF_ONE, np.ceil),
    "Celu": Operator(_OF_ONE, lambda a, c: np.maximum(a, 0) + np.minimum(c * np.expm1(a / c), 0), (("alpha", 1.0),)),
    "Clip": Operator(_OF_ONE),
    "Concat": Operator(Fact.TYPE | Fact.SCALES),
    "Conv": Operator(Fact.TYPE),
    "ConvTranspose": Operator(Fact.TYPE),
    "Cos": Operator(_OF_ONE, np.cos),
    "Cosh": Operator(_OF_ONE, np.cosh),
    "CumSum": Operator(_LIKE | Fact.SCALE),
    "Div": Operator(_NUMBERS, _divided),
    "Dropout": Operator(_LIKE | Fact.DRAWS),
    "Elu": Operator(_OF_ONE, lambda a, c: np.where(a < 0, c * np.expm1(a), a), (("alpha", 1.0),)),
    "Equal": Operator(_TEST, np.equal),
    "Erf": Operator(_OF_ONE, lambda a: _erf(a)),
    "Exp": Operator(_OF_ONE, np.exp),
    "Expand": Operator(_VIEW),
    "Flatten": Operator(_VIEW),
    "Floor": Operator(_OF_ONE, np.floor),
    "Gather": Operator(_VIEW),
    "Gelu": Operator(_OF_ONE, lambda a: a * (1 + _erf(a / np.sqrt(2))) / 2),
    "Gemm": Operator(Fact.TYPE),
    "GlobalAveragePool": Operator(Fact.TYPE | Fact.SCALE),
    "GlobalMaxPool": Operator(Fact.TYPE | Fact.SCALE),
    "Greater": Operator(_TEST, np.greater),
    "GreaterOrEqual": Operator(_TEST, np.greater_equal),
    "GroupNormalization": Operator(_LIKE),
    "HardSigmoid": Operator(_OF_ONE, lambda a, c, d: np.clip(c * a + d, 0, 1), (("alpha", 0.2), ("beta", 0.5))),
    "HardSwish": Operator(_OF_ONE, lambda a: a * np.clip(a / 6 + 0.5, 0, 1)),
    "Hardmax": Operator(_LIKE),
    "Identity": Operator(_OF_ONE | Fact.VIEW | Fact.SCALE, lambda a: a),
    "InstanceNormalization": Operator(_LIKE),
    "IsInf": Operator(Fact.ENTRY | Fact.SHAPE | Fact.BOOLEAN, np.isinf),
    "IsNaN": Operator(Fact.ENTRY | Fact.SHAPE | Fact.BOOLEAN, np.isnan),
    "LRN": Operator(_LIKE),
    "LayerNormalization": Operator(_LIKE),
    "LeakyRelu": Operator(_OF_ONE | Fact.SCALE, lambda a, c: np.where(a < 0, c * a, a), (("alpha", 0.01),)),
    "Less": Operator(_TEST, np.less),
    "LessOrEqual": Operator(_TEST, np.less_equal),
    "Log": Operator(_OF_ONE, np.log),
    "LogSoftmax": Operator(_LIKE),
    "LpNormalization": Operator(_LIKE),
    "MatMul": Operator(Fact.TYPE),
    "Max": Operator(_NUMBERS | Fact.SCALES, np.maximum),
    "MaxPool": Operator(Fact.TYPE | Fact.SCALE),
    "Mean": Operator(_NUMBERS | Fact.SCALES, lambda *entries: sum(entries) / len(entries)),
    "MeanVarianceNormalization": Operator(_LIKE),
    "Min": Operator(_NUMBERS | Fact.SCALES, np.minimum),
    "Mish": Operator(_OF_ONE, lambda a: a * np.tanh(np.logaddexp(0, a))),
    "Mod": Operator(_NUMBERS),
    "Mul": Operator(_NUMBERS, np.multiply),
    "Multinomial": Operator(Fact.DRAWS),
    "Neg": Operator(_OF_ONE | Fact.SCALE, np.negative),
    "Not": Operator(_OF_ONE | Fact.BOOLEAN, np.logical_not),
    "Or": Operator(_TEST, np.logical_or),
    "PRelu": Operator(Fact.ENTRIES | Fact.SHAPE | Fact.TYPE | Fact.SCALE),
    "Pad": Operator(Fact.TYPE),
    "Pow": Operator(_NUMBERS, np.power),
    "RMSNormalization": Operator(Fact.SHAPE),
    "RandomNormal": Operator(Fact.DRAWS),
    "RandomNormalLike": Operator(Fact.SHAPE | Fact.DRAWS),
    "RandomUniform": Operator(Fact.DRAWS),
    "RandomUniformLike": Operator(Fact.SHAPE | Fact.DRAWS),
    "Reciprocal": Operator(_OF_ONE, np.reciprocal),
    "ReduceL1": Operator(_REDUCTION | Fact.SCALE),
    "ReduceL2": Operator(_REDUCTION | Fact.SCALE),
    "ReduceLogSum": Operator(_REDUCTION),
    "ReduceLogSumExp": Operator(_REDUCTION),
    "ReduceMax": Operator(_REDUCTION | Fact.SCALE),
    "ReduceMean": Operator(_REDUCTION | Fact.SCALE),
    "ReduceMin": Operator(_REDUCTION | Fact.SCALE),
    "ReduceProd": Operator(_REDUCTION),
    "ReduceSum": Operator(_REDUCTION | Fact.SCALE),
    "ReduceSumSquare": Operator(_REDUCTION),
    "Relu": Operator(_OF_ONE | Fact.SCALE, lambda a: np.maximum(a, 0)),
    "Reshape": Operator(_VIEW),
    "Round": Operator(_OF_ONE, np.round),
    "Selu": Operator(_OF_ONE, lambda a, c, g: g * np.where(a < 0, c * np.expm1(a), a), _SELU),
    "Shrink": Operator(
        _OF_ONE,
        lambda a, b, c: np.where(a < -c, a + b, np.where(a > c, a - b, 0)),
        (("bias", 0.0), ("lambd", 0.5)),
    ),
    "Sigmoid": Operator(_OF_ONE, _sigmoid),
    "Sign": Operator(_OF_ONE, np.sign),
    "Sin": Operator(_OF_ONE, np.sin),
    "Sinh": Operator(_OF_ONE, np.sinh),
    "Slice": Operator(_VIEW),
    "Softmax": Operator(_LIKE),
    "Softplus": Operator(_OF_ONE, lambda a: np.logaddexp(0, a)),
    "Softsign": Operator(_OF_ONE, lambda a: a / (1 + np.abs(a))),
    "Split": Operator(_VIEW),
    "Sqrt": Operator(_OF_ONE, np.sqrt),
    "Squeeze": Operator(_VIEW),
    "Sub": Operator(_NUMBERS | Fact.SCALES, np.subtract),
    "Sum": Operator(_NUMBERS | Fact.SCALES),
    "Swish": Operator(_OF_ONE, lambda a, c: a * _sigmoid(c * a), (("alpha", 1.0),)),
    "Tan": Operator(_OF_ONE, np.tan),
    "Tanh": Operator(_OF_ONE, np.tanh),
    "ThresholdedRelu": Operator(_OF_ONE, lambda a, c: np.where(a > c, a, 0), (("alpha", 1.0),)),
    "Tile": Operator(_VIEW),
    "Transpose": Operator(_VIEW),
    "Trilu": Operator(_LIKE | Fact.SCALE),
    "Unsqueeze": Operator(_VIEW),
    "Where": Operator(Fact.ENTRIES, lambda c, a, b: np.where(np.asarray(c) != 0, a, b)),
    "Xor": Operator(_TEST, np.logical_xor),
}

#: The operators that none of these facts holds of, or none that anything here would make use of.
NO_FACTS: Final = frozenset((
    "AffineGrid", "ArgMax", "ArgMin", "Attention", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
    "BitwiseXor", "BlackmanWindow", "CausalConvWithState", "CenterCropPad", "Col2Im", "Compress",
    "ConcatFromSequence", "Constant", "ConstantOfShape", "ConvInteger", "CumProd", "DFT", "DeformConv",
    "DepthToSpace", "DequantizeLinear", "Det", "DynamicQuantizeLinear", "Einsum", "EyeLike", "GRU",
    "GatherElements", "GatherND", "GlobalLpPool", "GridSample", "HammingWindow", "HannWindow", "If", "ImageDecoder",
    "LSTM", "LinearAttention", "Loop", "LpPool", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix",
    "NegativeLogLikelihoodLoss", "NonMaxSuppression", "NonZero", "OneHot", "Optional", "OptionalGetElement",
    "OptionalHasElement", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "RNN", "Range", "RegexFullMatch",
    "Resize", "ReverseSequence", "RoiAlign", "RotaryEmbedding", "STFT", "Scan", "Scatter", "ScatterElements",
    "ScatterND", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert",
    "SequenceLength", "SequenceMap", "Shape", "Size", "SoftmaxCrossEntropyLoss", "SpaceToDepth", "SplitToSequence",
    "StringConcat", "StringNormalizer", "StringSplit", "SwiGLU", "TensorScatter", "TfIdfVectorizer", "TopK",
    "Unique", "Upsample",
))  # fmt: skip

_UNKNOWN: Final = Operator(Fact.NONE)


def operator(node: ir.Node) -> Operator:
    """Return the row of a node's operator; one without facts for those of other domains."""
    return _UNKNOWN if node.domain else OPERATORS.get(node.op_type, _UNKNOWN)


def names_of(facts: Fact) -> frozenset[str]:
    """Return the operators that all of ``facts`` hold of."""
    return frozenset(name for name, row in OPERATORS.items() if facts in row.facts)


def has(node: ir.Node, facts: Fact) -> bool:
    """Return whether all of ``facts`` hold of a node's operator."""
    return facts in operator(node).facts


def entry_function(node: ir.Node) -> Callable[..., Any] | None:
    """Return what a node computes of the entries of its inputs, its attributes filled in; None where no table says it.

    An attribute that the table does not know may change what is computed, so there is no function then.
    """
    row = operator(node)
    known = {name for name, _ in row.parameters}
    others = {name for name in node.attributes if name not in known}
    if "approximate" in others and node.attributes.get_string("approximate", "none") == "none":
        others.remove("approximate")
    return None if others else row.function


def compute(function: Callable[..., Any], *operands: Any) -> Any:
    """Return what a function of the table makes of arrays; types that NumPy's functions do not know go by float32."""
    known = [np.asarray(operand) for operand in operands]
    return np.asarray(function(*(array.astype(np.float32) if array.dtype.kind == "V" else array for array in known)))


def parameters(node: ir.Node) -> tuple[float, ...]:
    """Return the attributes of a node that its function takes after the entries."""
    return tuple(node.attributes.get_float(name, default) for name, default in operator(node).parameters)
