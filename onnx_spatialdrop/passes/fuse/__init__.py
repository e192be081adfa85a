"""Turn every dropout that a model spells out in standard operators into a SpatialDropout node."""

from onnx_spatialdrop.passes.fuse.policy import FusePass, explain, fuse

__all__ = ["FusePass", "explain", "fuse"]
