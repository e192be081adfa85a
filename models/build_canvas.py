"""Train the segmentation network: ``python models/build_canvas.py`` writes canvas.onnx and canvas.npz.

It needs PyTorch with onnxscript, and scikit-learn; using the files needs neither.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from canvas import CLASSES, SIZE, canvases
from digits import load, replace_bytes
from torch import nn
from torch.nn import functional as F  # noqa: N812

import onnx_spatialdrop as sd

FOLDER: Final = Path(__file__).parent
STEPS: Final = 6000
SHOWN: Final = 24


class Net(nn.Module):
    """A U-Net of two levels; spatial dropout at its bottleneck and after the first upward level."""

    def __init__(self) -> None:
        super().__init__()

        def pair(given: int, made: int) -> nn.Sequential:
            layers = [nn.Conv2d(given, made, 3, padding=1), nn.ReLU(), nn.Conv2d(made, made, 3, padding=1), nn.ReLU()]
            return nn.Sequential(*layers)

        self.first, self.second, self.bottom = pair(1, 12), pair(12, 24), pair(24, 48)
        self.up_second, self.up_first = pair(48 + 24, 24), pair(24 + 12, 12)
        self.head = nn.Conv2d(12, CLASSES, 1)
        self.rate = 0.2

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits [N, 11, 40, 40]."""
        first = self.first(image)
        second = self.second(F.max_pool2d(first, 2))
        x = F.dropout2d(self.bottom(F.max_pool2d(second, 2)), self.rate, self.training)
        x = self.up_second(torch.cat([F.interpolate(x, scale_factor=2.0), second], 1))
        x = F.dropout2d(x, self.rate, self.training)
        x = self.up_first(torch.cat([F.interpolate(x, scale_factor=2.0), first], 1))
        return self.head(x)


def main() -> None:
    """Train, say how right it is, and write both files."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data, start = load(), time.process_time()
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        images, labels = canvases(data.train_images, data.train_labels, 16, 1000 + step)
        loss = F.cross_entropy(net(torch.tensor(images)), torch.tensor(labels.astype(np.int64)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 249:
            print(f"step {step + 1}: loss {loss.item():.3f}, {time.process_time() - start:.0f} s", flush=True)
    images, labels = canvases(data.test_images, data.test_labels, SHOWN, 7)
    net.eval()
    with torch.no_grad():
        logits = net(torch.tensor(images)).numpy()
    right = logits.argmax(1) == labels
    print(f"right: {right.mean():.4f}, of inked pixels {right[labels > 0].mean():.4f}")
    file = FOLDER / "canvas.tmp.onnx"
    torch.onnx.export(
        net, (torch.zeros(2, 1, SIZE, SIZE),), file, input_names=["image"], output_names=["logits"], dynamo=True,
        dynamic_shapes={"image": {0: "batch"}}, opset_version=20, external_data=False,
    )  # fmt: skip
    model = onnx.load(file)
    file.unlink()
    for node in model.graph.node:
        del node.metadata_props[:]
    del model.graph.metadata_props[:]
    places = [node.input[0] for node in model.graph.node if node.op_type in ("Resize", "Upsample")]
    made = sd.insert(model, after=places, rate=0.2)
    replace_bytes(FOLDER / "canvas.onnx", made.SerializeToString(deterministic=True))
    np.savez_compressed(FOLDER / "canvas.npz", images=(images * 255).round().astype(np.uint8), labels=labels)


if __name__ == "__main__":
    main()
