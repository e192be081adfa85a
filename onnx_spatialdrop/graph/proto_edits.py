"""Nodes taken out of a ModelProto: planned one after the other, then done in one look at all nodes.

It knows names and scopes, and no operator. For an ir.Model, replace.py and prune.py do the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from math import inf

import onnx
from onnx import NodeProto

from onnx_spatialdrop.graph.proto_infos import settle_infos
from onnx_spatialdrop.storage.order import reorder
from onnx_spatialdrop.storage.survey import Block, Survey

__all__ = ["Edits", "Name"]

#: A name, and the block that defines it.
Name = tuple[Block, str]


class Edits:
    """What is to become of a model.

    Attributes:
        gone: for each block the places of nodes that go, each with what comes in its stead.
        counts: after ``rename``, how often each name of a block is read.
    """

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self.gone: dict[Block, dict[int, list[NodeProto]]] = defaultdict(dict)
        self._passed: dict[Block, dict[str, Name]] = defaultdict(dict)  # its readers are to read another name
        self._renamed: dict[Block, dict[str, str]] = defaultdict(dict)  # it is computed under another name
        self._outputs: dict[Block, set[str]] = {}
        self._given: dict[Block, set[str]] = {}
        self._within: dict[Block, set[str]] = {}
        self.counts: dict[Block, Counter[str]] = {}

    def outputs(self, block: Block) -> set[str]:
        """Return the names of what a block returns."""
        if block not in self._outputs:
            body = block.body
            names = body.output if isinstance(body, onnx.FunctionProto) else (value.name for value in body.output)
            self._outputs[block] = set(names)
        return self._outputs[block]

    def given(self, block: Block) -> set[str]:
        """Return the names of a block's inputs and initializers."""
        if block not in self._given:
            body = block.body
            inputs = body.input if isinstance(body, onnx.FunctionProto) else (value.name for value in body.input)
            self._given[block] = {*inputs, *block.tensors}
        return self._given[block]

    def source(self, block: Block, name: str) -> Name:
        """Return what a name that is read in ``block`` stands for after the edits so far, before it is renamed."""
        home = block.home(name)
        assert home is not None
        while name in self._passed[home]:
            home, name = self._passed[home][name]
        return home, name

    def final(self, block: Block, name: str) -> Name:
        """Return what a name that is read in ``block`` stands for after the edits so far."""
        home, name = self.source(block, name)
        return home, self._renamed[home].get(name, name)

    def bypass(self, block: Block, output: str, source: str) -> bool:
        """Let readers of ``output`` read ``source``, where that is legal, as replace.splice does for an ir.Model.

        Returns:
            False where an Identity has to stand for the output, and nothing was done.
        """
        home, name = self.source(block, source)
        if output in self.outputs(block):
            if (
                home is not block
                or name in self.given(block)
                or name in self.outputs(block)
                or name in self._renamed[block]
            ):
                return False
            if output in self._hidden_names(block):
                return False
            self._renamed[block][name] = output
        else:
            final = self._renamed[home].get(name, name)
            outer: Block | None = block
            while outer is not home:
                if outer is None or final in outer.defined:
                    return False
                outer = outer.outer
            if final in self._hidden_names(block):
                return False
            self._passed[block][output] = home, name
        return True

    def _hidden_names(self, block: Block) -> set[str]:
        """Return what the subgraphs inside a block define: there these names mean something else."""
        if block not in self._within:
            inner = [each for _, each in block.inner]
            self._within[block] = set().union(*(each.defined | self._hidden_names(each) for each in inner)) - {""}
        return self._within[block]

    def rename(self) -> None:
        """Write the new names; afterwards ``counts`` holds. Nodes that are gone are still there until ``take_out``."""
        touched = set().union(*self._passed.values(), *self._renamed.values())
        for block in reversed(self._survey.blocks):  # what is inside comes before what is around it
            self.counts[block] = counts = block.counts.copy()
            self._write(block, touched, counts)
            for _, inner in block.inner:
                self.counts[block].update(
                    {name: count for name, count in self.counts[inner].items() if name not in inner.defined}
                )

    def _write(self, block: Block, touched: set[str], counts: Counter[str]) -> None:
        """Write the new names; keep ``counts`` what is read in this block itself."""
        gone = self.gone.get(block, {})
        for place, made in gone.items():
            counts.subtract(block.reads[place])
            for node in made:
                counts.update(node.input)
                self._rewrite(block, node, node.input[:], touched, counts)
        for place, names in enumerate(block.reads):
            if not touched.isdisjoint(names) and place not in gone:
                self._rewrite(block, block.nodes[place], names, touched, counts)
        for name, new in self._renamed[block].items():
            place = block.makers[name]
            for node in gone.get(place, [block.nodes[place]]):
                if name in node.output:
                    node.output[list(node.output).index(name)] = new
        for annotation in block.body.quantization_annotation if isinstance(block.body, onnx.GraphProto) else ():
            counts.update(entry.value for entry in annotation.quant_parameter_tensor_names)

    def _rewrite(
        self, block: Block, node: NodeProto, names: list[str], touched: set[str], counts: Counter[str]
    ) -> None:
        for index, name in enumerate(names):
            if name in touched:
                node.input[index] = new = self.final(block, name)[1]
                counts[name] -= 1
                counts[new] += 1

    def take_out(self) -> None:
        """Delete the nodes that are gone, and put there what comes in their stead."""
        for block, places in self.gone.items():
            nodes = block.body.node
            ranks: list[float] = [inf if place in places else place for place in range(len(block.nodes))]
            for place in sorted(places):
                nodes.extend(places[place])
                ranks += [place] * len(places[place])
            reorder(nodes, ranks)  # those that go come last
            del nodes[len(ranks) - len(places) :]

    def lost(self, block: Block, pruned: Iterable[Name]) -> set[str]:
        """Return the names that a block gave and gives no longer, after all edits; ``pruned`` are some of them."""
        places = self.gone.get(block, {})
        was = {name for home, name in pruned if home is block}
        was.update(self._renamed[block], *(block.makes[place] for place in places))
        made = [node.output for nodes in places.values() for node in nodes]
        made += [(new,) for name, new in self._renamed[block].items() if block.makers[name] not in places]
        return was.difference(*made) - {""}

    def settle_infos(self, lost: Iterable[Name]) -> None:
        """Take back what value_info says of names that are no more, or let it speak of what took their place."""
        gone: dict[Block, set[str]] = defaultdict(set)
        moved: dict[Block, dict[str, Name]] = defaultdict(dict)
        for block, name in lost:
            gone[block].add(name)
        for block, passed in self._passed.items():
            for name in passed:
                moved[block][name] = self.final(block, name)
        for block, renamed in self._renamed.items():
            gone[block].update(renamed)
        settle_infos(gone, moved, lambda block, name: name in self.given(block) or name in self.outputs(block))
