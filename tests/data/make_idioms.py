"""Export the ways in which people write dropout in PyTorch, and look-alikes, to tests/data/idioms.

Run it with torch 2.13.0 and onnxscript installed; the files it wrote are committed. Each idiom is exported by the
dynamo exporter with a symbolic batch size, by the same without optimisation, and by the TorchScript exporter at opset
17.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
import torch.nn.functional as f

OUT = Path(__file__).parent / "idioms"
P, K = 0.2, 0.8
Idiom = tuple[Callable[[torch.Tensor], Any], tuple[int, ...], list[Any] | None]


def nc(x: torch.Tensor) -> tuple[int, ...]:
    """Return the shape of a mask with one entry a channel."""
    return (x.shape[0], x.shape[1], *[1] * (x.ndim - 2))


def rand(x: torch.Tensor) -> torch.Tensor:
    """Draw one number a channel."""
    return torch.rand(nc(x))


MAPS, TEXT = (3, 4, 5, 6), (3, 7, 4)
CHANNELS, TIME = ["spatial", P, [2, 3]], ["variational", P, [1]]

#: name -> (what it computes, shape of x, [kind, ratio, axes] or None for what is no inverted dropout)
IDIOMS: dict[str, Idiom] = {
    "bernoulli_inplace": (lambda x: x * x.new_empty(nc(x)).bernoulli_(K).div_(K), MAPS, CHANNELS),
    "rand_like_slice": (lambda x: x * (torch.rand_like(x[:, :, :1, :1]) < K) / K, MAPS, CHANNELS),
    "rand_like_mean": (lambda x: x * (torch.rand_like(x.mean((2, 3), keepdim=True)) > P) / K, MAPS, CHANNELS),
    "not_less": (lambda x: x * (~(rand(x) < P)).float() / K, MAPS, CHANNELS),
    "one_minus": (lambda x: x * (1 - (rand(x) < P).float()) / K, MAPS, CHANNELS),
    "integer_mask": (lambda x: x * (rand(x) < K).int() / K, MAPS, CHANNELS),
    "where_x_times_0": (lambda x: torch.where(rand(x) < K, x * (1 / K), x * 0), MAPS, CHANNELS),
    "masked_fill_expanded": (lambda x: (x / K).masked_fill(rand(x).lt(P).expand_as(x), 0.0), MAPS, CHANNELS),
    "ceil": (lambda x: x / K * torch.ceil(rand(x) - P), MAPS, CHANNELS),
    "uniform_from_minus_1": (lambda x: x * (torch.empty(nc(x)).uniform_(-1, 1) > 2 * P - 1) / K, MAPS, CHANNELS),
    "mask_unsqueezed": (
        lambda x: x * ((torch.rand(x.shape[0], x.shape[1]) < K).float() / K)[:, :, None, None],
        MAPS,
        CHANNELS,
    ),
    "mask_of_flat_draw": (
        lambda x: x * ((torch.rand(x.shape[0] * x.shape[1]) < K).float() / K).view(x.shape[0], x.shape[1], 1, 1),
        MAPS,
        CHANNELS,
    ),
    "residual_form": (lambda x: x + x * ((rand(x) < K).float() / K - 1), MAPS, CHANNELS),
    "channels_last": (lambda x: x * (torch.rand(x.shape[0], 1, 1, x.shape[3]) < K) / K, MAPS, ["spatial", P, [1, 2]]),
    "dropout1d_unbatched": (lambda x: f.dropout1d(x, P, True), (4, 5), ["spatial", P, [2]]),
    "dropout2d_one_channel": (lambda x: f.dropout2d(x, P, True), (3, 1, 5, 6), CHANNELS),
    "dropout2d_1x1_maps": (lambda x: f.dropout2d(x, P, True), (3, 4, 1, 1), CHANNELS),
    "permuted_dropout1d": (
        lambda x: f.dropout1d(x.permute(0, 2, 1), P, True).permute(0, 2, 1),
        TEXT,
        ["spatial", P, [2]],
    ),
    "locked_batch_first": (lambda x: x * x.new_empty(x.size(0), 1, x.size(2)).bernoulli_(K).div_(K), TEXT, TIME),
    "locked_time_first": (
        lambda x: x * (x.new_empty(1, x.size(1), x.size(2)).bernoulli_(K) / K),
        TEXT,
        ["variational", P, [0]],
    ),
    "ones_like_dropout": (lambda x: x * f.dropout(torch.ones_like(x[:, :1]), P, True), TEXT, TIME),
    "drop_path": (
        lambda x: x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(K).div_(K),
        MAPS,
        ["drop_path", P, [1, 2, 3]],
    ),
    "drop_whole_batch": (
        lambda x: x * torch.empty([1] * 4).bernoulli_(K).div_(K),
        MAPS,
        ["drop_path", P, [0, 1, 2, 3]],
    ),
    "shared": (
        lambda x: (lambda m: x * m + torch.tanh(x) * m)((rand(x) < K).float() / K),
        MAPS,
        ["shared_mask", P, [2, 3]],
    ),
    "two_in_series": (lambda x: f.dropout2d(f.dropout2d(x, P, True), P, True), MAPS, CHANNELS),
    "feature_alpha": (lambda x: f.feature_alpha_dropout(x, P, True), MAPS, ["feature_alpha", P, [2, 3]]),
    "alpha": (lambda x: f.alpha_dropout(x, P, True), MAPS, ["alpha", P, []]),
    "elementwise": (lambda x: f.dropout(x, P, True), MAPS, ["elementwise", P, []]),
    "bernoulli_operator": (lambda x: x * torch.bernoulli(torch.full(nc(x), K)) / K, MAPS, None),
    "no_scale": (lambda x: x * (rand(x) < K), MAPS, None),
    "nearly_the_scale": (lambda x: x * (rand(x) < K) * 1.2, MAPS, None),
    "wrong_side": (lambda x: x * (rand(x) < P) / K, MAPS, None),
    "applied_twice": (lambda x: (lambda m: x * m * m)((rand(x) < K).float() / K), MAPS, None),
    "added": (lambda x: x + (rand(x) < K) / K, MAPS, None),
    "uniform_noise": (lambda x: x * rand(x), MAPS, None),
    "gaussian_noise": (lambda x: x + torch.randn_like(x), MAPS, None),
    "gaussian_dropout": (lambda x: x * (1 + 0.5 * torch.randn(nc(x))), MAPS, None),
    "mask_returned": (lambda x: (lambda m: (x * m, m))((rand(x) < K).float() / K), MAPS, None),
    "mask_used_again": (lambda x: (lambda m: x * m + m)((rand(x) < K).float() / K), MAPS, None),
    "dropblock": (lambda x: x * (1 - f.max_pool2d((torch.rand_like(x) < 0.1).float(), 3, 1, 1)) * 1.1, MAPS, None),
    "mixed_samples": (lambda x: torch.where(rand(x) < K, x / K, x.flip(0)), MAPS, None),
    "filled_with_1": (lambda x: x.masked_fill(rand(x) < P, 1.0) / K, MAPS, None),
    "both_of_two": (lambda x: x * ((rand(x) < K) & (rand(x) < K)) / K, MAPS, None),
    "product_of_two": (lambda x: x * ((rand(x) < K).float() / K * ((rand(x) < K).float() / K)), MAPS, None),
    "two_thresholds": (lambda x: (lambda u: x * ((u < 0.9) & (u > 0.1)) / K)(rand(x)), MAPS, None),
    "a_ratio_a_channel": (
        lambda x: x * (rand(x) < torch.tensor([0.1, 0.2, 0.3, 0.4]).view(1, 4, 1, 1)) / K,
        MAPS,
        None,
    ),
    "ratio_of_the_data": (lambda x: x * (rand(x) < x.mean()) / K, MAPS, None),
    "gumbel": (lambda x: x - torch.log(-torch.log(torch.rand_like(x))), MAPS, None),
}


class Around(torch.nn.Module):
    """relu -> the idiom -> sigmoid."""

    def __init__(self, idiom: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.idiom = idiom

    def forward(self, x: torch.Tensor) -> Any:
        """Compute it."""
        y = self.idiom(torch.relu(x))
        return y if isinstance(y, tuple) else torch.sigmoid(y)


def export(idiom: Callable[[torch.Tensor], Any], shape: tuple[int, ...], how: str) -> onnx.ModelProto:
    """Return what one of the exporters writes."""
    model, x = Around(idiom).train(), torch.randn(*shape)
    if how != "script17":
        dims = ({0: "n"},) if shape[0] > 1 else None
        program = torch.onnx.export(
            model, (x,), dynamo=True, dynamic_shapes=dims, optimize=how == "dynamo", input_names=["x"]
        )
        return program.model_proto
    buffer = io.BytesIO()
    options = {"do_constant_folding": False, "input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}}
    training = torch.onnx.TrainingMode.TRAINING
    torch.onnx.export(model, (x,), buffer, dynamo=False, opset_version=17, training=training, **options)
    return onnx.load_from_string(buffer.getvalue())


def strip(model: onnx.ModelProto) -> None:
    """Take out stack traces, which hold paths of the machine."""
    model.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def main() -> None:
    """Write all files and cases.json."""
    warnings.filterwarnings("ignore")
    OUT.mkdir(exist_ok=True)
    cases = {}
    for name, (idiom, shape, expected) in IDIOMS.items():
        for how in ("dynamo", "unoptimized", "script17"):
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    model = export(idiom, shape, how)
            except Exception as error:  # noqa: BLE001 - exporters raise anything; what they cannot export is skipped
                print(f"{name}: {how}: {type(error).__name__}", file=sys.stderr)
                continue
            strip(model)
            onnx.save(model, OUT / f"{name}_{how}.onnx")
            cases[f"{name}_{how}.onnx"] = expected
    (OUT / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
