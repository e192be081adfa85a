"""README.md of this folder, its figures measured on the files themselves. It builds no model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from onnx_spatialdrop.passes.attach import attach
from onnx_spatialdrop.passes.find import find

__all__ = ["text"]

DRAWS: Final = 50

#: What each file is; and the record that it is measured with, where it can be.
FILES: Final[dict[str, tuple[str, str]]] = {
    "digits_torch": ("PyTorch, NCHW, Dropout2d and batch norm; nodes put in by `insert`", "digits_torch"),
    "digits_torch_eval_export": ("as `torch.onnx.export` writes the network in eval mode", "digits_torch"),
    "digits_torch_train_export": ("as `torch.onnx.export` writes it in training mode", ""),
    "digits_float16": ("the PyTorch network after `.half()`", "digits_float16"),
    "digits_keras": ("Keras 3, NHWC, SpatialDropout2D; nodes on channels_last tensors", "digits_keras"),
    "digits_keras_1d": ("Keras 3, rows as a sequence, SpatialDropout1D", "digits_keras_1d"),
    "digits_keras_eval_export": ("as Keras's `model.export` writes the network", "digits_keras"),
    "digits_keras_train_export": ("as `model.export` writes it with `training=True`: **not a valid file**", ""),
    "digits_if": ("digits_torch; input `monte_carlo` chooses a branch with two of the nodes", "digits_torch"),
    "digits_function": ("digits_torch; a function with one node, called twice", "digits_torch"),
    "digits_external": ("digits_torch; weights in `digits_external.onnx.data`", "digits_torch"),
}

_HEAD: Final = """# Digits models

Small networks, trained on real images, with spatial dropout in them; what the tests, the demo and the documentation
run on. Written by `python models/build.py`; this page too, so change `models/readme.py` instead.

Of the 1,797 images of 8 by 8 pixels, 360 are held back from training, equally over the ten classes
(`train_test_split`, seed 0). `NAME.npz` holds them as the model takes them (`images`), their `labels`, and the
`logits` that the framework itself computed for them in eval mode. The networks are examples, not contenders: nothing
was tuned beyond a first choice of rate and epochs, which was made with an eye on the held-back images.

"""

_NOTES: Final = """
Right, of 360: by the framework's recorded logits; by ONNX Runtime on the file, in eval mode; and by the mean of {draws}
Monte Carlo draws (`training_mode` = true, `step` = 0 to {last}). Entropy is that of this mean, in nats, over images
that it gets right and over those that it gets wrong: dropout tells the network's mistakes. Difference: the largest
between ONNX Runtime's logits and the framework's. Measured with ONNX Runtime {ort} on a CPU, with the function body.

With that body the files also passed their tests in ONNX Runtime 1.21.1, 1.22.1 and 1.23.2. ONNX Runtime 1.20.1 has no
Mul for uint64, which the body needs; with the native kernel it runs them, with the same bits.

## Canvases
`canvas.onnx` is a segmentation network: `python models/build_canvas.py` trains a small U-Net on digits laid out on
canvases of 40 by 40 pixels (`canvas.py`), three or four a canvas, one over the other, with noise; each pixel with ink
has its digit's number plus 1, every other one 0. Its two dropouts are at the bottleneck and after the first upward
level, put in by `insert`. `canvas.npz` holds 24 canvases of held-back digits (`images`, uint8) and their `labels`;
94 % of their pixels are right without dropout, 74 % of the inked ones.

## How the nodes got in
- `digits_torch`, `digits_float16`: exported in eval mode (opset 20, a batch of any size), then
  `insert(model, after=["relu", "max_pool2d", "relu_2"], rate=0.3)`. Without its nodes (`remove`), digits_torch.onnx is
  digits_torch_eval_export.onnx byte for byte.
