"""Spatial dropout for ONNX."""
