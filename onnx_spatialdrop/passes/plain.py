"""Whether a model is plain: dropout and batch normalization in it are nodes, and nothing has to be proven.

It reads a ModelProto, and where it is in doubt the answer is no. What is not plain goes through onnx_ir.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from functools import cached_property
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

__all__ = ["WANTED", "NotPlainError", "Numbers", "refuse_equal_branches", "refuse_unproven", "refuse_views"]

#: What a survey has to list beside dropout.
WANTED: Final = frozenset({"Constant", "Mul", "Where", "Transpose"})
_INTEGERS: Final = (TensorProto.INT32, TensorProto.INT64, TensorProto.UINT32, TensorProto.UINT64)
#: Ops whose result is one number everywhere where their first input is; and where all inputs are.
_THROUGH: Final = names_of(Fact.ENTRY) | names_of(Fact.VIEW)
_OF_ALL: Final = names_of(Fact.ENTRIES)
#: How far a dropout's input is followed. What is beyond is taken for data, which costs nodes that do nothing at most.
_DEPTH: Final = 5
_DROPOUTS: Final = (DROPOUT, spec.OP_TYPE)
#: What an order of axes is carried through once dropout is gone.
_CARRIED: Final = CARRIED | frozenset(_DROPOUTS)


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
        for place, node in block.wanted:
            if block.op_types[place] == "Constant":
                _refuse_marks(node)
            elif block.op_types[place] in ("Mul", "Where"):
                factors.update(block.reads[place])
    for block in survey.blocks:
        inputs = set[str]() if isinstance(block.body, onnx.FunctionProto) else {each.name for each in block.body.input}
        for name, tensor in block.tensors.items():
            if tensor.data_type in _INTEGERS:
                _refuse_marks(tensor)
            if name in factors and name not in inputs:
                _refuse_mask(tensor)


def _refuse_marks(constant: NodeProto | TensorProto) -> None:
    """Give up on a multiplier of Philox: the operator's own draws may be here, without their tags."""
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


class Numbers:
    """What may be one known number in a block, or in those around it."""

    def __init__(self, block: Block, outer: Numbers | None) -> None:
        self._block, self._outer = block, outer
        self._uniform = dict[str, bool]()

    def may_be(self, name: str, depth: int = _DEPTH) -> bool:
        """Return whether all entries of ``name`` may be one known number, so that a dropout of it makes a mask."""
        if name not in self._block.defined and self._outer is not None:
            return self._outer.may_be(name, depth)
        place = self._block.makers.get(name)
        if place is None:
            return self._is_uniform(name)
        op_type, inputs = self._block.op_types[place], self._block.reads[place]
        if depth == 0:
            return False
        if op_type in ("Constant", "ConstantOfShape"):
            return True
        if op_type in _THROUGH:
            return bool(inputs) and self.may_be(inputs[0], depth - 1)
        if op_type == "Where":
            return any(self.may_be(source, depth - 1) for source in inputs[1:])
        if op_type not in _OF_ALL or not inputs:
            return False
        if op_type == "Sub" and len(set(inputs)) == 1:
            return True
        if op_type == "Mul":
            return self._may_be_zero(inputs) and any(self.may_be(source, depth - 1) for source in inputs)
        return all(self.may_be(source, depth - 1) for source in inputs)

    def _may_be_zero(self, names: list[str]) -> bool:
        """Return whether a product may be one number: where a factor is zero, or all of them are numbers."""
        tensors = [self._block.tensors[name] for name in names if name in self._block.tensors]
        known = [each for each in tensors if each.data_location != TensorProto.EXTERNAL]
        return len(known) != 1 or not numpy_helper.to_array(known[0]).any()

    def _is_uniform(self, name: str) -> bool:
        if name not in self._uniform:
            self._uniform[name] = self._holds_one_number(name)
        return self._uniform[name]

    def _holds_one_number(self, name: str) -> bool:
        tensor = self._block.tensors.get(name)
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
    kinds = Counter(op_type for place, op_type in enumerate(block.op_types) if place not in gone)
    del kinds["Identity"], kinds["Constant"]
    return kinds


def refuse_views(survey: Survey, sources: list[Name]) -> None:
    """Give up where transpositions around one of ``sources`` may cancel, that dropout had kept apart.

    Between them and the dropout are nodes alone that can work on any order of axes. Where such a region has more
    borders without a transposition than with one, nothing is won by rearranging it; see transposes.py.
    """
    main = survey.blocks[0]
    transposes = (place for place, _ in main.wanted if main.op_types[place] == "Transpose")
    turned = dict.fromkeys(name for place in transposes for name in main.makes[place])
    names = {name for home, name in sources if home is main}
    meeting = (place for place, read in enumerate(main.reads) if not turned.keys().isdisjoint(read))
    if not turned or not names or not any(main.op_types[place] in _CARRIED for place in meeting):
        return
    regions = _Regions(main, 2 * len(turned))
    if any(regions.may_gain(name, names) for name in turned):
        raise NotPlainError


class _Regions:
    """Walks what is around transpositions, each node once.

    Args:
        block: the graph.
        most: how often a transposition can be met at a border.
    """

    def __init__(self, block: Block, most: int) -> None:
        self._block, self._most = block, most
        self._done = set[str]()

    @cached_property
    def _readers(self) -> dict[str, list[int]]:
        readers: defaultdict[str, list[int]] = defaultdict(list)
        for place, names in enumerate(self._block.reads):
            for name in names:
                readers[name].append(place)
        return readers

    def may_gain(self, name: str, sources: Collection[str]) -> bool:
        """Return whether a region holds a source, and more transpositions than other inputs at its borders."""
        transposed, others, pending, region = 0, 0, [name], set[str]()
        makers, kinds = self._block.makers, self._block.op_types
        while pending:
            name = pending.pop()
            if name in region:
                continue
            if name in self._done or others >= self._most:
                transposed = 0
                break
            region.add(name)
            maker = makers.get(name)
            kind = "" if maker is None else kinds[maker]
            out = 0
            for place in self._readers.get(name, ()):
                if kinds[place] == "Transpose":
                    out += 1
                elif kinds[place] in _CARRIED:
                    pending += self._around(place)
            transposed += out + (kind == "Transpose")
            if kind in _CARRIED:
                pending += self._around(makers[name])
            elif kind not in ("Transpose", "Constant"):
                others += not out
        self._done |= region
        return transposed > others and not region.isdisjoint(sources)

    def _around(self, place: int) -> list[str]:
        """Return what a node reads, and its first result, but for constants."""
        block = self._block
        names = block.reads[place][:1] if block.op_types[place] in _DROPOUTS else block.reads[place]
        return [name for name in (*names, *block.makes[place][:1]) if name and name not in block.tensors]