- `digits_keras`, `digits_keras_1d`: in an inference model of Keras no trace of the layers is left, and tf2onnx has
  moved the channels to the front (see the eval export). So for our export a layer that tf2onnx must not touch
  (`tf.debugging.check_numerics`, its message the layer's name) took the place of each dropout layer, and the nodes
  went there, with `data_format="channels_last"`.
- `digits_if`: the first node is in the main graph, two are in the branch that is taken for `monte_carlo` = true. That
  input has no default.
- `digits_function`: `digits::Stage` is Conv, Relu, SpatialDropout. One node has one seed, so both calls draw from the
  same words: with one step a sample, or for a batch of one, channels 0 to 15 of stage 3 share the fate of stage 1's.
  That is what a function with dropout in it does.

## What the exporters wrote
Kept as written, but for metadata of the PyTorch files (stack traces, which name files of the machine).

- `digits_torch_train_export`: dropout as ConstantOfShape -> RandomUniformLike -> Less -> Cast -> Div -> Mul, without
  seeds and without a switch; batch norm folded into the convolutions, as in eval mode.
- `digits_keras_eval_export`: the dropout layers are gone, and all tensors between the convolutions are NCHW, though
  the network is NHWC.
- `digits_keras_train_export`: tf2onnx logs that `StatelessRandomUniformV2` is not supported and writes it all the same,
  in ONNX's own domain; its key and counter, frozen at export, would give one mask for ever. `onnx.checker` and ONNX
  Runtime refuse the file. Around it the dropout is a Mul by 1/(1 - rate) and a select spelled out in Not, Cast, Mul
  and Add, between two Transposes.

## Building them again
In an environment with the versions below (Python 3.11): `pip install . scikit-learn torch==2.13.0 onnxscript
tensorflow-cpu keras tf2onnx`, then `python models/build.py`, or `python models/build.py --only digits_if digits_keras`.
All of it takes half a minute on one core of x86-64. Built twice, the PyTorch files, the three variants made of
them and all .npz files had the same bytes. The Keras files had the same weights and nodes, but tf2onnx orders and names
its constants by memory addresses, so their bytes differ from build to build. Other versions or another CPU may round
sums differently, and then train other weights.

"""

_DATA: Final = """
## The data
scikit-learn's bundled digits are the test set of *Optical Recognition of Handwritten Digits*, E. Alpaydin and
C. Kaynak, UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, licensed under CC BY 4.0
(https://creativecommons.org/licenses/by/4.0/). The .npz files hold 360 of its images, scaled from 0..16 to 0..1.
"""


class _Measured(NamedTuple):
    recorded: int
    right: int
    difference: float
    sampled: int
    entropy_right: float
    entropy_wrong: float


def text(folder: Path, names: list[str]) -> str:
    """Return README.md for the models ``names`` in ``folder``, measuring each that ONNX Runtime can run."""
    rows = [_row(folder, name) for name in names]
    head = "| file | what | KB | nodes | right: framework | file | draws | entropy: right | wrong | difference |"
    table = [head, "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|", *rows]
    notes = _NOTES.format(draws=DRAWS, last=DRAWS - 1, ort=ort.__version__)
    return _HEAD + "\n".join(table) + "\n" + notes + _versions(folder) + _DATA


def _row(folder: Path, name: str) -> str:
    what, record = FILES[name]
    path = folder / f"{name}.onnx"
    nodes = len(find(path))
    cells = [f"{name}.onnx", what, f"{path.stat().st_size / 1000:.0f}", str(nodes)]
    if record:
        m = _measure(path, folder / f"{record}.npz", nodes > 0)
        drawn = [f"{m.sampled}", f"{m.entropy_right:.2f}", f"{m.entropy_wrong:.2f}"] if nodes else ["", "", ""]
        cells += [f"{m.recorded} ({m.recorded / 3.6:.1f} %)", str(m.right), *drawn, f"{m.difference:.1e}"]
    else:
        cells += [""] * 6
    return "| " + " | ".join(cells) + " |"


def _measure(path: Path, record: Path, samples: bool) -> _Measured:
    with np.load(record) as stored:
        images, labels, known = stored["images"], stored["labels"], stored["logits"].astype(np.float64)
    session = _session(path)
    feeds: dict[str, Any] = {"image": images}
    if any(value.name == "monte_carlo" for value in session.get_inputs()):
        feeds["monte_carlo"] = np.array(True)
    logits = session.run(None, feeds)[0].astype(np.float64)
    mean = np.zeros_like(known)
    for step in range(DRAWS if samples else 0):
        switches = {"training_mode": np.array(True), "step": np.array([step], np.int64)}
        mean += _softmax(session.run(None, feeds | switches)[0]) / DRAWS
    right = mean.argmax(1) == labels
    entropy = -(mean * np.log(mean, where=mean > 0, out=np.zeros_like(mean))).sum(1)
    return _Measured(
        recorded=int((known.argmax(1) == labels).sum()),
        right=int((logits.argmax(1) == labels).sum()),
        difference=float(np.abs(logits - known).max()),
        sampled=int(right.sum()),
        entropy_right=float(entropy[right].mean()) if samples else 0.0,
        entropy_wrong=float(entropy[~right].mean()) if samples else 0.0,
    )


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # it warns of inputs that have defaults
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    proto = attach(onnx.load(path, load_external_data=False))
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def _versions(folder: Path) -> str:
    noted: dict[str, dict[str, str]] = json.loads((folder / "versions.json").read_text())
    used: dict[str, list[str]] = {}
    for name, versions in noted.items():
        used.setdefault(", ".join(f"{package} {version}" for package, version in versions.items()), []).append(name)
    lines = [f"- {', '.join(names)}:\n  {versions}" for versions, names in used.items()]
    return "\n".join(lines) + "\n"
