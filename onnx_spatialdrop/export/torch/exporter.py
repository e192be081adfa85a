"""Export torch modules with their spatial dropout as SpatialDropout nodes. torch is imported when it is called.

Only dropout is on: batch norm and everything else go out in inference mode, and the module stays as it was.
"""

from __future__ import annotations

import io as streams
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnx_spatialdrop import arguments as check
from onnx_spatialdrop import io
from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export.finish import Dropout, finish, require
from onnx_spatialdrop.export.left_out import LeftOut, warn
from onnx_spatialdrop.export.markers import replace_markers
from onnx_spatialdrop.export.torch import calls, contexts, dims, hooks, models
from onnx_spatialdrop.export.torch.capture import Capture
from onnx_spatialdrop.export.torch.unbatched import unbatched

__all__ = ["export", "exporting", "translation_table"]


def export(
    module: Any,
    args: Any = (),
    output: io.PathLike | None = None,
    *,
    dropout: Dropout = "op",
    target: str | None = None,
    elementwise: bool | None = None,
    seed: int = 0,
    training_mode: bool = False,
    step: int = -1,
    keep_mode: bool = False,
    mask_inputs: bool = False,
    body: bool = False,
    dynamo: bool = True,
    **arguments: Any,
) -> Path | ir.Model:
    """Export a torch module, its spatial dropout intact.

    nn.Dropout1d, 2d and 3d, F.dropout1d, 2d and 3d, and ``aten.feature_dropout`` however it is called become
    SpatialDropout nodes, whatever ``training`` the calls are given; one with p = 0 becomes nothing. All nodes of a
    model share the switches ``training_mode`` and ``step``.

    Args:
        module: an nn.Module (its modes, weights and attributes are as before afterwards) or an ExportedProgram.
        args: example inputs, as torch.onnx.export takes them.
        output: the .onnx file to write, whole or not at all; None returns the model.
        dropout: "op" writes SpatialDropout nodes; "inference" none, so that the file equals torch's own export in
            inference mode; "training" standard operators that always drop, for ``target``.
        target: what a "training" model is for; see expand.
        elementwise: also write nn.Dropout and F.dropout, dropout inside of attention and between recurrent layers, as
            SpatialDropout nodes with ``axes`` []. By default they are left out, and a warning names them; False leaves
            them out without a word.
        seed: base of the nodes' seeds, in [-2**63, 2**64); each node gets its own.
        training_mode: default of the switch.
        step: default of the switch; -1 is a fresh draw every run.
        keep_mode: leave the modules in the modes that they are in, instead of inference mode.
        mask_inputs: make each mask a bool input of the graph, "<layer>.mask", in place of a node that draws it: a model
            that follows torch's own generator (see onnx_spatialdrop.verify), or any mask from outside.
        body: put the operator's function body into the file too (see attach), so that a runtime that knows functions
            runs it as it stands, such as the session with which a library checks what it has exported.
        dynamo: True, the exporter built on torch.export; False, the TorchScript one.
        arguments: further arguments of torch.onnx.export, such as ``dynamic_shapes``, ``kwargs``, ``input_names`` or
            ``opset_version``. ``external_data`` and ``verbose`` are False unless they are given; torch puts weights of
            more than 2 GB beside the file all the same.

    Returns:
        ``output``, or the model, which holds its own copy of the weights.

    Raises:
        SpatialDropError: torch or onnxscript is missing; the module holds alpha dropout, or another kind that
            SpatialDropout cannot express; the model cannot be expanded for ``target``.
        torch.onnx.OnnxExporterError: torch cannot export the module.
    """
    arguments = {"external_data": False, "verbose": False} | arguments
    context = exporting(
        dropout=dropout,
        target=target,
        elementwise=elementwise,
        seed=seed,
        training_mode=training_mode,
        step=step,
        keep_mode=keep_mode,
        mask_inputs=mask_inputs,
        body=body,
    )
    with context:
        torch = require("torch", "torch")
        if "dynamic_shapes" in arguments:
            arguments["dynamic_shapes"] = dims.named(arguments["dynamic_shapes"])
        if output is not None:
            torch.onnx.export(module, args, output, dynamo=dynamo, **arguments)
            return Path(output)
        if dynamo or isinstance(module, torch.export.ExportedProgram):
            return _owning(models.read(torch.onnx.export(module, args, dynamo=True, **arguments)))
        buffer = streams.BytesIO()
        torch.onnx.export(module, args, buffer, dynamo=False, **arguments)
        return ir.from_proto(onnx.load_model_from_string(buffer.getvalue()))


