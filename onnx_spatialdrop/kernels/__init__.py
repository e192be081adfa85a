"""What computes a SpatialDropout node: the native library and the Python kernel."""
