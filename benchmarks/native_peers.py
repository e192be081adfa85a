"""What else can drop feature maps on a CPU, doing the same work: a fresh draw, scaled, every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import onnx
import onnxruntime
from native_sessions import bound_run, drop_node, model_of
from onnx import TensorProto, helper, numpy_helper

SHAPE = (32, 64, 64, 64)  # 32 MiB
LARGE = (128, 64, 64, 64)  # 128 MiB: past every cache
RATIO = 0.2


@dataclass(frozen=True)
class Peer:
    """One peer: the kernel's run and its own, or the reason why it has none here."""

    name: str
    goal: str
    ours: Callable[[], object]
    run: Callable[[], object] | None
    missing: str = ""


def plain_run(
    model: onnx.ModelProto,
    x: np.ndarray,
    y: np.ndarray,
    threads: int,
    keep: str | None = None,
    shape: Sequence[int] = SHAPE,
) -> Callable[[], object]:
    """Return a run of a model of standard ops from ``x`` to ``y``; ``keep`` is an optimiser to leave out."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=[keep] if keep else None,
    )
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, TensorProto.FLOAT, list(shape), x.ctypes.data)
    binding.bind_output("y", "cpu", 0, TensorProto.FLOAT, list(shape), y.ctypes.data)
    held = (x, y)
    return lambda: (session.run_with_iobinding(binding), held)


def standard_model(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: Sequence[int] = SHAPE
) -> onnx.ModelProto:
    """Return a model x -> y of standard ops."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def expansion(shape: Sequence[int] = SHAPE) -> onnx.ModelProto:
    """Return the expansion to RandomUniformLike that exporters and passes write."""
    constants = {
        "like": np.zeros((*shape[:2], 1, 1), np.float32),
        "keep": np.float32(1 - RATIO),
        "scale": np.float32(1 / (1 - RATIO)),
    }
    nodes = [
        helper.make_node("RandomUniformLike", ["like"], ["u"], dtype=1, seed=3.0),
        helper.make_node("Less", ["u", "keep"], ["b"]),
        helper.make_node("Cast", ["b"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["m", "scale"], ["f"]),
        helper.make_node("Mul", ["x", "f"], ["y"]),
    ]
    return standard_model(nodes, constants, shape)


def dropout() -> onnx.ModelProto:
    """Return ONNX's own Dropout in training mode: element-wise, all that the standard has."""
    constants = {"ratio": np.float32(RATIO), "training": np.array(True)}
    nodes = [helper.make_node("Dropout", ["x", "ratio", "training"], ["y"], seed=3)]
    return standard_model(nodes, constants)


def torch_run(x: np.ndarray, threads: int) -> tuple[Callable[[], object] | None, str]:
    """Return torch's dropout2d on the same values, or why there is none."""
    if find_spec("torch") is None:
        return None, "torch is not installed"
    import torch

    torch.set_num_threads(threads)
    tensor = torch.from_numpy(x.view(np.float32).reshape(SHAPE))

    def run() -> object:
        with torch.no_grad():
            return torch.nn.functional.dropout2d(tensor, RATIO, training=True)

    return run, torch.__version__


def large_expansion(aligned: Callable[..., np.ndarray], threads: int) -> Peer:
    """Return the peer that writes as little besides as any, where no cache holds anything."""
    x, y, z = (aligned(LARGE, 4, numbers) for numbers in (True, False, False))
    ours = bound_run(model_of([drop_node("x", "y", [2, 3], RATIO)], 1, LARGE), 1, LARGE, x, y, threads)
    theirs = plain_run(expansion(LARGE), x, z, threads, shape=LARGE)
    return Peer("ONNX Runtime, the RandomUniformLike expansion, 128 MiB", "1.6", ours, theirs)


def peers(aligned: Callable[..., np.ndarray], threads: int) -> list[Peer]:
    """Return all peers; each has the kernel's own run, from the same X, to be interleaved with."""
    x, y, z = (aligned(SHAPE, 4, numbers) for numbers in (True, False, False))
    ours = bound_run(model_of([drop_node("x", "y", [2, 3], RATIO)], 1, SHAPE), 1, SHAPE, x, y, threads)
    in_torch, version = torch_run(x, threads)
    name = f"torch {version}, nn.functional.dropout2d" if in_torch else "torch, nn.functional.dropout2d"
    return [
        Peer(name, "6", ours, in_torch, version),
        Peer(
            "ONNX Runtime, Dropout in training mode",
            "10",
            ours,
            plain_run(dropout(), x, z, threads, "EliminateDropout"),
        ),
        Peer("ONNX Runtime, the RandomUniformLike expansion", "1.6", ours, plain_run(expansion(), x, z, threads)),
        large_expansion(aligned, threads),
    ]
