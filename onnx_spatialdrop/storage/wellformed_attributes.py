"""The attributes of nodes, of which most are like others: each that there is is looked at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnx import AttributeProto, NodeProto, TensorProto

from onnx_spatialdrop.storage.survey import Block, Survey
from onnx_spatialdrop.storage.wellformed_values import MalformedError, refuse_attribute, tensors

__all__ = ["Attributes", "named"]

#: Domains whose attributes passes read; others may keep bytes in strings, and so may Constant, whose they are data.
_OURS = ("", "ai.onnx", "onnx_spatialdrop")
_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
#: Operators that have no attributes, as a rule: of their nodes nobody asks where the others have them all.
_BARE = frozenset(("Add", "Div", "Dropout", "Erf", "MatMul", "Mul", "Pow", "Relu", "Reshape", "Sigmoid", "Sqrt", "Sub"))


class Attributes:
    """Looks at attributes, and notes in ``survey`` which tensors have external data."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._plain = dict[bytes, str | None]()  # their names, where nothing is wrong; None: somebody has to look

    def holders(self, block: Block, attributes: list[bytes]) -> set[int]:
        """Look at the nodes of a block; return the places of those with subgraphs, which are not looked into.

        Args:
            block: the block.
            attributes: see columns.Columns.

        Raises:
            MalformedError: saying what is wrong, and of which node.
        """
        return {place for place in self._doubtful(block, attributes) if self._look(block.nodes[place])}

    def _doubtful(self, block: Block, attributes: list[bytes]) -> Iterator[int]:
        """Yield the places of nodes whose attributes have to be looked at: wrong, maybe, or more than values."""
        names = self._plain
        for content in set(attributes) - names.keys():
            names[content] = _name_of_value(content)
        places: Sequence[int] = [place for place, op_type in enumerate(block.op_types) if op_type not in _BARE]
        counts = [len(block.nodes[place].attribute) for place in places]
        if sum(counts) != len(attributes):
            places, counts = range(len(block.nodes)), [len(node.attribute) for node in block.nodes]
        start = 0
        for place, count in zip(places, counts, strict=True):
            if count:
                found = [names[content] for content in attributes[start : start + count]]
                if None in found or (count > 1 and len(set(found)) < count):
                    yield place
                start += count

    def _look(self, node: NodeProto) -> bool:
        """Look at a node's attributes; return whether there are subgraphs."""
        for attribute in node.attribute:
            refuse_attribute(attribute, named(node))
            if attribute.type == AttributeProto.STRING and node.domain in _OURS and node.op_type != "Constant":
                try:
                    attribute.s.decode()
                except UnicodeDecodeError:
                    raise MalformedError(f"attribute {attribute.name!r} of {named(node)} is not UTF-8") from None
            outside = (each for each in tensors(attribute) if each.data_location == TensorProto.EXTERNAL)
            self._survey.external += outside
        if len({attribute.name for attribute in node.attribute}) < len(node.attribute):
            raise MalformedError(f"{named(node)} has an attribute twice")
        return any(attribute.type in _GRAPHS for attribute in node.attribute)


def _name_of_value(content: bytes) -> str | None:
    """Return the name of an attribute that is right and a plain value; None where that is not known."""
    attribute = AttributeProto.FromString(content)
    try:
        refuse_attribute(attribute, "")
        attribute.s.decode()
    except (MalformedError, UnicodeDecodeError):
        return None
    if attribute.type in _GRAPHS or any(each.data_location == TensorProto.EXTERNAL for each in tensors(attribute)):
        return None
    return str(attribute.name)


def named(node: NodeProto) -> str:
    """Return how messages name a node."""
    return f"node {node.name!r}" if node.name else f"the {node.op_type} node of {(*node.output, '')[0]!r}"
