"""What else can drop feature maps on a CPU, doing the same work: a fresh draw, scaled, every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from math import prod

import numpy as np
import onnx
import onnxruntime
from native_sessions import ELEMENT, bound_run, drop_model
from native_timing import BUFFERS, aligned, interleaved, is_amd
from onnx import TensorProto, helper, numpy_helper

MIB_32 = (32, 64, 64, 64)
MIB_128 = (128, 64, 64, 64)  # past every cache
#: Times as fast as the RandomUniformLike expansion, in the median of the rows.
GOAL = "1.5" if is_amd() else "1.3"
#: The axes that a layout shares.
AXES = {"NCHW": (2, 3), "NHWC": (1, 2)}


@dataclass(frozen=True)
class Peer:
    """One peer: the work that it and the kernel do from the same X, and how to have it done by the peer.

    ``run`` takes X's and Y's bytes and a number of threads; ``missing`` says why it cannot be had here, if so.
    """

    name: str
    goal: str
    run: Callable[[np.ndarray, np.ndarray, int], Callable[[], object]]
    shape: tuple[int, ...] = MIB_32
    layout: str = "NCHW"
    ratio: float = 0.2
    missing: str = ""

    def ours(self, x: np.ndarray, y: np.ndarray, threads: int) -> Callable[[], object]:
        """Return the kernel's run of the same work."""
        model = drop_model("float32", self.shape, list(AXES[self.layout]), self.ratio)
        return bound_run(model, ELEMENT["float32"], self.shape, x, y, threads)

    @property
    def case(self) -> str:
        """What the row of this peer says beside its name."""
        return f"{4 * prod(self.shape) >> 20} MiB, {self.layout}, ratio {self.ratio}"


def plain_run(
    model: onnx.ModelProto, x: np.ndarray, y: np.ndarray, threads: int, keep: str | None = None
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
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, TensorProto.FLOAT, shape, x.ctypes.data)
    binding.bind_output("y", "cpu", 0, TensorProto.FLOAT, shape, y.ctypes.data)
    held = (x, y)
    return lambda: (session.run_with_iobinding(binding), held)


def standard_model(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], shape: Sequence[int]
) -> onnx.ModelProto:
    """Return a model x -> y of standard ops."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def expansion(shape: Sequence[int], layout: str, ratio: float) -> onnx.ModelProto:
    """Return the expansion to RandomUniformLike that exporters and passes write."""
    drawn = [1 if axis in AXES[layout] else size for axis, size in enumerate(shape)]
    constants = {
        "like": np.zeros(drawn, np.float32),
        "keep": np.float32(1 - ratio),
        "scale": np.float32(1 / (1 - ratio)),
    }
    nodes = [
        helper.make_node("RandomUniformLike", ["like"], ["u"], dtype=1, seed=3.0),
        helper.make_node("Less", ["u", "keep"], ["b"]),
        helper.make_node("Cast", ["b"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["m", "scale"], ["f"]),
        helper.make_node("Mul", ["x", "f"], ["y"]),
    ]
    return standard_model(nodes, constants, shape)


def dropout(shape: Sequence[int], ratio: float) -> onnx.ModelProto:
    """Return ONNX's own Dropout in training mode: element-wise, all that the standard has."""
    constants = {"ratio": np.float32(ratio), "training": np.array(True)}
    nodes = [helper.make_node("Dropout", ["x", "ratio", "training"], ["y"], seed=3)]
    return standard_model(nodes, constants, shape)


def torch_run(x: np.ndarray, _y: np.ndarray, threads: int) -> Callable[[], object]:
    """Return torch's dropout2d on the same values; it makes its own Y."""
    import torch

    torch.set_num_threads(threads)
    tensor = torch.from_numpy(x.view(np.float32).reshape(MIB_32))

    def run() -> object:
        with torch.no_grad():
            return torch.nn.functional.dropout2d(tensor, 0.2, training=True)

    return run


def expansion_peer(shape: tuple[int, ...], layout: str, ratio: float) -> Peer:
    """Return the peer that writes as little besides as any."""

    def run(x: np.ndarray, y: np.ndarray, threads: int) -> Callable[[], object]:
        return plain_run(expansion(shape, layout, ratio), x, y, threads)

    return Peer("ONNX Runtime, the RandomUniformLike expansion", GOAL, run, shape, layout, ratio)


def dropout_run(x: np.ndarray, y: np.ndarray, threads: int) -> Callable[[], object]:
    """Return ONNX Runtime's Dropout, which its optimiser would remove."""
    return plain_run(dropout(MIB_32, 0.2), x, y, threads, "EliminateDropout")


def peers() -> list[Peer]:
    """Return all peers."""
    has_torch = find_spec("torch") is not None
    torch_name = f"torch {version('torch')}" if has_torch else "torch"
    missing = "" if has_torch else "torch is not installed"
    return [
        Peer(f"{torch_name}, nn.functional.dropout2d", "6", torch_run, missing=missing),
        Peer("ONNX Runtime, Dropout in training mode", "10", dropout_run),
        *(
            expansion_peer(shape, layout, ratio)
            for shape in (MIB_32, MIB_128)
            for layout in AXES
            for ratio in (0.2, 0.5)
        ),
    ]


def peer_row(peer: Peer, rounds: int, threads: int) -> str:
    """Return the row of one peer, the median of ``BUFFERS`` sets of buffers, or the reason why there is none."""
    if peer.missing:
        return f"| {peer.name} | {peer.case} | | | {peer.missing} | | {peer.goal} |"
    measured = []
    for _ in range(BUFFERS):
        x, y, z = (aligned(peer.shape, 4, numbers) for numbers in (True, False, False))
        ours, theirs = interleaved(rounds // 3, threads, peer.ours(x, y, threads), peer.run(x, z, threads))
        measured.append((theirs / ours, ours, theirs))
    measured.sort()
    factor, ours, theirs = measured[BUFFERS // 2]
    others = f"{measured[0][0]:.2f} - {measured[-1][0]:.2f}"
    times = f"{ours * 1e3:.3f} | {theirs * 1e3:.3f} | {factor:.2f}"
    return f"| {peer.name} | {peer.case} | {times} | {others} | {peer.goal} |"
