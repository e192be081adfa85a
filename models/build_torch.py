"""PyTorch: train the NCHW network, export it as its own exporter writes it, and put SpatialDropout nodes into it.

Only metadata is taken from what the exporter wrote: its stack traces name files of this machine.
"""

from __future__ import annotations

import copy
import warnings
from functools import cache
from pathlib import Path
from typing import Final

import digits
import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import nn

from onnx_spatialdrop import io
from onnx_spatialdrop.passes.insert import insert

__all__ = ["RATE", "build", "build_eval_export", "build_float16", "build_train_export"]

RATE: Final = 0.3
EPOCHS: Final = 40
BATCH: Final = 64
#: The values after which the network has its dropout layers, as the exporter names them.
DROPPED: Final = ("relu", "max_pool2d", "relu_2")


def network() -> nn.Sequential:
    """Return the untrained network: three stages of Conv, BatchNorm, ReLU and Dropout2d; 19,306 parameters."""
    torch.manual_seed(digits.SEED)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout2d(RATE)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(RATE)),
        *(nn.Conv2d(32, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(), nn.Dropout2d(RATE)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10)),
    )


@cache
def trained() -> nn.Sequential:
    """Train the network on one thread, so that sums have one order; the same weights every time."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    data, model = digits.load(), network()
    images, labels = torch.from_numpy(data.train_images)[:, None], torch.from_numpy(data.train_labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-2)
    batches = -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=EPOCHS * batches)
    order = torch.Generator().manual_seed(digits.SEED)
    model.train()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images), generator=order).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def export(model: nn.Sequential, dtype: torch.dtype = torch.float32) -> onnx.ModelProto:
    """Return what torch.onnx.export writes for ``model`` in its present mode, with a batch of any size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one of them says that the model is in training mode; that is the point
        program = torch.onnx.export(
            model,
            (torch.zeros(2, 1, 8, 8, dtype=dtype),),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)
    return ir.to_proto(program.model)


def build_eval_export(folder: Path) -> None:
    """Write the exporter's own file of the network in eval mode: no trace of the dropout layers."""
    io.save(export(trained()), folder / "digits_torch_eval_export.onnx")


def build_train_export(folder: Path) -> None:
    """Write the exporter's own file of the network in training mode."""
    io.save(export(copy.deepcopy(trained()).train()), folder / "digits_torch_train_export.onnx")


def build(folder: Path) -> None:
    """Write digits_torch: the eval export with a SpatialDropout node where each Dropout2d layer was."""
    data, model = digits.load(), trained()
    images = data.test_images[:, None]
    with torch.no_grad():
        logits = model(torch.from_numpy(images)).numpy()
    insert(export(model), folder / "digits_torch.onnx", after=DROPPED, rate=RATE, seed=digits.SEED)
    digits.save_record(folder / "digits_torch.npz", images, data.test_labels, logits)


def build_float16(folder: Path) -> None:
    """Write digits_float16: the same network after ``.half()``, with the logits that PyTorch computes in float16."""
    data = digits.load()
    images = data.test_images[:, None].astype("float16")
    half = copy.deepcopy(trained()).half()
    with torch.no_grad():
        logits = half(torch.from_numpy(images)).numpy()
    proto = export(half, torch.float16)
    insert(proto, folder / "digits_float16.onnx", after=DROPPED, rate=RATE, seed=digits.SEED)
    digits.save_record(folder / "digits_float16.npz", images, data.test_labels, logits)
