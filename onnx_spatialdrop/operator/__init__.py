"""What the operator is: its definition, its generator, its reference and its nodes."""
