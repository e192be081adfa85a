"""Monte Carlo dropout over data that one call cannot hold, on the engine that people already run. It imports none."""

from onnx_spatialdrop.distributed.batches import MonteCarloBatches
from onnx_spatialdrop.distributed.checkpoint import CheckpointedBatches
from onnx_spatialdrop.distributed.ray_data import monte_carlo_dataset

__all__ = ["CheckpointedBatches", "MonteCarloBatches", "monte_carlo_dataset"]
