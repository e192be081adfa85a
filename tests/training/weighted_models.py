"""Small models whose weights are of every kind that ``trainable`` finds, each with a SpatialDropout node."""

from __future__ import annotations

import numpy as np
import onnx

CLASSES = 3
_HEAD = 'opset_import: ["": 18, "onnx_spatialdrop": 1]'
_SWITCHES = "bool training_mode = {0}, int64[1] step = {-1}, int64[1] first = {0}"


def _drop(x: str, axes: list[int], seed: int) -> str:
    attributes = f'axes={axes}, ratio=0.3, seed={seed}, scale=1.4285714626312256, rng="philox"'
    return f"dropped_{x}, mask_{x} = onnx_spatialdrop.SpatialDropout<{attributes}>({x}, training_mode, step)"


def _model(inputs: str, outputs: str, body: str, weights: dict[str, tuple[int, ...]], seed: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    proto = onnx.parser.parse_model(
        f"<ir_version: 9, {_HEAD}> g ({inputs}, bool training_mode, int64[1] step) => ({outputs})"
        f" <{_SWITCHES}> {{ {body} }}"
    )
    for name, shape in weights.items():
        positive = name.endswith(("scale", "var"))
        array = rng.uniform(0.5, 1.5, shape) if positive else rng.normal(size=shape) * 0.4
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    for index, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type.lower()}_{index}"
    onnx.checker.check_model(proto)
    return proto


def recurrent(kind: str) -> onnx.ModelProto:
    """Return ids (N, 6) -> embedding -> dropout of features -> LSTM, GRU or RNN -> logits."""
    width, hidden, gates = 4, 5, {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    outputs = "all, last, cell" if kind == "LSTM" else "all, last"
    attributes = f"hidden_size={hidden}" + (", linear_before_reset=1" if kind == "GRU" else "")
    body = (
        f"words = Gather(table, ids)  {_drop('words', [1], 11)}  steps = Transpose<perm=[1, 0, 2]>(dropped_words) "
        f"{outputs} = {kind}<{attributes}>(steps, rnn_w, rnn_r, rnn_b)  flat = Squeeze(last, first)"
        " logits = Gemm(flat, head_w, head_b)"
    )
    weights = {
        "table": (7, width),
        "rnn_w": (1, gates * hidden, width),
        "rnn_r": (1, gates * hidden, hidden),
        "rnn_b": (1, 2 * gates * hidden),
        "head_w": (hidden, CLASSES),
        "head_b": (CLASSES,),
    }
    return _model("int64[N,6] ids", f"float[N,{CLASSES}] logits", body, weights, 1)


def normalised() -> onnx.ModelProto:
    """Return x (N, 2, 5, 5) -> convolution -> batch norm in inference mode -> ReLU -> dropout of maps -> logits."""
    body = (
        "maps = Conv<pads=[1, 1, 1, 1]>(x, conv_w)  normed = BatchNormalization(maps, bn_scale, bn_b, bn_mean, bn_var)"
        f" active = Relu(normed)  {_drop('active', [2, 3], 12)}  pooled = GlobalAveragePool(dropped_active)"
        " flat = Flatten(pooled)  logits = Gemm(flat, head_w, head_b)"
    )
    weights = {"conv_w": (8, 2, 3, 3), "bn_scale": (8,), "bn_b": (8,), "bn_mean": (8,), "bn_var": (8,)}
    weights |= {"head_w": (8, CLASSES), "head_b": (CLASSES,)}
    return _model("float[N,2,5,5] x", f"float[N,{CLASSES}] logits", body, weights, 2)


def data(model: onnx.ModelProto, count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and labels that a small network can learn."""
    rng = np.random.default_rng(3)
    if model.graph.input[0].name == "ids":
        ids = rng.integers(0, 7, (count, 6))
        return ids, ids[:, -1] % CLASSES
    labels = rng.integers(0, CLASSES, count)
    return (rng.normal(size=(count, 2, 5, 5)) + labels[:, None, None, None]).astype(np.float32), labels
