"""Monte Carlo dropout: one file that sums up its own draws, or two sessions that do."""

from onnx_spatialdrop.montecarlo.onefile import MonteCarloPass, monte_carlo
from onnx_spatialdrop.montecarlo.predict import MCDropout
from onnx_spatialdrop.montecarlo.result import MCResult, Statistics
from onnx_spatialdrop.montecarlo.splitting import Split, SplitReport, split

__all__ = [
    "MCDropout",
    "MCResult",
    "MonteCarloPass",
    "Split",
    "SplitReport",
    "Statistics",
    "monte_carlo",
    "split",
]
