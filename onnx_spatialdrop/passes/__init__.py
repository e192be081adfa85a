"""Graph rewrites on onnx_ir models: every way into the SpatialDropout node and every way out of it."""
