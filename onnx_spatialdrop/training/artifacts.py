"""onnxruntime-training's artifacts for a model with spatial dropout: random in training, off in evaluation.

The training itself is the caller's, with onnxruntime.training.api.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir as ir

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.errors import TrainerError
from onnx_spatialdrop.graph import controls, scopes
from onnx_spatialdrop.passes.expand import ExpandPass
from onnx_spatialdrop.passes.expand.gradients import GradientsPass
from onnx_spatialdrop.passes.expand.trainers import TrainerPass
from onnx_spatialdrop.passes.to_inference import to_inference
from onnx_spatialdrop.training import trainer
from onnx_spatialdrop.training.parameters import chosen, in_memory

__all__ = ["Artifacts", "artifacts"]

_TARGET = "onnxruntime-training"


@dataclasses.dataclass(frozen=True)
class Artifacts:
    """What ``artifacts`` wrote.

    Attributes:
        training: the model with loss and gradients, dropout on; for ``Module(training, state, evaluation)``.
        evaluation: the model with loss, without dropout.
        optimizer: the optimizer's model, for ``Optimizer(optimizer, module)``; None without an optimizer.
        checkpoint: the weights, for ``CheckpointState.load_checkpoint``.
        inference: the model without dropout and loss, to be updated with trained weights.
        requires_grad: names of the weights that are trained.
        inputs: names of the training model's inputs, in the order in which ``Module`` takes them.
        said: what was changed so that the trainer reads the model, one line each.
    """

    training: Path
    evaluation: Path
    optimizer: Path | None
    checkpoint: Path
    inference: Path
    requires_grad: tuple[str, ...]
    inputs: tuple[str, ...]
    said: tuple[str, ...]


def artifacts(
    model: io.Source,
    *,
    loss: Any = "cross_entropy",
    optimizer: Any = "adamw",
    requires_grad: Sequence[str] | None = None,
    folder: io.PathLike,
    form: str | None = None,
) -> Artifacts:
    """Write what onnxruntime-training needs to train a model with SpatialDropout nodes, and its inference model.

    Every node whose training_mode is a switch is on in the training model; none is left in the evaluation model, in
    whatever form (onnxruntime-training by itself only switches ``Dropout`` off).

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        loss: "cross_entropy", "mse", "bce_with_logits", "l1", or what generate_artifacts takes; None for a model whose
            first output is the loss.
        optimizer: "adamw", "sgd", or what generate_artifacts takes; None for none.
        requires_grad: names of initializers to train; by default all that ``trainable`` finds.
        folder: where to write; made if it is not there.
        form: "dropout" (the default), "uniform", "philox" or "philox-int32" (opset 18 to 21). With the last two the
            training model has ``step`` as its last input before the labels, and draws the operator's own masks.

    Returns:
        The paths written, and what was changed on the way.

    Raises:
        TrainerError: onnxruntime-training is not here, or cannot build the gradients; or a wrong name.
        FormError: the trainer cannot have the model or the form.
    """
    target, said = arguments.path(folder, "folder"), list[str]()
    requires_grad = None if requires_grad is None else arguments.strings(requires_grad, "requires_grad")
    trainer.require()
    prepared = _prepared(model, said)
    names = _checked(prepared, requires_grad)
    # Cleaned of every dropout that fuse can prove: also of element-wise Dropout nodes that are always on.
    clean = to_inference(prepared)
    write = GradientsPass()
    evaluation = clean.clone()
    write.call(evaluation)
    said.extend(write.said)
    training = ir.to_proto(_training_model(prepared, form))
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".artifacts-") as temporary:
        on, off = Path(temporary, "on"), Path(temporary, "off")
        on.mkdir()
        off.mkdir()
        trainer.generate(training, on, loss, optimizer, names)
        trainer.generate(ir.to_proto(evaluation), off, loss, None, names)
        inputs = _inputs(on / "training_model.onnx", names)
        os.replace(off / "eval_model.onnx", target / "eval_model.onnx")
        for name in ("training_model.onnx", "optimizer_model.onnx", "checkpoint"):
            if (on / name).exists():
                os.replace(on / name, target / name)
    return Artifacts(
        training=target / "training_model.onnx",
        evaluation=target / "eval_model.onnx",
        optimizer=None if optimizer is None else target / "optimizer_model.onnx",
        checkpoint=target / "checkpoint",
        inference=io.save(ir.to_proto(clean), target / "inference.onnx"),
        requires_grad=tuple(names),
        inputs=inputs,
        said=tuple(said),
    )


def _prepared(model: io.Source, said: list[str]) -> ir.Model:
    """Return a copy that the trainer reads, its SpatialDropout nodes still in it."""
    prepare = TrainerPass(_TARGET, gradients=False)  # what is deployed keeps its layers
    result = io.rewrite(model, None, prepare.call)[0]
    said.extend(prepare.said)
    prepared = ir.from_proto(result) if isinstance(result, onnx.ModelProto) else cast("ir.Model", result)
    return in_memory(prepared)


def _checked(model: ir.Model, requires_grad: Sequence[str] | None) -> list[str]:
    names = chosen(model, requires_grad)
    if not names:
        raise TrainerError("the model has no weights that look trainable; name initializers in requires_grad")
    return names


def _training_model(prepared: ir.Model, form: str | None) -> ir.Model:
    model = prepared.clone()
    GradientsPass().call(model)
    nodes = [site.node for site in scopes.spatial_dropouts(model)]
    for training in controls.behind(node.inputs[1] for node in nodes):
        if controls.is_switch(training):
            _fix_on(model, training)
    for step in controls.behind(node.inputs[2] for node in nodes):
        if controls.is_switch(step):
            # Without its default it stays an input where the form draws by it, and is pruned where it does not.
            model.graph.initializers.pop(step.name or "", None)
            step.const_value = None
    ExpandPass(form, _TARGET).call(model)
    return model


def _fix_on(model: ir.Model, training: ir.Value) -> None:
    """Make a switch a constant, true."""
    default = training.const_value
    if training in model.graph.inputs and default is not None:
        model.graph.inputs.remove(training)
        training.const_value = ir.tensor(np.ones(default.shape.numpy(), bool), name=training.name)


def _inputs(training: Path, names: list[str]) -> tuple[str, ...]:
    own = {*names, "lazy_reset_grad"}
    inputs = [value.name for value in onnx.load(training, load_external_data=False).graph.input]
    return tuple(name for name in inputs if name not in own and not name.endswith("_grad.accumulation.buffer"))
