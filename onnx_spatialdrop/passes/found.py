"""What find says of a node, whether it was read in an ir.Model or in a protobuf. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from onnx_spatialdrop.operator import spec

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Found", "drawn", "plain"]


@dataclass(frozen=True)
class Found:
    """One SpatialDropout node.

    Attributes:
        name: the node's name; "" where it has none.
        axes: the axes along which one mask entry is shared, as the node has them.
        ratio: fraction dropped, in [0, 1].
        seed: int64 key.
        scale: what kept values are multiplied by; 0 stands for 1 / (1 - ratio).
        rng: the generator.
        strata: over how many steps the draws are balanced; 1: each is drawn on its own.
        dtype: X's type, such as "float32"; None where the file does not say.
        shape: X's dimensions, numbers, names or None each; None where the rank is unknown.
        training_mode: "switch NAME (default)", "constant VALUE" or "computed by NAME".
        step: the same for ``step``.
        scope: "" for the main graph, else "function DOMAIN::NAME"; "/subgraph" is added inside If, Loop and Scan.
        mask_used: whether something reads the mask.
        source: the node in the model: an ir.Node, or an onnx.NodeProto where the model is a file or a protobuf.
    """

    name: str
    axes: tuple[int, ...]
    ratio: float
    seed: int
    scale: float
    rng: str
    strata: int
    dtype: str | None
    shape: tuple[int | str | None, ...] | None
    training_mode: str
    step: str
    scope: str
    mask_used: bool
    source: Any = field(repr=False)

    @cached_property
    def node(self) -> ir.Node:
        """The node itself; of a file or a protobuf, a copy whose inputs and outputs have names and nothing else."""
        import onnx_ir

        if isinstance(self.source, onnx_ir.Node):
            return self.source
        return onnx_ir.Node(
            self.source.domain,
            self.source.op_type,
            [onnx_ir.Value(name=name) for name in self.source.input],
            [onnx_ir.serde.deserialize_attribute(attribute) for attribute in self.source.attribute],
            outputs=[onnx_ir.Value(name=name) for name in self.source.output],
            name=self.source.name,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the node, in types that JSON has."""
        return {key: value for key, value in self.__dict__.items() if key not in ("node", "source")}


def plain(array: Any) -> str:
    """Return a constant in words: one number, or a list."""
    flat = array.reshape(-1).tolist()
    return str(flat[0] if len(flat) == 1 else flat).lower()


def drawn(attributes: spec.Attributes) -> dict[str, Any]:
    """Return what Found says of how a node draws."""
    return {name: getattr(attributes, name) for name in ("axes", "ratio", "seed", "scale", "rng", "strata")}
