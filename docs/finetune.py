"""Fine-tune an exported inference model with spatial dropout, and deploy it: the script behind docs/training.md.

    python docs/finetune.py

A network was trained on digits and exported with PyTorch's exporter; of its training code and its dropout nothing is
left but the .onnx file. Now the scanner feeds its pages the other way round: white is black, and left is right. There
are 200 such images with labels. The script writes docs/finetune.png. It needs the training environment of
docs/training.md, scikit-learn and matplotlib.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
from onnxruntime.training.api import CheckpointState, Module, Optimizer

import onnx_spatialdrop as sd
from onnx_spatialdrop.training import artifacts, update

HERE: Final = Path(__file__).parent
MODELS: Final = HERE.parent / "models"
sys.path.insert(0, str(MODELS))
import digits

EXPORTED: Final = MODELS / "digits_torch_eval_export.onnx"
EPOCHS: Final = 60
BATCH: Final = 20
Curves = dict[str, list[float]]


def new_pages() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return 200 images to train on and 360 held back, as the scanner feeds them now, with labels."""
    data = digits.load()
    turned = [np.ascontiguousarray(1 - images[:, None, :, ::-1]) for images in (data.train_images, data.test_images)]
    return turned[0][:200], data.train_labels[:200], turned[1], data.test_labels


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Return a session of plain ONNX Runtime."""
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def fine_tune(rate: float, folder: Path) -> tuple[onnx.ModelProto, onnx.ModelProto, Curves]:
    """Return the inference model, the model with its dropout on a switch, and the losses after each epoch."""
    x, y, held_x, held_y = new_pages()
    model = sd.insert(onnx.load(EXPORTED), after=["relu", "max_pool2d", "relu_2"], rate=rate, seed=1)
    made = artifacts(model, folder=folder, form="philox", loss="cross_entropy", optimizer="adamw")

    state = CheckpointState.load_checkpoint(str(made.checkpoint))
    module = Module(str(made.training), state, str(made.evaluation))
    optimizer = Optimizer(str(made.optimizer), module)
    order, step = np.random.default_rng(0), 0
    curves: Curves = {"training": [], "held back": []}
    for epoch in range(EPOCHS):
        module.train()
        optimizer.set_learning_rate(2e-3 * (1 - epoch / EPOCHS))
        for batch in np.array_split(order.permutation(len(x)), len(x) // BATCH):
            module(x[batch], np.array([step]), y[batch])  # step names the draw: the run can be repeated bit for bit
            optimizer.step()
            module.lazy_reset_grad()
            step += 1
        module.eval()
        curves["training"].append(float(module(x, y)))
        curves["held back"].append(float(module(held_x, held_y)))
    return update(onnx.load(made.inference), state), update(model, state), curves


def plot(curves: dict[str, Curves], path: Path) -> None:
    """Draw the losses after each epoch."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.4), dpi=100)
    for (name, losses), color in zip(curves.items(), ("tab:gray", "tab:blue"), strict=True):
        for which, style in (("training", ":"), ("held back", "-")):
            axes.plot(range(1, EPOCHS + 1), losses[which], style, color=color, label=f"{name}, {which} images")
    axes.set(xlabel="epoch", ylabel="cross entropy, dropout off", yscale="log")
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    """Fine-tune with and without dropout, deploy, and ask the dropout where the network guesses."""
    _, _, held_x, held_y = new_pages()
    before = session(onnx.load(EXPORTED)).run(None, {"image": held_x})[0]
    print(f"as exported: {np.sum(before.argmax(1) == held_y)} of {len(held_y)} right on the new pages")
    curves = {}
    for name, rate in (("no dropout", 0.0), ("spatial dropout, rate 0.2", 0.2)):
        with tempfile.TemporaryDirectory() as folder:
            deployed, switched, curves[name] = fine_tune(rate, Path(folder))
        logits = session(deployed).run(None, {"image": held_x})[0]
        right = np.sum(logits.argmax(1) == held_y)
        held = curves[name]["held back"]
        print(f"{name}: {right} of {len(held_y)} right, loss {held[-1]:.3f} (lowest {min(held):.3f})")
    plot(curves, HERE / "finetune.png")

    # Deployed: no trace of dropout. And the other file, whose dropout a switch turns on: it knows when it guesses.
    assert not any(node.domain for node in deployed.graph.node)
    on = {"image": held_x, "training_mode": np.array(True)}
    monte_carlo = sd.session(switched)
    draws = [monte_carlo.run(["logits"], on | {"step": np.array([n])})[0] for n in range(50)]
    each = [np.exp(draw) / np.exp(draw).sum(1, keepdims=True) for draw in draws]
    mean = np.mean(each, 0)
    entropy, good = -(mean * np.log(mean + 1e-12)).sum(1), mean.argmax(1) == held_y
    right, wrong = entropy[good].mean(), entropy[~good].mean()
    print(f"50 draws: {good.sum()} right, entropy {right:.2f} where right, {wrong:.2f} where wrong")


if __name__ == "__main__":
    main()
