"""The files that the matrix runs: each committed model in each form, with outputs that show which maps were dropped.

A probe counts the entries of X and of Y that are not 0, map by map. Nothing else reads the node's own values, so that
optimisers see what they would see in the user's file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import zoo

from onnx_spatialdrop import io
from onnx_spatialdrop.graph.scopes import spatial_dropouts
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.attach import AttachPass
from onnx_spatialdrop.passes.expand import expand
from onnx_spatialdrop.passes.fuse import fuse

#: Model -> the record of the framework that it was trained in.
RECORDS = zoo.RECORDED | {
    "digits_torch_eval_export": "digits_torch",
    "digits_torch_train_export": "digits_torch",
    "digits_keras_eval_export": "digits_keras",
    "digits_keras_train_export": "digits_keras",
}
#: The network of Keras with masks as Keras's own layers draw them: model -> file, rng.
DIALECTS = {
    "digits_keras as keras_tf": ("digits_keras", "keras_tf"),
    "digits_keras as keras_tf_xla": ("digits_keras", "keras_tf_xla"),
    "digits_keras as keras_jax": ("digits_keras", "keras_jax"),
}
RECORDS |= {name: file for name, (file, _) in DIALECTS.items()}
#: What exporters wrote without nodes: fuse makes nodes of the dropout of the training exports.
TRAIN_EXPORTS = ("digits_torch_train_export", "digits_keras_train_export")
EVAL_EXPORTS = ("digits_torch_eval_export", "digits_keras_eval_export")
IMAGES = 6


@dataclass(frozen=True)
class Probe:
    """Names of outputs: counts of X and of Y for each mask entry, and the mask ("" where it is not an output).

    ``fed`` is the name of the input that is the mask, with its dimensions; "" where the model draws.
    """

    attributes: spec.Attributes
    x: str
    y: str
    mask: str
    fed: str = ""
    dims: tuple[int, ...] = ()


@dataclass(frozen=True)
class Case:
    """A file to run, its probes, and what its framework computes for the images in evaluation."""

    path: Path
    images: np.ndarray
    logits: np.ndarray
    extra: dict[str, Any]
    output: str
    probes: tuple[Probe, ...]


def source(name: str) -> ir.Model:
    """Return a committed model, its dropout as nodes, or one of DIALECTS."""
    file, rng = DIALECTS.get(name, (name, "philox"))
    model = io.load(zoo.path(file))
    if name in TRAIN_EXPORTS:
        return fuse(model)
    for site in spatial_dropouts(model) if rng != "philox" else ():
        op.write(site.node, dataclasses.replace(op.read(site.node), rng=rng))
    return model


def build(
    name: str, form: str, folder: Path, target: str = "onnxruntime", *, masks: bool = True, switches: str = "default"
) -> Case:
    """Write a model in a form into ``folder``.

    Args:
        name: a file of models/.
        form: "body" or a form of expand.
        folder: where to write; the file is named after model and form.
        target: what expand writes for.
        masks: make the masks outputs, too.
        switches: "default": training_mode and step are inputs with a default; "fed": they have none; "fixed": they are
            the constants true and -1.

    Raises:
        SpatialDropError: our own refusal.
    """
    model = source(name)
    if switches == "fixed":
        _fix(model)
    probes = _probe(model, masks) if form != "identity" else ()
    if form == "body":
        AttachPass(defaults=switches != "fed").call(model)
    else:
        model = expand(model, form=form, target=target, defaults=switches != "fed")
    if form == "mask-inputs":
        values = {value.name: value for value in model.graph.outputs}
        probes = _with_masks_fed(probes, model, [values[probe.mask or probe.y] for probe in probes])
    path = folder / f"{name.replace(' ', '_')}.{form}.onnx"
    io.save(model, path)
    with np.load(zoo.FOLDER / f"{RECORDS[name]}.npz") as record:
        images, logits = record["images"][:IMAGES], record["logits"][:IMAGES]
    extra = {"monte_carlo": np.array(True)} if name == "digits_if" else {}
    return Case(path, images, logits, extra, model.graph.outputs[0].name or "", probes)


def _with_masks_fed(probes: Sequence[Probe], model: ir.Model, outputs: Sequence[ir.Value]) -> tuple[Probe, ...]:
    """Return the probes with the inputs that are their masks; ``outputs`` are their masks, which lead there."""
    inputs = [value for value in model.graph.inputs if (value.name or "").endswith(".mask")]
    assert len(inputs) == len(probes)
    found = []
    for place, (probe, output) in enumerate(zip(probes, outputs, strict=True)):
        behind = _inputs_behind(output, inputs)
        value = behind[0] if len(behind) == 1 else inputs[place]  # out of an If all lead to one node
        assert value.shape is not None
        dims = tuple(dim if isinstance(dim, int) else IMAGES for dim in value.shape)
        found.append(dataclasses.replace(probe, fed=value.name or "", dims=dims))
    assert len({probe.fed for probe in found}) == len(inputs)
    return tuple(found)


def _inputs_behind(output: ir.Value, inputs: Sequence[ir.Value]) -> list[ir.Value]:
    pending, seen = [output], {output}
    while pending:
        producer = pending.pop().producer()
        for value in producer.inputs if producer is not None else ():
            if value is not None and value not in seen:
                seen.add(value)
                pending.append(value)
    return [value for value in inputs if value in seen]


def _fix(model: ir.Model) -> None:
    for value, constant in (("training_mode", np.array(True)), ("step", np.array([-1], np.int64))):
        for switch in [each for each in model.graph.inputs if each.name == value]:
            model.graph.inputs.remove(switch)
            switch.const_value, switch.shape = ir.tensor(constant, name=value), ir.Shape(constant.shape)


def _probe(model: ir.Model, masks: bool) -> tuple[Probe, ...]:
    inside = [site.node.inputs[0] for site in spatial_dropouts(model) if isinstance(site.scope, ir.Function)]
    before = len(model.graph.outputs)
    exposed = zoo.expose(model)
    for x in inside:
        x.type = None  # as the file has it
    values = {value.name: value for value in model.graph.outputs[before:]}
    del model.graph.outputs[before:]
    probes = []
    for index, (attributes, x, y, mask) in enumerate(exposed):
        counts = [
            _count(model.graph, values[name], attributes.axes, f"probe_{index}_{role}")
            for role, name in (("x", x), ("y", y))
        ]
        model.graph.outputs.extend([*counts, values[mask]] if masks else counts)
        probes.append(Probe(attributes, *(value.name for value in counts), mask if masks else ""))
    return tuple(probes)


def _count(graph: ir.Graph, value: ir.Value, axes: Sequence[int], name: str) -> ir.Value:
    """Append the number of entries of ``value`` that are not 0, in its type, summed over ``axes``."""
    shared = ir.val(f"{name}_axes", const_value=ir.tensor(np.array(axes, np.int64), name=f"{name}_axes"))
    graph.register_initializer(shared)
    size = ir.node("Abs", [value], name=f"{name}_abs")
    sign = ir.node("Sign", size.outputs, name=f"{name}_sign")
    total = ir.node("ReduceSum", [sign.outputs[0], shared], {"keepdims": 1}, name=f"{name}_sum")
    for node in (size, sign, total):
        node.outputs[0].name, node.outputs[0].type = node.name, value.type or ir.TensorType(ir.DataType.FLOAT)
        graph.append(node)
    total.outputs[0].name = name
    # Every model here has four dimensions where it drops, but for the sequence model, whose shapes are all known.
    total.outputs[0].shape = ir.Shape([None] * (len(value.shape) if value.shape is not None else 4))
    return total.outputs[0]
