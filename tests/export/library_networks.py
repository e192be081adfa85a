"""Networks of public libraries, small and with random weights, and what both of torch's exporters make of them.

Needs torch, and timm, torchvision and transformers for their networks. Without a fitting build, torchvision is imported
with its operators declared beforehand, as docs/training.md says.
"""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import nn

import onnx_spatialdrop as sd
import onnx_spatialdrop.export.torch as sdt
from onnx_spatialdrop.export.left_out import LeftOutWarning
from onnx_spatialdrop.export.torch.survey import survey
from onnx_spatialdrop.graph.layers import layer_names
from onnx_spatialdrop.graph.scopes import spatial_dropouts
from onnx_spatialdrop.verify import verify

__all__ = ["BEYOND_TORCH", "NETWORKS", "Found", "study"]

#: What torch's own exporters cannot do without this package either: network, whether by the newer one.
BEYOND_TORCH: Final = {("transformers Swin", True), ("transformers GPT-2", False)}

_DECLARED: Final[list[Any]] = []


def library(name: str) -> Any:
    """Import a library, beside a build of torch that torchvision does not fit, too."""
    if not _DECLARED and not hasattr(torch.ops.torchvision, "nms"):
        _DECLARED.append(torch.library.Library("torchvision", "DEF"))
        for operator in ("nms", "qnms"):
            _DECLARED[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module(name)


class First(nn.Module):
    """A network of transformers, by its inputs' names, whose first output is taken."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, x: torch.Tensor) -> Any:
        return self.network(**{self.name: x}, return_dict=False)[0]


Made = tuple[nn.Module, torch.Tensor]


def image(size: int) -> torch.Tensor:
    return torch.rand(2, 3, size, size)


def timm(name: str, size: int = 64, **options: Any) -> Callable[[], Made]:
    return lambda: (library("timm").create_model(name, num_classes=5, **options), image(size))


def torchvision(name: str, size: int = 64, **options: Any) -> Callable[[], Made]:
    return lambda: (getattr(library("torchvision.models"), name)(weights=None, num_classes=5, **options), image(size))


def transformers(name: str, x: torch.Tensor, by: str, **options: Any) -> Callable[[], Made]:
    def make() -> Made:
        home = library("transformers")
        network = getattr(home, f"{name}Model")
        config = network.config_class(**options)
        config.use_cache = False
        return First(network(config), by), x

    return make


def text(name: str, **options: Any) -> Callable[[], Made]:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 37}
    ids = torch.arange(14).reshape(2, 7) + 3
    return transformers(name, ids, "input_ids", **({"vocab_size": 100, "pad_token_id": 0} | (options or sizes)))


def vision(name: str, **options: Any) -> Callable[[], Made]:
    return transformers(name, image(32), "pixel_values", **({"image_size": 32} | options))


SMALL: Final = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 37,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.2,
}

#: Library and network -> the module and its input. The ratios are those that the libraries' own recipes train with.
NETWORKS: Final[dict[str, Callable[[], Made]]] = {
    "torch Transformer": lambda: (
        nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True), 2),
        torch.rand(2, 5, 16),
    ),
    "timm vit_tiny": timm(
        "vit_tiny_patch16_224", img_size=64, attn_drop_rate=0.1, proj_drop_rate=0.1, drop_path_rate=0.1
    ),
    "timm deit3_small": timm("deit3_small_patch16_224", img_size=64, drop_path_rate=0.1, drop_rate=0.1),
    "timm convnext_atto": timm("convnext_atto", drop_path_rate=0.1, drop_rate=0.2),
    "timm efficientnet_b0": timm("efficientnet_b0", drop_path_rate=0.2, drop_rate=0.2),
    "timm mobilenetv3_small": timm("mobilenetv3_small_050", drop_rate=0.2, drop_path_rate=0.1),
    "timm resnet10t": timm("resnet10t", drop_rate=0.1, drop_path_rate=0.1),
    "timm regnetx_002": timm("regnetx_002", drop_rate=0.1, drop_path_rate=0.1),
    "timm poolformer_s12": timm("poolformer_s12", drop_path_rate=0.1),
    "timm mobilevit_xxs": timm("mobilevit_xxs", drop_rate=0.1, drop_path_rate=0.1),
    "timm edgenext_xx_small": timm("edgenext_xx_small", drop_path_rate=0.1, drop_rate=0.1),
    "timm ghostnet_050": timm("ghostnet_050", drop_rate=0.2),
    "timm rexnet_100": timm("rexnet_100", drop_rate=0.2, drop_path_rate=0.1),
    "timm pit_ti": timm("pit_ti_224", size=224, drop_path_rate=0.1, attn_drop_rate=0.1),
    "timm cait_xxs24": timm("cait_xxs24_224", img_size=64, drop_path_rate=0.05),
    "timm mixer_s32": timm("mixer_s32_224", size=224, drop_path_rate=0.1, drop_rate=0.1),
    "timm densenet121": timm("densenet121", drop_rate=0.1),
    "torchvision alexnet": torchvision("alexnet", size=224),
    "torchvision squeezenet1_1": torchvision("squeezenet1_1"),
    "torchvision mobilenet_v3_small": torchvision("mobilenet_v3_small"),
    "torchvision efficientnet_b0": torchvision("efficientnet_b0"),
    "torchvision swin_t": torchvision("swin_t", attention_dropout=0.1, dropout=0.1),
    "torchvision convnext_tiny": torchvision("convnext_tiny"),
    "torchvision googlenet": torchvision("googlenet", init_weights=False, aux_logits=False),
    "torchvision mnasnet0_5": torchvision("mnasnet0_5"),
    "torchvision densenet121": torchvision("densenet121", drop_rate=0.1),
    "transformers BERT": text("Bert"),
    "transformers RoBERTa": text("Roberta"),
    "transformers ELECTRA": text("Electra"),
    "transformers ALBERT": text("Albert", vocab_size=100, embedding_size=16, **SMALL, num_hidden_groups=1),
    "transformers DistilBERT": text("DistilBert", vocab_size=100, dim=32, n_layers=2, n_heads=2, hidden_dim=37),
    "transformers DeBERTa v2": text("DebertaV2"),
    "transformers MPNet": text("MPNet"),
    "transformers GPT-2": text("GPT2", vocab_size=100, n_embd=32, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2),
    "transformers OPT": text(
        "OPT",
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=37,
        word_embed_proj_dim=32,
        attention_dropout=0.1,
        max_position_embeddings=64,
    ),
    "transformers ViT": vision("ViT", patch_size=8, **SMALL),
    "transformers Swin": vision("Swin", patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4),
    "transformers ConvNeXt": vision("ConvNext", hidden_sizes=[8, 16], depths=[1, 2], num_stages=2, drop_path_rate=0.1),
    "transformers DINOv2": vision(
        "Dinov2", patch_size=8, drop_path_rate=0.1, **{k: v for k, v in SMALL.items() if k != "intermediate_size"}
    ),
    "transformers SegFormer": vision(
        "Segformer",
        depths=[1, 1],
        num_encoder_blocks=2,
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        attention_probs_dropout_prob=0.1,
        hidden_dropout_prob=0.1,
    ),
    "transformers BEiT": vision("Beit", patch_size=8, vocab_size=100, **SMALL),
}


@dataclass
class Found:
    """What came out of one network and one exporter.

    Attributes:
        calls: how many dropouts torch calls in training mode.
        nodes: how many nodes the file has.
        names: whether each is named after the layer that calls it, as torch's own hooks tell.
        inference: the largest difference to torch in inference mode, relative.
        verified: whether masks and outputs are torch's in two steps; else what parts.
        left_out: what the export says it leaves out.
        seconds: how long the export took.
    """

    calls: int
    nodes: int
    names: bool
    inference: float
    verified: str
    left_out: str
    seconds: float


def study(name: str, dynamo: bool) -> Found:
    """Export a network with all its dropout, and compare it with torch."""
    torch.manual_seed(0)
    module, x = NETWORKS[name]()
    module.eval()
    seen = survey(module, (x,), {})
    wanted = [call.layer for call in seen.calls if "alpha" not in call.kind]
    parts = {name: part for name, part in module.named_modules() if name in seen.custom}
    hooks = [part.register_forward_hook(lambda *_, name=name: wanted.append(name)) for name, part in parts.items()]
    with torch.no_grad():
        output = module(x.clone())
    for hook in hooks:
        hook.remove()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        start = time.perf_counter()
        model = sdt.export(module, (x,), elementwise=True, dynamo=dynamo)
        seconds = time.perf_counter() - start
    told = [str(each.message) for each in said if isinstance(each.message, LeftOutWarning)]
    layers = [each.split(":")[0] for each in layer_names(site.node for site in spatial_dropouts(model))]
    session = sd.session(model)
    expected = (output[0] if isinstance(output, tuple) else output).numpy()
    got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    result = verify(module, sd.expand(model, form="mask-inputs"), x.numpy(), steps=2, tolerance=1e-4)
    return Found(
        calls=len(wanted),
        nodes=len(layers),
        names=sorted(layers) == sorted(each or "SpatialDropout" for each in wanted),
        inference=float(np.abs(got - expected).max() / max(1e-6, np.abs(expected).max())),
        verified="" if result else str(result).splitlines()[0],
        left_out="; ".join(told),
        seconds=seconds,
    )
