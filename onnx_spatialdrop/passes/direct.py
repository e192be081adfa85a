"""to_inference and remove on a ModelProto, where nothing has to be proven: one look at the nodes, and one to write.

It takes any file whose dropout is SpatialDropout and Dropout nodes. What draws otherwise, and what wants tidying that
takes a view of the graph, it leaves to onnx_ir; plain.py says which files these are.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
import onnx
from onnx import NodeProto, helper

from onnx_spatialdrop.graph import postcondition
from onnx_spatialdrop.graph.names import Names
from onnx_spatialdrop.graph.proto_edits import Edits, Name
from onnx_spatialdrop.graph.proto_infos import attributes_of, type_of
from onnx_spatialdrop.graph.proto_prune import drop_domain, prune_unused
from onnx_spatialdrop.graph.true_masks import BOOL_FROM, TrueMask
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes import plain
from onnx_spatialdrop.passes.plain import NotPlainError
from onnx_spatialdrop.passes.training_forms import (
    BATCH_NORM,
    DROPOUT,
    STATISTICS,
    TRAINING_ATTRIBUTES,
    normalizes_by_batch,
)
from onnx_spatialdrop.storage.survey import Block, Survey

__all__ = ["WANTED", "is_without_dropout", "take_out", "training_batch_norms"]

#: What a survey has to list for take_out.
WANTED: Final = frozenset({spec.OP_TYPE, spec.DOMAIN, DROPOUT, BATCH_NORM, *plain.WANTED})
_CHANGED: Final = (spec.OP_TYPE, DROPOUT, BATCH_NORM)


def take_out(survey: Survey, only_spatial: bool = False) -> int | None:
    """Take dropout out of a model, and let it normalize by what it has learned, in place.

    Args:
        survey: the model, with the nodes that WANTED names.
        only_spatial: take SpatialDropout nodes out and nothing else, as remove does.

    Returns:
        How many dropouts and batch normalizations changed; None where more has to be done than is done here, and the
        model is as it was.

    Raises:
        SpecError: a SpatialDropout node that the operator's definition does not allow.
    """
    try:
        if not only_spatial:
            plain.refuse_unproven(survey)
        work = _Work(survey, only_spatial)
        work.plan()
    except NotPlainError:
        return None
    if work.changed:
        before = postcondition.Interface.of_proto(survey.model, survey.read)
        postcondition.check_proto(survey.model, before, *work.finish())
    return work.changed


def is_without_dropout(survey: Survey) -> bool:
    """Return whether nothing in a model, with the nodes that WANTED names, is dropout, or could be proven to be."""
    try:
        plain.refuse_unproven(survey)
    except NotPlainError:
        return False
    return not any(op_type in (spec.OP_TYPE, DROPOUT) for _, op_type, _ in survey.operators)


def training_batch_norms(survey: Survey) -> list[str]:
    """Return the names of the batch normalizations in training mode, or of their outputs."""
    return [
        node.name or node.output[0]
        for block in survey.blocks
        for place, node in block.wanted
        if block.op_types[place] == BATCH_NORM and node.domain in ("", "ai.onnx") and _normalizes_by_batch(block, node)
    ]


def _normalizes_by_batch(block: Block, node: NodeProto) -> bool:
    given = {
        each.name: None if each.ref_attr_name else each.i for each in node.attribute if each.name in TRAINING_ATTRIBUTES
    }
    return normalizes_by_batch(block.opset, given, len(node.output))


class _Work:
    def __init__(self, survey: Survey, only_spatial: bool) -> None:
        self.changed = 0
        self._survey, self._only_spatial = survey, only_spatial
        self._edits = Edits(survey)
        self._controls = dict[Name, None]()
        self._lost = list[Name]()
        self._names: Names | None = None
        self._numbers = dict[Block, plain.Numbers]()
        self._right = set[bytes]()
        self._has_spatial = False

    def plan(self) -> None:
        """Decide what becomes of each node; nothing is changed yet."""
        sources = list[Name]()
        functions = {(each.domain, each.name) for each in self._survey.model.functions}
        for block in self._survey.blocks:
            for place, node in block.wanted:
                op_type = block.op_types[place]
                if op_type not in _CHANGED:
                    continue
                domain = node.domain
                if op_type == spec.OP_TYPE and domain == spec.DOMAIN:
                    sources.append(self._spatial(block, place, node))
                elif self._only_spatial or domain not in ("", "ai.onnx") or (domain, op_type) in functions:
                    continue
                elif op_type == DROPOUT:
                    sources.append(self._dropout(block, place, node))
                elif op_type == BATCH_NORM:
                    self._batch_norm(block, place, node)
        if not self._only_spatial:
            plain.refuse_views(self._survey, sources)
            plain.refuse_equal_branches({block: set(places) for block, places in self._edits.gone.items()})

    def _spatial(self, block: Block, place: int, node: NodeProto) -> Name:
        self._has_spatial = True
        used = [name for name in block.makes[place][1:] if self._is_used(block, name)]
        attributes = None
        if used or not any(attribute.ref_attr_name for attribute in node.attribute):
            attributes = self._read(node, bool(used))
        masks = []
        if used and attributes is not None:
            masks = self._mask(node, used[0], TrueMask(attributes.axes, block.opset))
        return self._pass_on(block, place, node, masks)

    def _read(self, node: NodeProto, needed: bool) -> spec.Attributes | None:
        """Check a node's attributes; equal ones, but for the seed, once."""
        parts = [each.SerializeToString(deterministic=True) for each in node.attribute if each.name != "seed"]
        seeds = [each.type == onnx.AttributeProto.INT for each in node.attribute if each.name == "seed"]
        key = b"\0".join((bytes((len(node.input), "" in node.input[:])), *parts))
        if key in self._right and seeds == [True] and not needed:
            return None
        attributes = attributes_of(node)
        self._right.add(key)
        return attributes

    def _dropout(self, block: Block, place: int, node: NodeProto) -> Name:
        reads, makes = block.reads[place], block.makes[place]
        if not reads or not reads[0] or not makes or not makes[0]:
            raise NotPlainError  # onnx.checker says what is wrong with it
        masks = []
        for mask in makes[1:]:
            if mask and mask in self._survey.read:
                raise NotPlainError  # what it is multiplied with may be dropout
            if mask in self._edits.outputs(block):
                masks = self._mask(node, mask, TrueMask((), block.opset, self._mask_type(block, node, mask)))
        if self._numbers_of(block).may_be(reads[0]):
            raise NotPlainError  # a mask for something else
        return self._pass_on(block, place, node, masks)

    def _numbers_of(self, block: Block) -> plain.Numbers:
        if block not in self._numbers:
            self._numbers[block] = plain.Numbers(block, None if block.outer is None else self._numbers_of(block.outer))
        return self._numbers[block]

    def _mask_type(self, block: Block, node: NodeProto, mask: str) -> np.dtype:
        if block.opset >= BOOL_FROM:
            return np.dtype(np.bool_)
        home, name = self._edits.source(block, node.input[0])
        types = [type_of(block, mask), type_of(home, name)]
        known = [each.tensor_type.elem_type for each in types if each is not None and each.tensor_type.elem_type]
        if not known:
            raise NotPlainError
        return helper.tensor_dtype_to_np_dtype(known[0])

    def _is_used(self, block: Block, name: str) -> bool:
        return bool(name) and (name in self._survey.read or name in self._edits.outputs(block))

    def _mask(self, node: NodeProto, mask: str, ones: TrueMask) -> list[NodeProto]:
        self._names = self._names or Names.in_survey(self._survey)
        return ones.protos(node.input[0], mask, self._names.prefix(f"{node.output[0]}/ones"))

    def _pass_on(self, block: Block, place: int, node: NodeProto, masks: list[NodeProto]) -> Name:
        """Let readers of a dropout's result read what it dropped from."""
        self.changed += 1
        (x, *controls), (y, *others) = block.reads[place], block.makes[place]
        made = {name for mask in masks for name in mask.output}
        self._lost += [(block, name) for name in others if name and name not in made]
        for name in filter(None, controls):
            self._controls[self._edits.source(block, name)] = None
        source = self._edits.source(block, x)
        if not self._edits.bypass(block, y, x):
            masks = [*masks, helper.make_node("Identity", [x], [y], node.name)]
            masks[-1].metadata_props.extend(node.metadata_props)
            if node.doc_string:
                masks[-1].doc_string = node.doc_string
        self._edits.gone[block][place] = masks
        return source

    def _batch_norm(self, block: Block, place: int, node: NodeProto) -> None:
        if not _normalizes_by_batch(block, node):
            return
        if any(self._is_used(block, name) for name in node.output[3:]) or len(node.input) < 5:
            raise NotPlainError
        self.changed += 1
        inference = NodeProto()
        inference.CopyFrom(node)
        del inference.output[1:]
        for index in range(len(inference.attribute) - 1, -1, -1):
            if inference.attribute[index].name in TRAINING_ATTRIBUTES:
                del inference.attribute[index]
        if block.opset < 7:
            inference.attribute.append(helper.make_attribute("is_test", 1))
        after = [inference]
        for index, name in enumerate(node.output[:]):
            if not index or not name:
                continue
            if not self._is_used(block, name):
                self._lost.append((block, name))
            elif not self._edits.bypass(block, name, node.input[STATISTICS[index]]):
                after.append(helper.make_node("Identity", [node.input[STATISTICS[index]]], [name], f"{name}/stored"))
        self._edits.gone[block][place] = after

    def finish(self) -> tuple[set[str], Counter[str]]:
        """Change the model; return what its main graph no longer gives, and how often its nodes read each name."""
        self._edits.rename()
        controls = (self._edits.final(*each) for each in self._controls)
        self._lost += prune_unused(self._survey, self._edits, controls)
        self._edits.take_out()
        self._edits.settle_infos(self._lost)
        if self._has_spatial:
            drop_domain(self._survey)
        main = self._survey.blocks[0]
        return self._edits.lost(main, self._lost), self._edits.counts[main]
