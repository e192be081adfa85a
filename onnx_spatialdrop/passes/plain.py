"""Whether a model is plain: dropout and batch normalization in it are nodes, and nothing has to be proven.

It reads a ModelProto, and where it is in doubt the answer is no. What is not plain goes through onnx_ir.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from onnx_spatialdrop.graph.build import ATTRIBUTES_KEY
from onnx_spatialdrop.graph.ops import Fact, names_of
from onnx_spatialdrop.graph.proto_edits import Name
from onnx_spatialdrop.graph.rearrange import CARRIED
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.fuse.frozen import SIZES
from onnx_spatialdrop.passes.fuse.untagged import MARKS
from onnx_spatialdrop.passes.training_forms import DROPOUT, is_unread_dropout, may_be_random
from onnx_spatialdrop.storage.survey import Block, Survey

__all__ = ["WANTED", "Makers", "NotPlainError", "refuse_equal_branches", "refuse_unproven", "refuse_views"]

#: What a survey has to list beside dropout.
WANTED: Final = frozenset({"Constant", "Mul", "Where"})
_INTEGERS: Final = (TensorProto.INT32, TensorProto.INT64, TensorProto.UINT32, TensorProto.UINT64)
#: Ops whose result is one number everywhere where their first input is; and where all inputs are.
_THROUGH: Final = names_of(Fact.ENTRY) | names_of(Fact.VIEW)
_OF_ALL: Final = names_of(Fact.ENTRIES)
#: How far a dropout's input is followed. What is beyond is taken for data, which costs nodes that do nothing at most.
_DEPTH: Final = 5
_DROPOUTS: Final = (DROPOUT, spec.OP_TYPE)


class NotPlainError(Exception):
    """Something has to be proven, or named."""


def refuse_unproven(survey: Survey) -> None:
    """Raise NotPlainError where there may be dropout, or a part of one, that is no node of its own."""
    functions = {(function.domain, function.name) for function in survey.model.functions}
    for domain, op_type, _ in survey.operators:
        if may_be_random(domain, op_type):
            raise NotPlainError
        if is_unread_dropout(domain, op_type) and (domain, op_type) not in functions:
            raise NotPlainError
    if ATTRIBUTES_KEY in survey.metadata:
        raise NotPlainError
    factors = set[str]()
    for block in survey.blocks:
        for _, node in block.wanted:
            if node.op_type == "Constant":
                _refuse_marks(node)
            elif node.op_type in ("Mul", "Where"):
                factors.update(node.input[:])
    for block in survey.blocks:
        if isinstance(block.body, onnx.GraphProto):
            inputs = {value.name for value in block.body.input}
            for tensor in block.body.initializer:
                _refuse_marks(tensor)
                if tensor.name in factors and tensor.name not in inputs:
                    _refuse_mask(tensor)


def _refuse_marks(constant: NodeProto | TensorProto) -> None:
    """Give up on a multiplier of Philox: the operator's own draws may be here, without their tags."""
    if isinstance(constant, TensorProto) and constant.data_type not in _INTEGERS:
        return
    if constant.ByteSize() < 1 << 10:
        content = constant.SerializeToString()
        if any(mark in content for mark in MARKS):
            raise NotPlainError


def _refuse_mask(tensor: TensorProto) -> None:
    """Give up on a constant of two numbers that multiplies something: an exporter may have frozen a mask."""
    if len(tensor.dims) < 2 or int(np.prod(tensor.dims, dtype=object)) not in SIZES:
        return
    if tensor.data_location == TensorProto.EXTERNAL:
        raise NotPlainError
    flat = numpy_helper.to_array(tensor).reshape(-1)
    if bool(((flat == flat.min()) | (flat == flat.max())).all()):
        raise NotPlainError


class Makers:
    """The nodes of a block by what they compute, and those of the blocks around it."""

    def __init__(self, block: Block, outer: Makers | None) -> None:
        body = block.body
        self._block, self._outer = block, outer
        self._nodes: dict[str, NodeProto] = {made: node for node in body.node for made in node.output[:]}
        tensors = body.initializer if isinstance(body, onnx.GraphProto) else ()
        self._constants = {tensor.name: tensor for tensor in tensors}

    def may_be_number(self, name: str, depth: int = _DEPTH) -> bool:
        """Return whether all entries of ``name`` may be one known number, so that a dropout of it makes a mask."""
        if name not in self._block.defined and self._outer is not None:
            return self._outer.may_be_number(name, depth)
        node = self._nodes.get(name)
        if node is None:
            return self._is_uniform(name)
        op_type, inputs = node.op_type, node.input[:]
        if depth == 0:
            return False
        if op_type in ("Constant", "ConstantOfShape"):
            return True
        if op_type in _THROUGH:
            return bool(inputs) and self.may_be_number(inputs[0], depth - 1)
        if op_type == "Where":
            return any(self.may_be_number(each, depth - 1) for each in inputs[1:])
        if op_type not in _OF_ALL or not inputs:
            return False
        if op_type == "Sub" and len(set(inputs)) == 1:
            return True
        numbers = [self.may_be_number(each, depth - 1) for each in inputs]
        return all(numbers) or (op_type == "Mul" and any(numbers) and self._may_be_zero(inputs))

    def _may_be_zero(self, names: list[str]) -> bool:
        tensors = [self._constants.get(name) for name in names]
        known = [each for each in tensors if each is not None and each.data_location != TensorProto.EXTERNAL]
        return not known or any(not numpy_helper.to_array(tensor).any() for tensor in known)

    def _is_uniform(self, name: str) -> bool:
        tensor = self._constants.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return False
        flat = numpy_helper.to_array(tensor).reshape(-1)
        return bool(flat.size and (flat == flat[0]).all())


def refuse_equal_branches(gone: Mapping[Block, Collection[int]]) -> None:
    """Give up where both branches of an If may have become the same: it has to be proven that they have.

    Args:
        gone: places of the nodes that go, of each block where some do.
    """
    for block in gone:
        inner, outer = block, block.outer
        while outer is not None:
            place = next(place for place, each in outer.inner if each is inner)
            branches = [each for at, each in outer.inner if at == place]
            kinds = [_kinds(branch, gone.get(branch, ())) for branch in branches]
            if len(kinds) == 2 and kinds[0] == kinds[1]:
                raise NotPlainError
            inner, outer = outer, outer.outer


def _kinds(block: Block, gone: Collection[int]) -> Counter[str]:
    kinds = Counter(node.op_type for place, node in enumerate(block.body.node) if place not in gone)
    del kinds["Identity"], kinds["Constant"]
    return kinds


def refuse_views(survey: Survey, sources: list[Name]) -> None:
    """Give up where a Transpose stands by one of ``sources``, with nothing between but nodes that carry its order on.

    There transpositions may meet that dropout had kept apart.
    """
    main = survey.blocks[0]
    if ("", "Transpose", "") not in survey.operators:
        return
    makers: dict[str, NodeProto] = {}
    readers: dict[str, list[NodeProto]] = {}
    for node in main.body.node:
        for name in node.input[:]:
            readers.setdefault(name, []).append(node)
        makers.update(dict.fromkeys(node.output[:], node))
    pending, seen = [name for home, name in sources if home is main], set[str]()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in (*readers.get(name, ()), *([makers[name]] if name in makers else [])):
            if node.op_type == "Transpose":
                raise NotPlainError
            carried = node.input[:1] if node.op_type in _DROPOUTS else node.input[:] if node.op_type in CARRIED else []
            if carried:
                pending += [each for each in (*carried, *node.output[:]) if each in makers]
