"""The onnx-spatialdrop command line: one file a verb."""
