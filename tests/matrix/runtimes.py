"""The runtimes that Python can call: each loads a file and runs it as its users would."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence

import onnx
from matrix.cases import Case
from matrix.verdict import Feeds, Outputs

__all__ = ["LEVEL_NAMES", "RUNNERS", "missing", "version_of"]

LEVEL_NAMES = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}


def _given(feeds: Feeds, names: Sequence[str]) -> Feeds:
    return {name: feeds[name] for name in names if name in feeds}


def onnxruntime_at(level: str) -> Callable[[Case, Sequence[Feeds]], list[Outputs]]:
    """Return a runner for the installed ONNX Runtime at one of its optimisation levels."""

    def run(case: Case, plan: Sequence[Feeds]) -> list[Outputs]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVEL_NAMES[level])
        session = onnxruntime.InferenceSession(case.path, options, providers=["CPUExecutionProvider"])
        inputs = [each.name for each in (*session.get_inputs(), *session.get_overridable_initializers())]
        names = [each.name for each in session.get_outputs()]
        return [dict(zip(names, session.run(None, _given(feeds, inputs)), strict=True)) for feeds in plan]

    return run


def _reference(case: Case, plan: Sequence[Feeds]) -> list[Outputs]:
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(onnx.load(case.path))
    return [
        dict(zip(session.output_names, session.run(None, _given(feeds, session.input_names)), strict=True))
        for feeds in plan
    ]


def _openvino(case: Case, plan: Sequence[Feeds]) -> list[Outputs]:
    import openvino

    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = core.compile_model(core.read_model(case.path), "CPU", exact)
    inputs = [name for port in model.inputs for name in port.names]
    names = [port.any_name for port in model.outputs]
    return [
        dict(zip(names, (value.copy() for value in model(_given(feeds, inputs)).values()), strict=True))
        for feeds in plan
    ]


def _tract(case: Case, plan: Sequence[Feeds]) -> list[Outputs]:
    import tract

    proto = onnx.load(case.path, load_external_data=False)
    defaults = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value.name for value in proto.graph.input if value.name not in defaults]
    state = tract.onnx().load(case.path).into_model().into_runnable().spawn_state()
    names = [value.name for value in proto.graph.output]
    return [
        dict(zip(names, (value.to_numpy() for value in state.run([feeds[name] for name in inputs])), strict=True))
        for feeds in plan
    ]


RUNNERS: dict[str, Callable[[Case, Sequence[Feeds]], list[Outputs]]] = {
    **{f"onnxruntime {level}": onnxruntime_at(level) for level in LEVEL_NAMES},
    "reference": _reference,
    "openvino": _openvino,
    "tract": _tract,
}


def missing(runtime: str) -> str:
    """Return why a runtime cannot run here, or ""."""
    package = _package(runtime)
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed (pip install {package})"
    if runtime == "onnxruntime layout":
        import onnxruntime

        if not hasattr(onnxruntime.GraphOptimizationLevel, LEVEL_NAMES["layout"]):
            return f"onnxruntime {onnxruntime.__version__} has no level of that name"
    return ""


def version_of(runtime: str) -> str:
    """Return the version of the package behind a runtime."""
    return importlib.metadata.version(_package(runtime))


def _package(runtime: str) -> str:
    return "onnx" if runtime == "reference" else runtime.split()[0]
