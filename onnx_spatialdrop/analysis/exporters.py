"""Exporters' known habits: mistakes to name, and words for what a mask is. Judges by names only what to call it."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_spatialdrop.analysis.prove import Proof
from onnx_spatialdrop.analysis.sources import Source

__all__ = ["bug_of", "kind_of"]


def bug_of(source: Source, producer: str) -> str:
    """Return which exporter's mistake a random node shows, "" for none.

    Args:
        source: the random node.
        producer: the model's producer_name.
    """
    node = source.node
    if node.op_type != "Dropout" or node.domain:
        return ""
    if producer == "tf2onnx":
        lost = "ratio" not in node.attributes and len(node.inputs) < 2
        return (
            "tf2onnx's dropout rewriter makes element-wise Dropout of every noise shape"
            + (", here also its ratio" if lost else "")
            + ": in the source it may have dropped whole channels"
        )
    if producer in ("jax2onnx", "jax2onnx.export"):
        return "jax2onnx writes flax's Dropout(broadcast_dims) as element-wise Dropout: the shared axes are lost"
    return ""


def kind_of(kind: str, proofs: Sequence[Proof], producer: str) -> str:
    """Return the usual name of a mask of ``kind``.

    (N, T, C) with one entry for all of T is Keras's SpatialDropout1D; PyTorch has no such layer, and its users write
    the same mask as locked (variational) dropout.
    """
    if kind == "spatial" and producer == "pytorch" and proofs[0].rank == 3 and proofs[0].axes == (1,):
        return "variational"
    return kind
