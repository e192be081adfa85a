"""Write SpatialDropout nodes out in standard operators, in the form that a runtime can run.

The forms are in the neighbouring modules, which know one node each; here is the walk over the model.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.analysis import input_types
from onnx_spatialdrop.errors import FormError, SpatialDropError
from onnx_spatialdrop.gc_pause import gc_paused
from onnx_spatialdrop.graph import controls, postcondition, prune, replace, scopes
from onnx_spatialdrop.graph.build import ATTRIBUTES_KEY, MASK_KEY, NODE_KEY, NodeBuilder, tags
from onnx_spatialdrop.graph.ir_version import list_constants
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.graph.postcondition import Interface
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import philox, spec
from onnx_spatialdrop.passes import remove
from onnx_spatialdrop.passes.expand import batched, mask_inputs, targets, together, trainers
from onnx_spatialdrop.passes.expand.targets import ALIASES, FORMS, TARGETS
from onnx_spatialdrop.passes.expand.task import Task
from onnx_spatialdrop.passes.masks.plan import Member, plan
from onnx_spatialdrop.passes.masks.write import GroupWriter

__all__ = ["ALIASES", "ATTRIBUTES_KEY", "FORMS", "NODE_KEY", "TARGETS", "ExpandPass", "expand"]

_LOG: Final = logging.getLogger("onnx_spatialdrop")

#: A node, what stands for it, and the values for Y and the mask; None: the node is to be removed.
_Written = tuple[ir.Node, NodeBuilder, tuple[ir.Value, ir.Value | None] | None]


class ExpandPass(ir.passes.InPlacePass):
    """Replace every SpatialDropout node by standard operators.

    1. All nodes are written out before the first one is replaced: one that is wrong, or that the target cannot have,
       stops the pass before anything changes.
    2. Without a form, each node gets the best one for the target at its opset.
    3. A node whose training_mode is constantly false, and with the form "identity" every node, is removed as
       RemovePass does.
    4. Elsewhere the new nodes stand where the node stood, and Y and a used mask keep name, type and shape. A switch
       stays a switch; a constantly true training_mode leaves no trace.
    5. New nodes are named after Y and carry the node's name and attributes in metadata_props. The runtime's generators
       get seeds derived from the node's own; equal seeds stay equal, and others differ.
    6. Inputs, initializers, function parameters and nodes that only fed a training_mode or step that is no longer used
       go; see prune.py. So do the operator's functions and its domain's imports.
    7. For the targets of targets.NO_DEFAULTS, and wherever ``defaults`` is False, the switches that are left lose their
       defaults and have to be fed: those targets, and some optimisers, take an input with a default for a constant.
    8. With "mask-inputs", the mask of each node becomes an input of the main graph, without a default, after those that
       are there. Inside If, Loop and Scan the branch reads it from outside; a node in a function is refused.
    9. All other nodes, initializers, names and outputs stay as they are; a model without the node is not modified.
    10. For the targets of targets.SINGLE_STEP, the input ``step`` is declared to have one element; for those of
       targets.NO_FRESH_DRAW it has to be fed.
    11. For the targets of targets.BATCHED, ``training_mode`` is the constant true, other inputs with a default are
       constants, and ``step`` is an input of shape [batch, 1] without one, counted modulo 2**62; a node with one mask
       for all samples is refused.
    """

    def __init__(self, form: str | None = None, target: str = "onnxruntime", defaults: bool = True) -> None:
        super().__init__()
        self.form = None if form is None else arguments.choice(form, "form", [*targets.FORMS], FormError)
        self.target = targets.resolve(target)
        self.defaults = arguments.flag(defaults, "defaults") and self.target not in targets.NO_DEFAULTS

    @gc_paused()
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        sites = scopes.spatial_dropouts(model)
        if not sites:
            return ir.passes.PassResult(model, modified=False)  # case 9
        control_inputs = {id(value): value for site in sites for value in site.node.inputs[1:] if value is not None}
        switched = controls.behind(control_inputs.values())
        if self.target in targets.BATCHED:  # case 11
            batched.refuse_shared_masks(sites)
            batched.switch_on(model.graph, switched)
        before, names, constants = Interface.of(model), Names(model), {*model.graph.initializers}
        masks = mask_inputs.declare(model, sites, names) if self.form == mask_inputs.FORM else [None] * len(sites)
        shared, written = self._write_out(model, sites, masks, names)
        for writer in shared:
            writer.insert()
        opset = scopes.default_opset(model.graph, model)
        for node, group, results in written:
            if results is None:
                remove.remove_node(node, names, opset)  # case 3
            else:
                replace.take_place(node, group.nodes, results)  # case 4
        model.graph.inputs.extend(mask for mask in masks if mask is not None and mask.uses())  # case 8
        prune.prune_unused(model, control_inputs.values())  # case 6
        prune.drop_domain(model)
        list_constants(model, constants)
        gone = {site.node for site in sites if site.node.op_type == spec.OP_TYPE}
        postcondition.check(model, before, gone)
        if not self.defaults:
            controls.require(model.graph, switched)  # case 7
        if self.target in targets.SINGLE_STEP:
            controls.single(model.graph, switched)  # case 10
        if self.target in targets.NO_FRESH_DRAW:
            steps = [value for value in switched if value.dtype == ir.DataType.INT64]
            controls.require(model.graph, steps)  # case 10
        if self.target in targets.BATCHED:
            batched.give_steps(model, switched, names)  # case 11
        return ir.passes.PassResult(model, modified=True)

    def _write_out(
        self, model: ir.Model, sites: list[scopes.Site], masks: Sequence[ir.Value | None], names: Names
    ) -> tuple[list[GroupWriter], list[_Written]]:
        """Return what is drawn together, and each node with what stands for it; nothing is in the model yet."""
        draws, written, shared = _Draws(), list[_Written](), dict[str, list[Member]]()
        writers = list[GroupWriter]()
        forms = [self._form(site, op.read(site.node).rng) for site in sites]
        known = input_types.known_inputs(model, sites)
        try:
            for site, form, (kind, shape), mask in zip(sites, forms, known, masks, strict=True):
                training = controls.constant_of(site.node.inputs[1])
                if form == "identity" or (training is not None and not training.any()):
                    written.append((site.node, NodeBuilder("", {}), None))
                elif together.takes(form, self.target, site, shape):
                    shared.setdefault(form, []).append((site, kind, shape))
                else:
                    task = _task(site, _dtype(kind), shape, self.target, draws, mask)
                    self._write_alone(task, form, names, written)
            for form, members in shared.items():
                writers.append(together.writer(form, self.target, names))
                writers[-1].write(plan(model, members, together.stacks(self.target)))
        except SpatialDropError:
            for _, unfinished, _ in written:
                unfinished.discard()  # case 1
            for writer in writers:
                writer.discard()
            raise
        return writers, written + [done for writer in writers for done in writer.written]

    def _write_alone(self, task: Task, form: str, names: Names, written: list[_Written]) -> None:
        """Append a node, with what stands for it, to ``written``."""
        node, mask = task.node, task.mask
        prefix = names.prefix(f"{node.outputs[0].name or node.name or 'spatial_dropout'}/{form}")
        carried = tags(node.name or "", task.attributes, node.metadata_props)
        if mask is not None:
            carried[MASK_KEY] = mask.name or ""
        group = NodeBuilder(prefix, carried)  # case 5
        written.append((node, group, None))
        results = targets.lowering_of(form)(group, task)
        group.keep_only(results if _is_used(node.outputs[1]) else results[:1])
        written[-1] = (node, group, results)

    def _form(self, site: scopes.Site, rng: str) -> str:
        where = op.describe(site.node)
        if self.form is None:
            return targets.choose(self.target, site.opset, where, rng)  # case 2
        targets.check(self.form, self.target, site.opset, where)
        return self.form


class _Draws:
    """Seeds for the runtimes' own generators: one for each seed of the model's nodes, large, distinct, held by float32.

    ONNX Runtime's generator truncates the float to an integer, and small ones give a first number near 0, so they are
    taken from [2**30, 2**31); 24 bits of precision leave multiples of 128.
    """

    def __init__(self) -> None:
        self._of_seed: dict[int, int] = {}
        self._taken: set[int] = set()

    def of(self, seed: int) -> int:
        """Return the generator's seed for a node's ``seed``; the same for equal ones."""
        if seed not in self._of_seed:
            index = int(philox.words(seed, [-1], 1)[0, 0]) >> 9
            while index in self._taken:
                index = (index + 1) % 2**23
            self._taken.add(index)
            self._of_seed[seed] = 2**30 + 128 * index
        return self._of_seed[seed]


def _task(
    site: scopes.Site,
    dtype: np.dtype[Any] | None,
    shape: ir.Shape | None,
    target: str,
    draws: _Draws,
    mask: ir.Value | None,
) -> Task:
    x, training, step = site.node.inputs
    assert x is not None
    assert training is not None
    assert step is not None
    attributes = op.read(site.node)
    return Task(
        node=site.node,
        attributes=attributes,
        opset=site.opset,
        x=x,
        dtype=dtype,
        shape=shape,
        training=None if controls.constant_of(training) is not None else training,
        step=step,
        target=target,
        draw=draws.of(attributes.seed),
        mask=mask,
    )


def _dtype(kind: ir.TypeProtocol | None) -> np.dtype[Any] | None:
    return None if kind is None else op.FLOAT_TYPES.get(kind.dtype)


def _is_used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


@io.same_kind
def expand(
    model: io.Source,
    output: io.PathLike | None = None,
    *,
    form: str | None = None,
    target: str = "onnxruntime",
    defaults: bool = True,
) -> io.Result:
    """Return the model with every SpatialDropout node written out in standard operators.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        output: a file to write; then its path is returned.
        form: "philox" or "philox-int32" (the operator's own bits), "uniform" or "dropout" (the distribution, drawn by
            the runtime's generator), "standard" (the operator's own bits, by the RandomUniform that onnx/onnx #8161
            proposes), "mask-inputs" (each mask an input "<layer>.mask" that has to be fed) or
            "identity" (no dropout); by default the best one for the target.
        target: what will run the model: "onnxruntime", "onnxruntime-node", "onnxruntime-web", "openvino", "tract",
            "onnxruntime-training" (or "training"), "onnx2torch", "onnx2pytorch", "triton", "onnx" (the
            standard as it is proposed, opset 28 and newer, which no runtime has yet) or "reference" (onnx's
            ReferenceEvaluator). For Triton, which lays requests behind each other, dropout is always on and ``step`` is
            int64 [batch, 1], one a sample, to be fed. For a trainer the model is made
            readable first, its opset converted where it must be (see TrainerPass); what was done is logged to
            "onnx_spatialdrop" (INFO) and written into the model's metadata_props, as "onnx_spatialdrop.prepared".
        defaults: False: the switches lose their defaults and have to be fed, so that optimisers that take an input
            with a default for a constant (onnxslim, onnxsim) leave them alone. Always so for OpenVINO, tract and
            onnx2pytorch, which do the same, and for onnxruntime-node and -web, where such inputs cannot be fed.

    Returns:
        The same kind of model as came in; from a path, an ir.Model.

    Raises:
        FormError: the target cannot run the form, at all or at the model's opset, type or scale.
        SpecError: a node that the operator's definition does not allow.
        ModelFileError: a file that cannot be read or written.
    """
    prepare = trainers.TrainerPass(target)
    result = io.apply(model, output, prepare, ExpandPass(form, target, defaults))
    for line in prepare.said:
        _LOG.info("expand: %s", line)
    return result
