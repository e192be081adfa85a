"""Weights of batch norms, embeddings and recurrent layers: found, trained by right gradients, and put back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import zoo
from training.weighted_models import data, normalised, recurrent

import onnx_spatialdrop as sd
from onnx_spatialdrop.errors import FormError, TrainerError
from onnx_spatialdrop.passes.expand.gradients import GradientsPass
from onnx_spatialdrop.training import artifacts, trainable, trainer, update

MODELS = {
    "batch norm": normalised,
    "LSTM": lambda: recurrent("LSTM"),
    "GRU": lambda: recurrent("GRU"),
}
RNN = ["table", "rnn_w", "rnn_r", "rnn_b", "head_w", "head_b"]
WEIGHTS = {"batch norm": ["conv_w", "bn_scale", "bn_b", "head_w", "head_b"], "LSTM": RNN, "GRU": RNN}
REASON = trainer.missing_reason()
with_trainer = pytest.mark.skipif(REASON is not None, reason=str(REASON))
models = pytest.mark.parametrize("name", MODELS)


def cross_entropy(model: onnx.ModelProto, x: np.ndarray, labels: np.ndarray) -> float:
    session = zoo.session(ir.from_proto(model))
    logits = session.run(["logits"], {session.get_inputs()[0].name: x})[0].astype(np.float64)
    return float((np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]).mean())


@models
def test_they_are_found_and_put_back(name: str) -> None:
    model = MODELS[name]()
    assert trainable(ir.from_proto(model)) == WEIGHTS[name]
    clean = sd.remove(model)
    old = {each.name: onnx.numpy_helper.to_array(each) for each in clean.graph.initializer}
    new = {weight: old[weight] * 1.5 for weight in WEIGHTS[name]}
    updated = update(clean, new)
    for each in updated.graph.initializer:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(each), new.get(each.name, old[each.name]))
    assert abs(cross_entropy(updated, *data(model)) - cross_entropy(clean, *data(model))) > 1e-3


@models
def test_what_is_written_for_gradients_computes_the_same(name: str) -> None:
    model = ir.from_proto(sd.remove(MODELS[name]()))
    x, _ = data(MODELS[name]())
    before = zoo.session(model).run(None, {model.graph.inputs[0].name: x})[0]
    write = GradientsPass()
    assert write.call(model).modified
    (line,) = write.said
    assert line.startswith(
        "batch norm written out in 1 " if name == "batch norm" else "initial states of zeros given to 1"
    )
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    np.testing.assert_allclose(zoo.session(model).run(None, {model.graph.inputs[0].name: x})[0], before, rtol=1e-5)
    assert not GradientsPass().call(model).modified


def test_batch_norm_at_every_rank_and_of_unknown_rank() -> None:
    for shape in ((3, 4), (3, 4, 2), (3, 4, 2, 5, 2)):
        dims = ",".join(map(str, shape))
        proto = onnx.parser.parse_model(
            '<ir_version: 9, opset_import: ["": 18]> g'
            f" (float[{dims}] x, float[4] s, float[4] b, float[4] m, float[4] v) => (float[{dims}] y)"
            " { a = Relu(x)  y = BatchNormalization<epsilon=0.5>(a, s, b, m, v) }"
        )
        model, rng = ir.from_proto(proto), np.random.default_rng(0)
        feeds = {
            n: rng.uniform(0.5, 1, s).astype(np.float32) for n, s in zip("xsbmv", (shape, *[(4,)] * 4), strict=True)
        }
        before = zoo.session(model).run(None, feeds)[0]
        GradientsPass().call(model)
        assert "BatchNormalization" not in Counter(node.op_type for node in model.graph)
        np.testing.assert_allclose(zoo.session(model).run(None, feeds)[0], before, rtol=1e-5, atol=1e-6)
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(FormError, match="the rank of its input is unknown, and onnxruntime-training would"):
        GradientsPass().call(ir.from_proto(proto))


@with_trainer
@models
def test_they_train_and_the_inference_model_has_the_loss_of_the_trainer(name: str, tmp_path: Path) -> None:
    from training.trainer_runs import start

    model = MODELS[name]()
    made, (x, labels) = artifacts(model, folder=tmp_path), data(model)
    assert made.requires_grad == tuple(WEIGHTS[name])
    state, module, optimizer = start(made)
    optimizer.set_learning_rate(0.02)
    for _ in range(60):
        module(x, labels)
        optimizer.step()
        module.lazy_reset_grad()
    module.eval()
    loss = float(module(x, labels))
    assert loss < cross_entropy(sd.remove(model), x, labels) / 2
    trained = update(onnx.load(made.inference), state)
    assert cross_entropy(trained, x, labels) == pytest.approx(loss, rel=1e-4)
    assert cross_entropy(update(sd.remove(model), state), x, labels) == pytest.approx(loss, rel=1e-4)
    counted = Counter(node.op_type for node in trained.graph.node)
    assert counted == Counter(node.op_type for node in sd.remove(model).graph.node)  # deployed as it came
    before = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    for each in trained.graph.initializer:
        changed = np.abs(onnx.numpy_helper.to_array(each).astype(float) - before[each.name]).max() > 1e-4
        assert changed == (each.name in WEIGHTS[name]), each.name


@with_trainer
@models
def test_their_gradients_are_slopes_of_the_loss(name: str, tmp_path: Path) -> None:
    """In its own direction a gradient's slope is its length; with the masks of one step."""
    from training.trainer_runs import start

    model = MODELS[name]()
    made, (x, labels) = artifacts(model, folder=tmp_path, form="philox", optimizer=None), data(model)
    state, module, _ = start(made)
    module.train()
    module(x, np.array([3]), labels)
    weights = {each: np.array(state.parameters[each].data) for each in WEIGHTS[name]}
    gradients = {each: np.array(state.parameters[each].grad, np.float64) for each in weights}
    for each, weight in weights.items():
        length = np.linalg.norm(gradients[each])
        direction = (gradients[each] / length).astype(np.float32)
        losses = []
        for step in (1e-2, -1e-2):
            state.parameters[each].data = weight + np.float32(step) * direction
            losses.append(float(module(x, np.array([3]), labels)))
        state.parameters[each].data = weight
        slope = (losses[0] - losses[1]) / 2e-2
        assert slope == pytest.approx(length, rel=0.01), each


@with_trainer
def test_a_layer_without_a_gradient_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="cannot build the training graph: .*RNN"):
        artifacts(recurrent("RNN"), folder=tmp_path)
    assert not list(tmp_path.iterdir())
    artifacts(recurrent("RNN"), folder=tmp_path, requires_grad=["head_w", "head_b"])


@with_trainer
def test_the_trainers_own_batch_norm_would_not_fit_the_inference_model(tmp_path: Path) -> None:
    """The trap: it normalises by the batch in training, and leaves the statistics as they were."""
    from onnxruntime.training.api import CheckpointState, Module

    model = sd.remove(normalised())
    x, labels = data(model)
    model.ir_version = 9
    trainer.generate(model, tmp_path, "cross_entropy", None, ["head_w"])
    state = CheckpointState.load_checkpoint(str(tmp_path / "checkpoint"))
    module = Module(str(tmp_path / "training_model.onnx"), state, str(tmp_path / "eval_model.onnx"))
    training = float(module.train()(x, labels))
    assert abs(training - float(module.eval()(x, labels))) > 0.05
