"""The digits network, its batches, and one function for each trainer: what benchmarks/training.py compares."""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from torch import nn

import onnx_spatialdrop as sd
from onnx_spatialdrop.training import artifacts, update

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
import digits

EPOCHS: Final = 30
BATCH: Final = 64
RATE: Final = 0.3
LEARNING_RATE: Final = 5e-3
DROPPED: Final = ("relu", "max_pool2d", "relu_2")

Batches = list[np.ndarray]
#: After training: what the network answers for images, and seconds a step.
Trained = tuple[Callable[[np.ndarray], np.ndarray], float]


def network(kind: Callable[[float], nn.Module]) -> nn.Sequential:
    """Return the digits network of models/build_torch.py, without its batch norm, with this kind of dropout."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), kind(RATE)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), kind(RATE)),
        *(nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), kind(RATE)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10)),
    )


def exported(seed: int) -> tuple[nn.Sequential, onnx.ModelProto]:
    """Return the network with the weights of ``seed``, and its inference model as PyTorch exports it."""
    torch.manual_seed(seed)
    module = network(nn.Dropout2d)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (torch.zeros(2, 1, 8, 8),),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    return module, program.model_proto


def batches(seed: int, count: int, epochs: int) -> Batches:
    generator = np.random.default_rng(seed)
    return [
        chosen for _ in range(epochs) for chosen in np.array_split(generator.permutation(count), -(-count // BATCH))
    ]


def rate_at(step: int, steps: int) -> float:
    return LEARNING_RATE * (1 - step / steps)


def train_torch(module: nn.Module, data: digits.Digits, chosen: Batches, *extra: torch.Tensor) -> Trained:
    torch.manual_seed(int(chosen[0][0]))  # one for each seed, after whatever making the module drew
    images, labels = torch.from_numpy(data.train_images)[:, None], torch.from_numpy(data.train_labels)
    optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE)
    module.train()
    seconds = []
    for step, batch in enumerate(chosen):
        x, y = images[batch], labels[batch]
        start = time.perf_counter()
        optimizer.param_groups[0]["lr"] = rate_at(step, len(chosen))
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x, *extra), y).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    module.eval()

    def answer(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            off = [torch.zeros_like(each) for each in extra]
            return np.asarray(module(torch.from_numpy(x), *off).numpy())

    return answer, float(np.median(seconds))


def train_ort(model: onnx.ModelProto, data: digits.Digits, chosen: Batches, form: str | None) -> Trained:
    import onnxruntime
    from onnxruntime.training.api import CheckpointState, Module, Optimizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        made = artifacts(model, folder=folder, form=form)
        state = CheckpointState.load_checkpoint(str(made.checkpoint))
        module = Module(str(made.training), state, str(made.evaluation), session_options=options)
        optimizer = Optimizer(str(made.optimizer), module)
        module.train()
        seconds = []
        for step, batch in enumerate(chosen):
            x, y = data.train_images[batch][:, None], data.train_labels[batch]
            draw = [np.array([step])] if "step" in made.inputs else []
            start = time.perf_counter()
            optimizer.set_learning_rate(rate_at(step, len(chosen)))
            module(x, *draw, y)
            optimizer.step()
            module.lazy_reset_grad()
            seconds.append(time.perf_counter() - start)
        inference = update(onnx.load(made.inference), state)
    session = onnxruntime.InferenceSession(inference.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"image": x})[0], float(np.median(seconds))


def variants(seed: int, data: digits.Digits, epochs: int = EPOCHS) -> dict[str, Callable[[], Trained]]:
    """Return what is compared; each entry trains anew from the same weights."""
    import onnx2pytorch
    import onnx2torch

    from onnx_spatialdrop.training import pytorch

    module, clean = exported(seed)
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    chosen = batches(seed, len(data.train_labels), epochs)
    spatial = sd.insert(clean, after=DROPPED, rate=RATE, seed=seed)
    elementwise = sd.insert(clean, after=DROPPED, rate=RATE, axes=[], seed=seed)

    def own(kind: type[nn.Module]) -> Trained:
        fresh = network(kind)
        fresh.load_state_dict(weights)
        return train_torch(fresh, data, chosen)

    def through_onnx2torch() -> Trained:
        return train_torch(onnx2torch.convert(sd.expand(spatial, target="onnx2torch")), data, chosen)

    def through_onnx2pytorch() -> Trained:
        expanded = onnx2pytorch.ConvertModel(sd.expand(spatial, target="onnx2pytorch"))
        return train_torch(expanded, data, chosen, torch.tensor(True))

    runs: dict[str, Callable[[], Trained]] = {
        "none|onnxruntime-training": lambda: train_ort(clean, data, chosen, None),
        "none|torch": lambda: own(nn.Identity),
        "element-wise|onnxruntime-training, dropout": lambda: train_ort(elementwise, data, chosen, "dropout"),
        "element-wise|torch, nn.Dropout": lambda: own(nn.Dropout),
        "spatial|torch, nn.Dropout2d": lambda: own(nn.Dropout2d),
        "spatial|onnx2torch, our converter": lambda: train_torch(pytorch.convert(spatial), data, chosen),
        "spatial|onnx2torch, dropout": through_onnx2torch,
        "spatial|onnx2pytorch, uniform": through_onnx2pytorch,
    }
    for form in ("dropout", "uniform", "philox", "philox-int32"):
        runs[f"spatial|onnxruntime-training, {form}"] = lambda form=form: train_ort(spatial, data, chosen, form)
    return runs
