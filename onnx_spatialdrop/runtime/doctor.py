"""What this machine can run: versions, the native library, and each kernel tried on a small model."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.errors import KernelError
from onnx_spatialdrop.graph.controls import add_switches
from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.operator import node, reference, spec
from onnx_spatialdrop.runtime import child_process
from onnx_spatialdrop.runtime.session import KERNELS, Kernel, choose, session
from onnx_spatialdrop.versions import untested

__all__ = ["KernelReport", "Report", "doctor"]

_PACKAGES = ("onnx_spatialdrop", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-extensions", "numpy")
_PATIENCE_S: Final = 120


@dataclass(frozen=True)
class KernelReport:
    """One kernel.

    Attributes:
        kernel: "native", "python" or "body".
        usable: whether it ran a small model and gave the reference's bits.
        detail: why not; or what it is.
    """

    kernel: str
    usable: bool
    detail: str


@dataclass(frozen=True)
class Report:
    """What doctor found.

    Attributes:
        versions: package or "python" -> version, or "not installed".
        library: path of the native library, or why there is none.
        kernels: one record a kernel, the fastest first.
        untested: package or "python" -> why its version is out of the range that is tested.
        auto: the kernel that ``session(kernel="auto")`` takes here.
    """

    versions: dict[str, str]
    library: str
    kernels: tuple[KernelReport, ...]
    auto: str
    untested: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return the report in types that JSON has."""
        return asdict(self)


def doctor() -> Report:
    """Try every kernel on a small model and return what was found; it raises nothing for what is missing."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    versions.update({package: _version(package) for package in _PACKAGES})
    try:
        library = str(native.get_library_path())
    except KernelError as error:
        library = str(error)
    kernels = _try_all()
    found = {package: untested(package, held) for package, held in versions.items()}
    return Report(versions, library, kernels, choose("auto")[0], {key: why for key, why in found.items() if why})


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _try_all() -> tuple[KernelReport, ...]:
    """Try each kernel in a process of its own: a library that is damaged takes its process with it."""
    code = f"from {__name__} import report; report(sys.argv[1])"
    running = [(kernel, child_process.start(code, kernel, output=subprocess.PIPE)) for kernel in KERNELS]
    return tuple(_finished(kernel, process) for kernel, process in running)


def _finished(kernel: Kernel, process: subprocess.Popen[bytes]) -> KernelReport:
    try:
        told, _ = process.communicate(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return KernelReport(kernel, False, f"a small model did not end within {_PATIENCE_S} s")
    except BaseException:
        process.kill()
        process.communicate()
        raise
    died = child_process.death(process.returncode)
    if died:
        return KernelReport(kernel, False, f"the process that tried it {died}: reinstall the package behind it")
    try:
        return KernelReport(**json.loads(told))
    except ValueError:
        return KernelReport(kernel, False, f"the process that tried it ended with exit code {process.returncode}")


def report(kernel: Kernel) -> None:
    """Try one kernel and print its KernelReport as JSON; what ``doctor`` runs in a process of its own."""
    print(json.dumps(asdict(_try(kernel))))


def _try(kernel: Kernel) -> KernelReport:
    try:
        choose(kernel)
        x = np.arange(1, 1 + 3 * 8 * 4, dtype=np.float32).reshape(3, 8, 2, 2)
        feeds = {"x": x, "training_mode": np.array(True), "step": np.arange(3)}
        got = session(_model(), kernel).run(None, feeds)[0]
    except Exception as error:  # noqa: BLE001 - a report says what is wrong, whatever it is
        return KernelReport(kernel, False, io.first_line(error))
    expected, _ = reference.spatial_dropout(x, [2, 3], 0.5, 1, np.arange(3), scale=2.0)
    if not np.array_equal(got, expected):
        return KernelReport(kernel, False, "it ran, but its bits differ from the reference's: please report this")
    return KernelReport(kernel, True, "ran a small model and gave the reference's bits")


def _model() -> ir.Model:
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=["N", 8, 2, 2])
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 18, spec.DOMAIN: spec.VERSION}, name="doctor")
    training_mode, step = add_switches(graph)
    made = node.spatial_dropout(x, 0.5, training_mode=training_mode, step=step, seed=1, name="doctor")
    graph.append(made)
    made.outputs[0].name = "y"
    graph.outputs.append(made.outputs[0])
    return ir.Model(graph, ir_version=9)
