"""Models of transformers: dropout kept in one call, and dropout that is always on found, switched and taken out."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_spatialdrop as sd

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch onnxscript)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (pip install transformers)")
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, not ours


def bert() -> tuple[Any, Any]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=50, attn_implementation="eager", **sizes)
    torch.manual_seed(0)
    return transformers.BertModel(config).eval(), (torch.arange(12).reshape(2, 6),)


def test_one_call_keeps_the_dropout_of_bert(tmp_path: Path) -> None:
    from onnx_spatialdrop.export.torch import export

    module, args = bert()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        file = export(module, args, tmp_path / "bert.onnx", elementwise=True)
    found = sd.find(file)
    assert len(found) >= 3  # embeddings, attention's output, the layer's output
    with torch.no_grad():
        wanted = module(*args).last_hidden_state.numpy()
    run, (ids, *_) = sd.session(file), (each.name for each in sd.session(file).get_inputs())
    feeds = {ids: args[0].numpy()}
    np.testing.assert_allclose(run.run(None, feeds)[0], wanted, atol=1e-4)
    drawn = [run.run(None, feeds | {"training_mode": np.array(True), "step": np.array([n])})[0] for n in (0, 1, 0)]
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert np.abs(drawn[0] - drawn[1]).max() > 0.01


@pytest.mark.parametrize("dynamo", [False, True])
def test_the_prenet_of_speecht5_which_drops_in_evaluation_too(dynamo: bool, tmp_path: Path) -> None:
    from transformers.models.speecht5.modeling_speecht5 import SpeechT5SpeechDecoderPrenet

    sizes = {"num_mel_bins": 8, "speech_decoder_prenet_units": 16, "hidden_size": 16, "speaker_embedding_dim": 4}
    torch.manual_seed(0)
    module = SpeechT5SpeechDecoderPrenet(transformers.SpeechT5Config(max_speech_positions=20, **sizes)).eval()
    args, file = (torch.randn(2, 5, 8), torch.randn(2, 4)), tmp_path / "prenet.onnx"
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        torch.onnx.export(module, args, file, dynamo=dynamo, opset_version=18)
    exported = onnx.load(file)
    assert "live-dropout" in [finding.rule for finding in sd.check(exported)]
    fused = sd.fuse(exported)
    assert [(each.ratio, tuple(each.axes)) for each in sd.find(fused)] == [(0.5, (0,))] * 2  # one mask for all samples
    clean = sd.to_inference(exported)
    assert not any(node.op_type.startswith("Random") for node in clean.graph.node)
    names = [each.name for each in sd.session(clean).get_inputs()]
    feeds = dict(zip(names, (each.numpy() for each in args), strict=True))
    module._consistent_dropout = lambda x, p: x  # noqa: ARG005 - as the model calls it
    with torch.no_grad():
        np.testing.assert_allclose(sd.session(clean).run(None, feeds)[0], module(*args).numpy(), atol=1e-4)
