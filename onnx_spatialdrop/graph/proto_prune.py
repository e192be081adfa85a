"""Clean up in a ModelProto after nodes are gone: what prune.py does in an ir.Model, by the same rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import onnx

from onnx_spatialdrop.graph.controls import switch_names
from onnx_spatialdrop.graph.proto_edits import Edits, Name
from onnx_spatialdrop.graph.proto_infos import delete
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.bodies import body
from onnx_spatialdrop.storage.survey import Block, Survey

__all__ = ["drop_domain", "prune_unused"]

_GRAPHS: Final = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def prune_unused(survey: Survey, edits: Edits, names: Iterable[Name]) -> list[Name]:
    """Delete those of ``names`` that nothing reads any more, after ``edits.rename()``; return what is no more.

    The cases are those of prune.prune_unused.
    """
    return _Pruning(survey, edits).run(names)


class _Pruning:
    def __init__(self, survey: Survey, edits: Edits) -> None:
        self._survey, self._edits = survey, edits
        self._functions = {id(f): (f.domain, f.name, f.overload) for f in survey.model.functions}
        self._dropped: dict[Block, set[str]] = defaultdict(set)
        self._lost: list[Name] = []

    def run(self, names: Iterable[Name]) -> list[Name]:
        pending = dict.fromkeys(names, True)
        while pending:
            (block, name), direct = pending.popitem()
            for source, is_direct in self._prune(block, name, direct):
                pending[source] = is_direct or pending.get(source, False)
        for block, dropped in self._dropped.items():
            if isinstance(block.body, onnx.GraphProto):
                delete(block.body.initializer, _places(block.tensors, dropped))
                if block is self._survey.blocks[0]:
                    delete(block.body.input, _places((value.name for value in block.body.input), dropped))
        return self._lost

    def _prune(self, block: Block, name: str, direct: bool) -> list[tuple[Name, bool]]:
        """Delete one name if nothing reads it; return what may be read by nobody now."""
        if not name or self._is_read(block, name):
            return []
        if name in self._edits.given(block):
            if isinstance(block.body, onnx.FunctionProto):
                return [(argument, direct) for argument in self._drop_parameter(block, block.body, name)]
            value = next((value for value in block.body.input if value.name == name), None)
            main = block is self._survey.blocks[0]
            weight = self._survey.model.ir_version < 4 and value is not None and name in block.tensors
            if value is None or (main and (direct or weight or _is_named_switch(value))):
                self._dropped[block].add(name)
                self._lost.append((block, name))
            return []
        place = block.makers.get(name)
        if place is None or place in self._edits.gone[block]:
            return []
        node = block.nodes[place]
        if any(self._is_read(block, made) for made in node.output):
            return []
        self._edits.gone[block][place] = []
        self._lost += [(block, made) for made in node.output if made]
        sources = self._unread(block, node.input)
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs) if attribute.type in _GRAPHS else ():
                sources += self._let_go(block, next(each for _, each in block.inner if each.body is graph))
        return [(source, False) for source in sources]

    def _let_go(self, block: Block, inner: Block) -> list[Name]:
        """Count what a subgraph reads of ``block`` as no longer read."""
        counts = self._edits.counts[inner]
        return self._unread(block, [name for name in counts.elements() if name not in inner.defined])

    def _is_read(self, block: Block, name: str) -> bool:
        return bool(name) and (self._edits.counts[block][name] > 0 or name in self._edits.outputs(block))

    def _unread(self, block: Block, names: Iterable[str]) -> list[Name]:
        """Count names as no longer read by one node of ``block``."""
        found = []
        for name in names:
            home: Block | None = block.home(name) or block
            outer: Block | None = block
            while outer is not None:  # each block on the way has counted it, too
                self._edits.counts[outer][name] -= 1
                outer = None if outer is home else outer.outer
            if name and home is not None:
                found.append((home, name))
        return found

    def _drop_parameter(self, block: Block, function: onnx.FunctionProto, name: str) -> list[Name]:
        index = list(function.input).index(name)
        del function.input[index]
        self._edits.given(block).discard(name)
        key, arguments = self._functions[id(function)], list[Name]()
        for caller in self._survey.blocks:
            for _, node in caller.wanted:
                called = (node.domain, node.op_type, node.overload)
                if called == key and len(node.input) > index:
                    arguments += self._unread(caller, [node.input[index]])
                    del node.input[index]
        return arguments


def _is_named_switch(value: onnx.ValueInfoProto) -> bool:
    return value.name in switch_names(value.type.tensor_type.elem_type)


def _places(names: Iterable[str], dropped: set[str]) -> list[int]:
    return [place for place, name in enumerate(names) if name in dropped]


def drop_domain(survey: Survey) -> None:
    """Delete the operator's functions, and its domain's imports where nothing needs them; no node calls it any more."""
    model = survey.model
    for index in range(len(model.functions) - 1, -1, -1):
        function = model.functions[index]
        if function.domain == spec.DOMAIN and function.name in body.OWN_FUNCTIONS:
            del model.functions[index]
    kept = {id(function): function for function in model.functions}
    needed = {id(_root(block).body) for block in survey.blocks for _, node in block.wanted if _is_other(node)}
    scopes: list[Any] = [model, *model.functions]
    others = any(function.domain == spec.DOMAIN for function in kept.values())
    for scope in scopes:
        if (scope is model and others) or id(scope.graph if scope is model else scope) in needed:
            continue
        for index in range(len(scope.opset_import) - 1, -1, -1):
            if scope.opset_import[index].domain == spec.DOMAIN:
                del scope.opset_import[index]


def _root(block: Block) -> Block:
    return block if block.outer is None else _root(block.outer)


def _is_other(node: onnx.NodeProto) -> bool:
    return node.domain == spec.DOMAIN and node.op_type != spec.OP_TYPE
