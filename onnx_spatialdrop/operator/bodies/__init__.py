"""The operator as a model-local function: its definition in standard operators, as ONNX text."""