@contextmanager
def exporting(
    *,
    dropout: Dropout = "op",
    target: str | None = None,
    elementwise: bool | None = None,
    seed: int = 0,
    training_mode: bool = False,
    step: int = -1,
    keep_mode: bool = False,
    mask_inputs: bool = False,
    body: bool = False,
) -> Iterator[list[LeftOut]]:
    """Let every call of ``torch.onnx.export`` inside the context keep spatial dropout, also calls inside libraries.

    The arguments are those of export. ``custom_translation_table=translation_table()`` may be given and is not needed.
    A caller that took the function by name before (``from torch.onnx import export``) gets torch's own, which then
    refuses the placeholders, or writes a file that no runtime loads. ONNXPrograms that are returned hold the same nodes
    as the file. In a context inside another one, as in export inside one, only the inner one's arguments count.
    The context changes torch for the whole process, so only one thread may export meanwhile.

    Raises:
        SpatialDropError: as export does.
    """
    for name, value in [("training_mode", training_mode), ("keep_mode", keep_mode), ("body", body)]:
        check.flag(value, name)
    elementwise = None if elementwise is None else check.flag(elementwise, "elementwise")
    seed, step = check.seed(seed, "seed"), check.integer(step, "step", low=-1)
    empty = ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)
    finish(empty, dropout, target, mask_inputs=mask_inputs)  # wrong arguments are refused early
    torch = require("torch", "torch")
    onnxscript = require("onnxscript", "torch")
    hooks.check(torch)
    from onnx_spatialdrop.export.torch import marker, programs, script, tracing
    from onnx_spatialdrop.export.torch.survey import Survey, survey

    capture = Capture(dropout, elementwise, keep_mode)

    def finished(model: ir.Model) -> None:
        unbatched(model, capture.calls)
        replace_markers(
            model, capture.calls, seed, training_mode=training_mode, step=step, always=dropout == "training"
        )
        finish(model, dropout, target, mask_inputs=mask_inputs, body=body)

    def replacement(original: Any, model: Any, args: Any = (), f: Any = None, **arguments: Any) -> Any:
        if arguments.get("verify"):
            raise SpatialDropError(
                "verify=True runs the model before its dropout is finished; leave it out, and compare with "
                "onnx_spatialdrop.session afterwards"
            )
        table = {**marker.translation_table(), **(arguments.pop("custom_translation_table", None) or {})}
        by_dynamo = calls.by_dynamo(torch, model, arguments)
        if keep_mode and not by_dynamo:
            arguments = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False} | arguments
        before, told, seen = capture.programs, len(capture.left_out), Survey()
        capture.surveyed, capture.modules = False, ()
        if calls.is_module(torch, model):
            capture.modules = tuple(name for name, _ in model.named_modules())
            if dropout != "inference":
                seen = survey(model, *calls.inputs(torch, args, arguments.get("kwargs")))
                capture.compare(seen)

        def run(file: Any) -> Any:
            with tracing.prepared(model, capture, seen, by_dynamo=by_dynamo):
                return original(model, args, file, custom_translation_table=table, **arguments)

        try:
            program = _written(run, f, None if dropout == "inference" else finished)
        except Exception as error:
            if capture.refusal is not None and error is not capture.refusal:
                raise capture.refusal from error
            if capture.programs > before:
                advised = hooks.advised(torch, onnxscript, error)
                if advised is not error:
                    raise advised from error
            raise
        if program is not None:
            if capture.programs == before:
                raise SpatialDropError(
                    f"torch {torch.__version__} exported without run_decompositions, where dropout is kept; "
                    "use a torch that is known to work (see docs/exporters.md)"
                )
            written = models.read(program)
            finished(written)
            models.write(program, written)
        warn(capture.left_out[told:], stacklevel=3)
        return program

    @contextmanager
    def installed() -> Iterator[None]:
        with tracing.as_training(capture), programs.capturing(capture), script.capturing(capture):
            yield

    with contexts.innermost(torch, replacement, installed):
        yield capture.left_out


def translation_table() -> dict[Any, Callable[..., Any]]:
    """Return the table for ``torch.onnx.export(custom_translation_table=...)``, inside exporting().

    Only for calls with a table of their own: ``{**mine, **translation_table()}``. It does nothing outside exporting(),
    since torch takes dropout apart before it looks into any table.

    Raises:
        SpatialDropError: torch or onnxscript is missing.
    """
    torch = require("torch", "torch")
    require("onnxscript", "torch")
    hooks.check(torch)
    from onnx_spatialdrop.export.torch import marker

    return marker.translation_table()


def _written(run: Callable[[Any], Any], f: Any, finished: Callable[[ir.Model], None] | None) -> Any:
    """Call ``run`` with a file of its own, and write what it wrote to ``f`` once it is finished.

    Without ``finished`` the bytes stay torch's: to read a model and write it again may add what torch leaves out.
    """
    if f is None:
        return run(None)
    if isinstance(f, (str, os.PathLike)):
        file = Path(f)
        with tempfile.TemporaryDirectory(prefix=".", dir=file.parent) as folder:
            program = run(os.path.join(folder, file.name))
            if finished is None and os.listdir(folder) == [file.name]:
                os.replace(os.path.join(folder, file.name), file)
                return program
            model = io.load(os.path.join(folder, file.name))
            if finished is not None:
                finished(model)
            io.save(model, file)
        return program
    buffer = streams.BytesIO()
    program = run(buffer)
    if finished is None:
        f.write(buffer.getvalue())
        return program
    model = ir.from_proto(onnx.load_model_from_string(buffer.getvalue()))
    finished(model)
    f.write(ir.to_proto(model).SerializeToString(deterministic=True))
    return program


def _owning(model: ir.Model) -> ir.Model:
    """Give ``model`` its own weights, in place: torch's share memory with the module, which may be trained on."""
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None:
                value.const_value = ir.Tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)
    return model
