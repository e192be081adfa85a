"""onnxruntime-training's artifacts: random in training, off in evaluation, weights back in an inference model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import zoo
from building import dropout_model
from training.trainer_runs import start

import onnx_spatialdrop as sd
from onnx_spatialdrop import io, reference
from onnx_spatialdrop.errors import FormError, TrainerError
from onnx_spatialdrop.training import Artifacts, artifacts, trainer, update

REASON = trainer.missing_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

FORMS = ("dropout", "uniform", "philox", "philox-int32")


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    logits = logits.astype(np.float64)
    return float((np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]).mean())


def losses(made: Artifacts, module: Any, count: int, name: str) -> list[float]:
    record, found = zoo.record(name), []
    for step in range(count):
        draw = [np.array([step])] if module.training and "step" in made.inputs else []
        found.append(float(module(record.images, *draw, record.labels)))
        module.lazy_reset_grad()
    return found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["digits_torch", "digits_keras", "digits_function", "digits_external"])
def test_random_in_training_off_in_evaluation(form: str, name: str, tmp_path: Path) -> None:
    made = artifacts(zoo.path(name), folder=tmp_path / "made", form=form)
    record = zoo.record(name)
    _, module, _ = start(made)
    plain = cross_entropy(record.logits, record.labels)
    module.train()
    assert len(set(losses(made, module, 4, name))) == 4
    module.eval()
    np.testing.assert_allclose(losses(made, module, 2, name), plain, rtol=1e-3)
    assert made.inputs == (("image", "step", "labels") if form.startswith("philox") else ("image", "labels"))
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "checkpoint", "eval_model.onnx", "inference.onnx", "optimizer_model.onnx", "training_model.onnx",
    ]  # fmt: skip


def test_onnxruntime_trainings_own_eval_model_would_stay_random(tmp_path: Path) -> None:
    """The trap: it switches Dropout off, and knows of no other randomness."""
    from onnxruntime.training.api import CheckpointState, Module

    expanded = sd.expand(dropped_always(), target="training", form="uniform")
    trainer.generate(expanded, tmp_path, "cross_entropy", None, ["0.weight"])
    state = CheckpointState.load_checkpoint(str(tmp_path / "checkpoint"))
    module = Module(str(tmp_path / "training_model.onnx"), state, str(tmp_path / "eval_model.onnx")).eval()
    record = zoo.record("digits_torch")
    assert len({float(module(record.images, record.labels)) for _ in range(4)}) > 1


def dropped_always() -> onnx.ModelProto:
    proto = onnx.load(zoo.path("digits_torch"))
    for each in list(proto.graph.input):
        if each.name == "training_mode":
            proto.graph.input.remove(each)
    for each in proto.graph.initializer:
        if each.name == "training_mode":
            each.CopyFrom(onnx.numpy_helper.from_array(np.array([True]).reshape(tuple(each.dims)), "training_mode"))
    return proto


def test_philox_draws_the_operators_masks_and_both_variants_train_alike(tmp_path: Path) -> None:
    trained = []
    for form in ("philox", "philox-int32"):
        made = artifacts(zoo.path("digits_torch"), folder=tmp_path / form, form=form)
        state, module, optimizer = start(made)
        record = zoo.record("digits_torch")
        for step in range(3):
            module(record.images, np.array([step]), record.labels)
            optimizer.step()
            module.lazy_reset_grad()
        trained.append({name: np.array(each.data) for name, each in state.parameters})
    assert trained[0].keys() == trained[1].keys()
    for name, array in trained[0].items():
        np.testing.assert_array_equal(array, trained[1][name])


def test_the_masks_of_the_training_model_are_the_references(tmp_path: Path) -> None:
    """One weight a channel, multiplied in before the dropout: its gradient is the sum over what was kept."""
    import onnxruntime

    proto = dropout_model(shape=(2, 4, 3, 3), opset=18, mask=False)
    proto.graph.node[0].input[0] = "weighed"
    proto.graph.node.insert(0, onnx.helper.make_node("Mul", ["x", "w"], ["weighed"], name="weigh"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 4, 1, 1), np.float32), "w"))
    made = artifacts(proto, folder=tmp_path, form="philox", requires_grad=["w"], loss="l1", optimizer=None)
    assert made.optimizer is None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    state, module, _ = start(made)
    x = np.ones((2, 4, 3, 3), np.float32)
    module.train()
    module(x, np.array([5]), np.zeros_like(x))
    mask = reference.dropout_mask(x.shape, [2, 3], 0.3, 7, 5)
    expected = (mask * 9 / 0.7).sum(0) / x.size
    np.testing.assert_allclose(state.parameters["w"].grad.ravel(), expected.ravel(), rtol=1e-6)


def test_trained_weights_come_back(tmp_path: Path) -> None:
    import onnxruntime
    from onnxruntime.training.api import CheckpointState

    made = artifacts(zoo.path("digits_torch"), folder=tmp_path, requires_grad=["15.weight", "15.bias"])
    assert made.requires_grad == ("15.weight", "15.bias")
    state, module, optimizer = start(made)
    record = zoo.record("digits_torch")
    for _ in range(3):
        module(record.images, record.labels)
        optimizer.step()
        module.lazy_reset_grad()
    module.eval()
    loss = losses(made, module, 1, "digits_torch")[0]
    CheckpointState.save_checkpoint(state, str(tmp_path / "trained"))
    for weights in (state, tmp_path / "trained"):
        updated = update(onnx.load(made.inference), weights)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(updated.SerializeToString(), options)
        logits = session.run(None, {"image": record.images})[0]
        np.testing.assert_allclose(cross_entropy(logits, record.labels), loss, rtol=1e-4)
    before = io.load(zoo.path("digits_torch")).graph.initializers
    after = io.load(update(zoo.path("digits_torch"), state, tmp_path / "mc.onnx")).graph.initializers
    changed = {name for name in before if not np.array_equal(before[name].const_value, after[name].const_value)}
    assert changed == {"15.weight", "15.bias"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"requires_grad": ["0.wieght"]},
            "requires_grad names '0.wieght', which is no initializer of the model; it has ",
        ),
        (
            {"loss": "hinge"},
            "loss is 'hinge'; allowed: 'cross_entropy', 'mse', 'bce_with_logits', 'l1', or an onnxblock",
        ),
        ({"optimizer": "adam"}, "optimizer is 'adam'; allowed: 'adamw', 'sgd', or an onnxblock.Block"),
    ],
)
def test_wrong_names_are_refused(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(TrainerError) as error:
        artifacts(zoo.path("digits_torch"), folder=tmp_path, **arguments)
    assert str(error.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_what_the_trainer_cannot_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormError, match="node 'branch' is If, on which onnxruntime-training ends the process"):
        artifacts(zoo.path("digits_if"), folder=tmp_path)
    with pytest.raises(TrainerError, match="the model has no weights that look trainable; name initializers"):
        artifacts(dropout_model(), folder=tmp_path)
