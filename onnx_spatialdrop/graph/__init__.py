"""Tools for graphs of onnx_ir that know no policy: where nodes live, how values are replaced, what is left over."""
