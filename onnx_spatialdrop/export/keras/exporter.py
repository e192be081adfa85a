"""Export Keras 3 models with their spatial dropout intact, everything else in inference mode.

Keras's own exporter does the work; this module lets it see markers where dropout layers are, and turns those into the
operator. It does not train, convert weights or change a model.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any, Final

import onnx_ir as ir

from onnx_spatialdrop import arguments as check
from onnx_spatialdrop import io
from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export import markers
from onnx_spatialdrop.export.canonical import canonicalize
from onnx_spatialdrop.export.finish import DROPOUT, Dropout, finish, require
from onnx_spatialdrop.export.foreign import refuse_foreign
from onnx_spatialdrop.export.keras import dialect
from onnx_spatialdrop.export.keras.backends import EXTRAS, Backend, backend_of
from onnx_spatialdrop.export.keras.call_recorder import CallRecorder, watching
from onnx_spatialdrop.export.keras.unmarked import unmarked
from onnx_spatialdrop.export.left_out import warn

__all__ = ["export"]

#: Every target of a training export reads it.
TRAINING_OPSET: Final = 18


def export(
    model: Any,
    output: io.PathLike | None = None,
    *,
    dropout: Dropout = "op",
    target: str | None = None,
    seed: int = 0,
    rng: str | None = None,
    elementwise: bool | None = None,
    mask_inputs: bool = False,
    input_signature: Any = None,
    opset_version: int | None = None,
    **arguments: Any,
) -> Path | ir.Model:
    """Export a Keras 3 model to ONNX, each spatial dropout layer as a SpatialDropout node.

    SpatialDropout1D, 2D and 3D and Dropout with a ``noise_shape`` become nodes, one for every call; batch
    normalisation and everything else comes out in inference mode. The nodes share the inputs ``training_mode`` (false
    by default, so the file is the inference model) and ``step``. On TensorFlow and JAX they draw the masks that the
    model itself draws in training, with the seeds and counters of its generators as they are now: with ``step`` k, the
    masks of its training call number k. Each carries the layer's name, rate, seed and generator state in its metadata.

    Args:
        model: a built Functional, Sequential or subclassed ``keras.Model``; it is not changed.
        output: the .onnx file to write, atomically; None returns the model instead.
        dropout: "op" keeps SpatialDropout nodes; "inference" leaves dropout out, as Keras's own export does, also
            that of layers that were called with ``training=True``; "training" standard ops that always drop, for
            ``target``: there is no ``training_mode`` then.
        target: what a "training" model is for; see passes/expand.
        seed: base of the derived seeds, in [-2**63, 2**64); what draws as Keras does needs none.
        rng: how the nodes draw: "keras_tf" (TensorFlow), "keras_tf_xla" (a model that trains by XLA), "keras_jax" or
            "philox". By default Keras's own way: on TensorFlow the second where the model was compiled with
            ``jit_compile=True``, else the first; on PyTorch, whose generator no graph can hold, "philox". A layer whose
            masks the default cannot draw (float64, say) gets "philox" and a warning.
        elementwise: whether plain Dropout layers become nodes too, with ``axes = []``, also those inside of attention.
            By default they are left out, and a LeftOutWarning names them; False leaves them out without a word.
        mask_inputs: make each mask a bool input of the graph, "<layer>.mask", in place of a node that draws it.
        input_signature: as in ``keras.Model.export``: shapes and types of the inputs.
        opset_version: as in ``keras.Model.export``. By default the backend's own for "inference"; for "op" at least
            18, from which on every form of the operator draws its own bits (tf2onnx's own default is 15); for
            "training" 18, which every target reads (onnx2torch reads no more, onnxruntime-training up to 21).
        arguments: further arguments of ``keras.Model.export``, such as ``verbose`` (False by default).

    Returns:
        ``output``, or an onnx_ir.Model without one.

    Raises:
        SpatialDropError: Keras or what its backend needs is not installed; the model is not built; a layer cannot be
            expressed, or leaves operators that ONNX does not have (lookups and TextVectorization do), or the ``rng``
            that was asked for cannot draw its masks; Keras's own exporter failed (its error is the cause); see finish
            for the rest.
    """
    if dropout not in DROPOUT:
        raise SpatialDropError(f"dropout is {dropout!r}; allowed: {', '.join(map(repr, DROPOUT))}")
    dialect.check(rng)
    elementwise = None if elementwise is None else check.flag(elementwise, "elementwise")
    seed = check.seed(seed, "seed")
    if opset_version is not None:
        opset_version = check.integer(opset_version, "opset_version", low=1)
    keras = require("keras", "keras")
    if not isinstance(model, keras.Model):
        raise SpatialDropError(
            f"export takes a keras.Model of Keras 3, not a {type(model).__module__}.{type(model).__name__} object"
        )
    if not model.built and input_signature is None:
        raise SpatialDropError(
            f"model {model.name!r} is not built, so that nobody knows its inputs: call it once on data, or begin it "
            "with a keras.Input"
        )
    backend = backend_of(keras.backend.backend())
    for package in backend.packages:
        require(package, EXTRAS[backend.name])
    watch = CallRecorder(None if dropout == "inference" else backend.mark, bool(elementwise), model, backend.trace)
    if opset_version is None and dropout != "inference":
        opset_version = TRAINING_OPSET if dropout == "training" else backend.opset
    arguments = {"verbose": False, "input_signature": input_signature, "opset_version": opset_version, **arguments}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        _run_exporter(model, file, watch, backend, arguments)
        exported = io.load(file)
        exported.graph.doc_string = f"{model.name}, exported from Keras {keras.__version__}"  # no counter in it
        choose = dialect.chooser(rng)
        calls = watch.calls(choose)
        markers.require_all(exported, calls)
        markers.replace_markers(exported, calls, seed, always=dropout == "training")
        if backend.name == "tensorflow":
            canonicalize(exported)  # tf2onnx walks sets
        refuse_foreign(exported, model)
        finish(exported, dropout, target, mask_inputs=mask_inputs)
        if dropout != "inference" and elementwise is None:
            warn(unmarked(watch.seen, model, arguments["input_signature"]), stacklevel=2)
        if output is None:
            return ir.external_data.load_to_model(exported)  # the folder is about to go
        return io.save(exported, output)


def _run_exporter(model: Any, file: Path, watch: CallRecorder, backend: Backend, arguments: dict[str, Any]) -> None:
    with watching(watch), backend.exporting(model):
        try:
            if arguments["input_signature"] is None:
                from keras.src.export.export_utils import get_input_signature

                # As Keras does, which would refuse a Functional model that was never called.
                arguments["input_signature"] = get_input_signature(model)
            watch.sizes = backend.sizes(arguments["input_signature"])
            model.export(os.fspath(file), format="onnx", **arguments)
        except Exception as error:
            if watch.error is not None:
                raise watch.error from None
            raise SpatialDropError(
                f"Keras {backend.name} backend: model.export(format='onnx') failed for {model.name!r}: "
                f"{_one_line(error)}; {backend.advice}"
            ) from error


def _one_line(error: Exception) -> str:
    text = re.sub(r"\x1b\[\d*m", "", str(error)).split("Arguments received by")[0]  # Keras writes bold, and a listing
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines)[:300].rstrip(".") or type(error).__name__
