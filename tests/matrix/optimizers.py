"""The optimisers that people run on files, each as its users call it: a file in, a file out."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import onnx
import onnx_ir as ir


def _onnxslim(source: Path, target: Path) -> None:
    import onnxslim

    onnxslim.slim(str(source), str(target))


def _onnxsim(source: Path, target: Path) -> None:
    import onnxsim

    model, _ = onnxsim.simplify(onnx.load(source))
    onnx.save(model, target)


def _onnxscript(source: Path, target: Path) -> None:
    import onnxscript.optimizer

    onnx.save(onnxscript.optimizer.optimize(onnx.load(source)), target)


def _onnxoptimizer(source: Path, target: Path) -> None:
    import onnxoptimizer

    passes = onnxoptimizer.get_fuse_and_elimination_passes()
    onnx.save(onnxoptimizer.optimize(onnx.load(source), passes), target)


def _onnx_ir(source: Path, target: Path) -> None:
    import onnx_ir.passes.common as common

    model = ir.load(source)
    ir.external_data.load_to_model(model)
    ir.passes.Sequential(
        common.InlinePass(),
        common.CommonSubexpressionEliminationPass(),
        common.DeduplicateInitializersPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.TopologicalSortPass(),
    )(model)
    ir.save(model, target)


def onnxruntime_offline(level: str) -> Callable[[Path, Path], None]:
    def run(source: Path, target: Path) -> None:
        import onnxruntime
        from matrix.runtimes import LEVEL_NAMES

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVEL_NAMES[level])
        options.optimized_model_filepath = str(target)
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    return run


OPTIMIZERS: dict[str, Callable[[Path, Path], None]] = {
    "onnxslim": _onnxslim,
    "onnxsim": _onnxsim,
    "onnxscript": _onnxscript,
    "onnxoptimizer": _onnxoptimizer,
    "onnx-ir": _onnx_ir,
    **{f"onnxruntime offline {level}": onnxruntime_offline(level) for level in ("basic", "extended", "all")},
}


def optimize(optimizer: str, source: Path, target: Path) -> None:
    """Run an optimiser on a file, without what it prints and warns of."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        OPTIMIZERS[optimizer](source, target)


def missing(optimizer: str) -> str:
    """Return why an optimiser cannot run here, or ""."""
    package = optimizer.split()[0]
    if importlib.util.find_spec(package.replace("-", "_")) is None:
        return f"{package} is not installed (pip install {package})"
    return ""


def version_of(optimizer: str) -> str:
    """Return the version of the package behind an optimiser."""
    return importlib.metadata.version(optimizer.split()[0])
