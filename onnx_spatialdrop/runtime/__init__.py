"""Sessions that run SpatialDropout nodes, and the report on what this machine can run."""
