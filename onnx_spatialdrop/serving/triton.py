"""A model as NVIDIA Triton's ONNX Runtime backend takes it: a folder in its repository, with its config.pbtxt.

It writes files and knows no server. Names, types and sizes in the configuration are those that ONNX Runtime finds in
the file, since the backend compares them with just these.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx
import onnx_ir as ir

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.errors import KernelError, ModelFileError, SpecError
from onnx_spatialdrop.montecarlo.batches import prepared_plan
from onnx_spatialdrop.montecarlo.onefile import MonteCarloPass
from onnx_spatialdrop.montecarlo.options import STRATA, options
from onnx_spatialdrop.montecarlo.plan import Plan
from onnx_spatialdrop.montecarlo.prepare import made_nodes
from onnx_spatialdrop.operator.bodies.body import MIN_OPSET
from onnx_spatialdrop.passes.expand import ExpandPass
from onnx_spatialdrop.runtime.session import quiet_options
from onnx_spatialdrop.storage import files

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["TritonPass", "triton"]

_FILE: Final = "model.onnx"
_CONFIG: Final = "config.pbtxt"
_LOG: Final = logging.getLogger("onnx_spatialdrop")
#: What strings of protobuf's text format cannot hold as it is.
_ESCAPES: Final = {"\\": r"\\", '"': r"\"", "\n": r"\n"}
#: Makes the text of the configuration of a file.
Configured = Callable[[Path], str]
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
#: Types as ONNX Runtime and Triton call them.
_TYPES: Final = {
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bool)": "BOOL",
    "tensor(string)": "STRING",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}".upper() for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class TritonPass(ir.passes.InPlacePass):
    """Make a model one for Triton; ``meets`` says afterwards why requests must not be laid behind each other, or "".

    1. Dropout is switched on, spelled out as nodes where it was not (see prepare.py); a fixed batch is opened where
       that is proven to change nothing.
    2. With ``samples`` the model sums up so many draws a request (see MonteCarloPass), else it draws once.
    3. ``step`` is an input [batch, 1], one a sample, and all is written in standard operators (see ExpandPass).
    """

    def __init__(self, samples: int | None = 31, **chosen: Any) -> None:
        super().__init__()
        self.chosen = options(1 if samples is None else samples, **{"strata": STRATA, **chosen})
        self.samples = samples
        self.meets = ""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        made_nodes(model, MIN_OPSET)
        if self.samples is None:
            plan: Plan | None = prepared_plan(model, self.chosen.layers, strata=self.chosen.strata)
        else:
            summed = MonteCarloPass(self.chosen)
            summed.call(model)
            plan = summed.plan
        assert plan is not None
        self.meets = plan.meets
        ExpandPass(None, "triton").call(model)
        return ir.passes.PassResult(model, modified=True)


def triton(
    model: io.Source,
    repository: io.PathLike,
    *,
    name: str | None = None,
    version: int = 1,
    samples: int | None = 31,
    max_batch_size: int = 32,
    force: bool = False,
    **options: Any,
) -> Path:
    """Write a model with dropout into a Triton repository: NAME/VERSION/model.onnx and NAME/config.pbtxt.

    Requests give ``step`` beside the model's inputs: int64, the step of the first draw, counted modulo 2**62. Triton
    lays requests behind each other, and since each has a step of its own, an answer is the same whatever is beside it.
    Where that is not proven of the rest of the model, the configuration has max_batch_size 0, so that each request runs
    alone. The file has standard operators only and needs no library.

    A new model and a new version appear whole or not at all. A config.pbtxt that is there stays, since people tune it.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model, with nodes or exported in training mode; it is not changed.
        repository: the folder; it is made where it is missing.
        name: the model's name there: letters, digits, "_", "-", "."; by default that of the file.
        version: its version there, from 1 on.
        samples: draws a request, summed up as monte_carlo does. None: one draw, the model's own outputs.
        max_batch_size: samples that Triton may run at once.
        force: replace the version, and config.pbtxt, where they are there; each file is replaced whole.
        options: of monte_carlo: task, statistics, layers, class_axis, log_variance, strata.

    Returns:
        The folder of the model, REPOSITORY/NAME.

    Raises:
        SpecError: no dropout is live, or an argument that does not fit.
        KernelError: ONNX Runtime does not load what was written.
        FormError: a node has one mask for all samples, or the opset cannot be converted to 18.
        ModelFileError: the version is there already, or a file that cannot be read or written.
    """
    folder = arguments.path(repository, "repository")
    called = _name(model, name)
    number = arguments.integer(version, "version", 1, 2**31 - 1)
    batch = arguments.integer(max_batch_size, "max_batch_size", 1, 2**31 - 1)
    rewrite = TritonPass(None if samples is None else arguments.integer(samples, "samples", 1, 2**31 - 1), **options)
    place = folder / called
    replaces = arguments.flag(force, "force")
    if (place / str(number)).exists() and not replaces:
        raise ModelFileError(
            f"{place / str(number)}: is there already; choose another version, or let force replace it"
        )
    made = io.rewrite(model, None, rewrite.call)[0]
    assert not isinstance(made, Path)
    _write(made, place, number, lambda file: _configuration(called, file, 0 if rewrite.meets else batch), replaces)
    return place


def _name(model: io.Source, name: str | None) -> str:
    if name is None:
        if isinstance(model, ir.Model) or not isinstance(source := io.checked_source(model), Path):
            raise SpecError("name is missing: a model that is no file has none of its own")
        name = source.stem
    if not _NAME.fullmatch(arguments.string(name, "name")):
        raise SpecError(f"name is {name!r}; it must be made of letters, digits, '_', '-' and '.'")
    return name


def _write(made: ir.Model | onnx.ModelProto, place: Path, version: int, configured: Configured, force: bool) -> None:
    """Write the version, and the configuration where it is missing or is to be replaced."""
    home, configuration = place / str(version), place / _CONFIG
    if not place.exists():
        with files.appearing(place) as building:
            (building / home.name).mkdir()
            _put(building / _CONFIG, configured(io.save(made, building / home.name / _FILE)))
    elif home.exists():
        _put(configuration, configured(io.save(made, home / _FILE)))
    else:
        with files.appearing(home) as building:
            text = configured(io.save(made, building / _FILE))
            if force or not configuration.exists():
                _put(configuration, text)
            elif files.read(configuration) != text.encode():
                _LOG.info("%s: stays, and is not what would be written; force replaces it", configuration)


def _put(file: Path, text: str) -> None:
    with files.replacing(file) as pending:
        pending.stream.write(text.encode())


def _configuration(name: str, file: Path, max_batch_size: int) -> str:
    """Return the text of config.pbtxt, in protobuf's text format."""
    import onnxruntime

    options = quiet_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # each of ONNX Runtime's errors is a class of its own
        raise KernelError(f"ONNX Runtime, which Triton runs, does not load the file: {io.first_line(error)}") from error
    lines = [f"name: {_quoted(name)}", 'backend: "onnxruntime"', f"max_batch_size: {max_batch_size}"]
    for kind, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
        entries = ",\n".join(f"  {_tensor(value, max_batch_size > 0)}" for value in values)
        lines.append(f"{kind} [\n{entries}\n]")
    return "\n".join([*lines, *(["dynamic_batching { }"] if max_batch_size else [])]) + "\n"


def _tensor(value: onnxruntime.NodeArg, batched: bool) -> str:
    """Return an input or an output; where requests are batched, its sizes leave the batch out."""
    if value.type not in _TYPES:
        raise SpecError(f"{value.name!r} is a {value.type}, which Triton's ONNX Runtime backend does not take")
    sizes = [size if isinstance(size, int) else -1 for size in value.shape][1 if batched else 0 :]
    said = f"name: {_quoted(value.name)} data_type: TYPE_{_TYPES[value.type]} dims: {_listed(sizes or [1])}"
    return f"{{ {said} }}" if sizes else f"{{ {said} reshape {{ shape: [ ] }} }}"


def _listed(sizes: Sequence[int]) -> str:
    return f"[ {', '.join(map(str, sizes))} ]"


def _quoted(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(char, char) for char in text) + '"'
