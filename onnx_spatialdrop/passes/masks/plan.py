"""The mask plan: which SpatialDropout nodes of a model share a generator, and why others do not. Changes nothing.

A mask depends on (seed, step, entry) and on sizes, never on what X holds. So the masks of many nodes can be drawn in
one go, before the first of them, where their sizes are known by then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec

__all__ = ["MAX_ENTRIES", "MAX_TABLE", "Entry", "Group", "Member", "Size", "SizeOf", "plan"]

#: Nodes of more entries a sample than this, or of an unknown number, share a generator only with those of equal sizes:
#: drawn side by side, their masks would need memory for all of their words at once.
MAX_ENTRIES: Final = 1 << 12
#: How many entries a sample the others of a group have at most; they take 200 bytes of constants for four of them.
MAX_TABLE: Final = 1 << 13


@dataclass(frozen=True)
class SizeOf:
    """A size that is known when the model runs: dimension ``axis`` of ``value``."""

    value: ir.Value
    axis: int


#: A node, and the type and shape of its X, where they are known.
Member = tuple[scopes.Site, ir.TypeProtocol | None, ir.Shape | None]
#: A size: a number, or where to read it.
Size = int | SizeOf


@dataclass(frozen=True)
class Entry:
    """What a generator has to know of one node.

    Attributes:
        site: the node and where it stands.
        attributes: its attributes, checked.
        dtype: the type of X; None where nobody knows.
        rows: dim 0 of the mask; None where the rank of X is unknown.
        inner: its other dims; None where the rank of X is unknown.
    """

    site: scopes.Site
    attributes: spec.Attributes
    dtype: np.dtype[Any] | None
    rows: Size | None
    inner: tuple[Size, ...] | None

    @property
    def x(self) -> ir.Value:
        """Return what the node drops from."""
        x = self.site.node.inputs[0]
        assert x is not None
        return x

    @cached_property
    def length(self) -> int | None:
        """Return the number of mask entries a sample, where the file fixes it."""
        if self.inner is None or not all(isinstance(size, int) for size in self.inner):
            return None
        return math.prod(size for size in self.inner if isinstance(size, int))

    @property
    def is_small(self) -> bool:
        """Return whether the file fixes how many entries a sample has, and they are few; a mask without any is not."""
        return self.length is not None and 0 < self.length <= MAX_ENTRIES


@dataclass
class Group:
    """Nodes whose masks are drawn together.

    Attributes:
        scope: the main graph or the function that they are in.
        home: the graph that the generator goes into: that one, or the body of a Loop or Scan.
        anchor: the node of ``home`` before which it goes.
        training_mode: their switch.
        step: their step.
        entries: the nodes, in the order of the file.
        reason: why a node that draws alone does so; "" for the others.
        tables: whether the sizes are known, and small enough for constants that say what each block is.
        total: the entries a sample of all nodes, where they are known.
    """

    scope: scopes.Scope
    home: ir.Graph
    anchor: ir.Node
    training_mode: ir.Value
    step: ir.Value
    entries: list[Entry] = field(default_factory=list)
    reason: str = ""

    def __post_init__(self) -> None:
        self.tables, self.total = True, 0
        for entry in self.entries:
            self._count(entry)

    def add(self, entry: Entry) -> None:
        """Take a node in."""
        self.entries.append(entry)
        self._count(entry)

    def _count(self, entry: Entry) -> None:
        self.tables = self.tables and entry.is_small
        self.total += entry.length or 0

    @property
    def rows(self) -> Size | None:
        """Return dim 0 of all its masks."""
        return self.entries[0].rows


def plan(model: ir.Model, members: Sequence[Member], stack: bool = True, mixed: bool = False) -> list[Group]:
    """Return the groups of nodes, each node in one of them, in the order of the file.

    1. Nodes share a generator if they are in one graph (branches of If count to the graph around them), have the same
       ``training_mode``, ``step``, ``strata``, generator of words and number of samples, and if the sizes of their
       masks are numbers or dimensions of the model's inputs, by name. Small ones have MAX_TABLE entries a sample
       together; others share it with those of the same sizes.
    2. What else a size can be read from is the X of the group's first node, before which the generator stands.
    3. A node of unknown rank, one that shares axis 0, one without entries and one whose sizes cannot be read before the
       group's first node draw alone, and take their sizes from their own X.

    Args:
        model: the model.
        members: the nodes, with what is known of their X, in the order of the file.
        stack: whether nodes that are not small may share a generator, which takes a Scan.
        mixed: whether any nodes may share one that have their switch, step and number of samples in common.
    """
    found = list[Group]()
    holders = {graph: node for node in scopes.all_nodes(model) for graph in scopes.subgraphs(node)}
    for home, inside in _homes([site for site, _, _ in members], holders).items():
        planner = _Planner(list(_outwards(home, holders)), stack, mixed)
        found += planner.groups([(site, anchor, *members[index][1:]) for index, site, anchor in inside])
    places = {site.node: index for index, (site, _, _) in enumerate(members)}
    return sorted(found, key=lambda group: places[group.entries[0].site.node])


def _graph_of(node: ir.Node) -> ir.Graph:
    graph = node.graph
    assert graph is not None
    return graph.graph if isinstance(graph, ir.Function) else graph


def _homes(
    sites: Sequence[scopes.Site], holders: dict[ir.Graph, ir.Node]
) -> dict[ir.Graph, list[tuple[int, scopes.Site, ir.Node]]]:
    """Return, for each graph that holds nodes, their places in ``sites`` and the nodes of the graph that hold them."""
    found: dict[ir.Graph, list[tuple[int, scopes.Site, ir.Node]]] = {}
    for index, site in enumerate(sites):
        anchor = site.node
        while (holder := holders.get(_graph_of(anchor))) is not None and holder.op_type == "If":
            anchor = holder
        found.setdefault(_graph_of(anchor), []).append((index, site, anchor))
    return found


def _outwards(graph: ir.Graph, holders: dict[ir.Graph, ir.Node]) -> Iterator[ir.Graph]:
    """Yield a graph and those around it, whose values it can read."""
    yield graph
    while (holder := holders.get(graph)) is not None:
        graph = _graph_of(holder)
        yield graph


class _Planner:
    """Puts the nodes of one graph, the first of the graphs ``around`` it, into groups."""

    def __init__(self, around: Sequence[ir.Graph], stack: bool, mixed: bool) -> None:
        self._home, self._around = around[0], frozenset(around)
        self._stack, self._mixed = stack, mixed
        self._sizes: dict[str, tuple[SizeOf, int]] = {}  # what has a name, and from which node on it can be read
        for value in around[-1].inputs:  # of the others nobody but the file knows sizes
            for axis, name in _named(value.shape):
                self._sizes.setdefault(name, (SizeOf(value, axis), -1))

    def groups(
        self, members: list[tuple[scopes.Site, ir.Node, ir.TypeProtocol | None, ir.Shape | None]]
    ) -> list[Group]:
        found, open_ = list[Group](), dict[Any, tuple[Group, int]]()
        for number, (site, anchor, kind, shape) in enumerate(members):
            attributes = op.read(site.node)
            dtype = None if kind is None else op.FLOAT_TYPES.get(kind.dtype)
            training, step = site.node.inputs[1:]
            assert training is not None
            assert step is not None
            inside = anchor is not site.node
            entry, born, reason = self._entry(site, attributes, dtype, shape, number, inside)
            if inside and not {training.graph, step.graph} <= self._around:
                reason = "its control inputs are computed in a branch"
            if reason:
                found.append(Group(site.scope, _graph_of(site.node), site.node, training, step, [entry], reason))
                continue
            alike = None if entry.is_small else entry.inner
            key: tuple[Any, ...] = (training, step, entry.rows)
            if not self._mixed:
                key += (attributes.rng, attributes.strata, alike)
            if key in open_ and (born > open_[key][1] or not self._fits(open_[key][0], entry)):
                del open_[key]
            if key not in open_:
                open_[key] = (Group(site.scope, self._home, anchor, training, step), number)
                found.append(open_[key][0])
            open_[key][0].add(entry)
        return found

    def _fits(self, group: Group, entry: Entry) -> bool:
        """Return whether a group is small enough for one more node."""
        if not entry.is_small or self._mixed:
            return self._stack
        return group.total + (entry.length or 0) <= MAX_TABLE

    def _entry(
        self,
        site: scopes.Site,
        attributes: spec.Attributes,
        dtype: np.dtype[Any] | None,
        shape: ir.Shape | None,
        number: int,
        inside: bool,
    ) -> tuple[Entry, int, str]:
        """Return what a generator has to know, from which node on it is known, and why the node has to draw alone."""
        x = site.node.inputs[0]
        assert x is not None
        if shape is None:
            return Entry(site, attributes, dtype, None, None), number, "the rank of its X is unknown"
        shared = spec.normalize_axes(attributes.axes, len(shape), attributes.where)
        sizes, born, alone = list[Size](), -1, False
        for axis, dim in enumerate(shape):
            if axis in shared or isinstance(dim, int):
                sizes.append(1 if axis in shared else int(dim))  # type: ignore[arg-type]
                continue
            name = dim.value if isinstance(dim, ir.SymbolicDim) else None
            if name is not None and name not in self._sizes and not inside:
                self._sizes[name] = (SizeOf(x, axis), number)
            if name is None or name not in self._sizes:
                alone = True
                sizes.append(SizeOf(x, axis))
                continue
            size, when = self._sizes[name]
            born = max(born, when)
            sizes.append(size)
        entry = Entry(site, attributes, dtype, sizes[0], tuple(sizes[1:]))
        if alone:
            return entry, number, "its sizes are known only where it stands"
        if 0 in shared and len(shape) > 1:
            return entry, number, "it shares axis 0"
        if entry.length == 0:
            return entry, number, "it has no entries"
        return entry, born, ""


def _named(shape: ir.Shape | None) -> Iterator[tuple[int, str]]:
    for axis, dim in enumerate(shape or ()):
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
            yield axis, dim.value
