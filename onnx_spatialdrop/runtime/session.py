"""Sessions that run SpatialDropout nodes: kernel chosen, library registered, model lowered where it must be.

What comes back is onnxruntime's own InferenceSession, with nothing of ours around it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import onnx
import onnx_ir as ir

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.errors import KernelError, ModelFileError
from onnx_spatialdrop.graph.scopes import Site, all_nodes, spatial_dropouts
from onnx_spatialdrop.kernels import native, python
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.attach import AttachPass
from onnx_spatialdrop.passes.lower import MASKS_OP, LowerPass
from onnx_spatialdrop.passes.masks.builder import GENERATOR_KEY
from onnx_spatialdrop.passes.to_inference import to_inference
from onnx_spatialdrop.storage import external
from onnx_spatialdrop.versions import older

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["KERNELS", "Kernel", "choose", "quiet_options", "register", "session"]

Kernel = Literal["auto", "native", "python", "body"]
KERNELS: tuple[Kernel, ...] = ("native", "python", "body")

#: The first ONNX Runtime that finds external data where _FOLDER_KEY says; others get the weights in the model.
_FIRST_WITH_FOLDER = "1.21"
# Where ONNX Runtime looks for external data of a model that it is given as bytes.
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"
_CPU = "CPUExecutionProvider"
_LOG = logging.getLogger("onnx_spatialdrop")
_ARGUMENTS = ("providers", "provider_options", "disabled_optimizers", "enable_fallback", "read_config_from_model")


def choose(kernel: Kernel = "auto") -> tuple[Kernel, str]:
    """Return the kernel that a session would use here, and one line that says why.

    Args:
        kernel: "native", "python" or "body" to insist on one; "auto" takes the first of these that works.

    Raises:
        KernelError: the kernel that was asked for cannot be used, or there is no such kernel.
    """
    arguments.string(kernel, "kernel")
    reasons = {"native": native.missing_reason(), "python": python.missing_reason(), "body": None}
    if kernel == "auto":
        best = next(name for name in KERNELS if reasons[name] is None)
        passed = [f"{name}: {reasons[name]}" for name in KERNELS[: KERNELS.index(best)]]
        return best, "; ".join(passed) or f"{best} is the fastest and is installed"
    if kernel not in KERNELS:
        raise KernelError(f"there is no kernel {kernel!r}; known: 'auto', 'native', 'python', 'body'")
    if reasons[kernel] is not None:
        raise KernelError(f"kernel {kernel!r} cannot be used: {reasons[kernel]}; kernel='auto' takes one that can")
    return kernel, "asked for"


def register(session_options: onnxruntime.SessionOptions) -> None:
    """Register the native kernel with ``session_options``, for people who make their own sessions.

    Where nobody has set how much they log, they log errors alone from now on: ONNX Runtime would warn of every switch
    that it is an input with a default. Registering twice changes nothing.

    Args:
        session_options: changed in place.

    Raises:
        TypeError: they are no SessionOptions.
        KernelError: the native library is not there; the message says why and what to do.
    """
    native.register(session_options)


def session(
    model: io.Source,
    kernel: Kernel = "auto",
    *,
    training_mode: bool = True,
    sess_options: onnxruntime.SessionOptions | None = None,
    **further: Any,
) -> onnxruntime.InferenceSession:
    """Return an InferenceSession that runs ``model`` as the operator's definition says.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed, and no file is written.
        kernel: "native" (the C++ library), "python" (onnxruntime-extensions), "body" (a function of standard ops put
            into the model), or "auto", the first of these that works here. All draw the same masks, but for the body
            below opset 18, which takes the runtime's own numbers. Values are the same bits, too, except where ONNX
            Runtime computes float16 in float32 and skips a rounding between two nodes. The body suits a handful of
            nodes, as ONNX Runtime inlines and optimises some 200 for each.
        training_mode: False: the plain inference model, as to_inference makes it, without a kernel, at the speed of a
            model that never had dropout. True: dropout as the model's own switch has it when the session is run.
        sess_options: options to use; the kernel's library is registered with them. Without them ONNX Runtime's
            warnings are off: it would warn of every switch that it is an input with a default.
        further: further arguments of onnxruntime.InferenceSession, such as ``providers``; CPU by default. With another
            one, one node of the kernel draws all masks on the CPU, before everything else, and the products are left to
            the provider, so that no node of ours stands between its own; a warning says where that is not so.

    Raises:
        KernelError: that kernel cannot be used here.
        FormError: the model cannot be lowered to that kernel.
        SpecError: a node that the operator's definition does not allow.
        ModelFileError: a file that cannot be read; or weights that are not in the model, which does not say where.
        TypeError: an argument that InferenceSession does not have; it would take no notice of it.
    """
    import onnxruntime

    unknown = sorted(further.keys() - set(_ARGUMENTS))
    if unknown:
        raise TypeError(f"session() has no argument {unknown[0]!r}; InferenceSession's are {', '.join(_ARGUMENTS)}")
    if sess_options is None:
        options = quiet_options()
    else:
        options = arguments.instance(
            sess_options, "sess_options", onnxruntime.SessionOptions, "an onnxruntime.SessionOptions"
        )
    further.setdefault("providers", ["CPUExecutionProvider"])
    if not arguments.flag(training_mode, "training_mode"):
        return _of_model(to_inference(model), options, further)
    chosen, _ = choose(kernel)
    elsewhere = [name for name in map(_provider, further["providers"] or ()) if name != _CPU]
    if isinstance(model, (str, os.PathLike)) and chosen == "native" and not elsewhere:
        found = _directly(model, options, further)
        if found is not None:
            return found

    def prepare(working: ir.Model) -> tuple[bool, bool]:
        """Lower ``working`` for the kernel; return whether there are nodes, and whether the model was changed."""
        sites = spatial_dropouts(working)
        changed = False
        if sites and chosen == "python":
            changed = LowerPass(python.counters).call(working).modified
        elif sites and chosen == "native" and elsewhere:
            changed = LowerPass(kernel="native").call(working).modified
            _warn(working, elsewhere)
        elif sites and (chosen == "body" or _needs_types(working, sites)):
            changed = AttachPass().call(working).modified
        _refuse_homeless(working, options)
        folders.update(external.folders(working))
        return bool(sites), changed

    folders: set[Path] = set()
    prepared, (present, changed) = io.rewrite(model, None, prepare)
    if present and chosen == "native":
        native.register(options)
    elif present and chosen == "python":
        python.register(options)
    if isinstance(model, (str, os.PathLike)) and not changed:
        return onnxruntime.InferenceSession(os.fspath(model), options, **further)
    return _of_model(prepared, options, further, folders)


def _directly(
    path: io.PathLike, options: onnxruntime.SessionOptions, further: dict[str, Any]
) -> onnxruntime.InferenceSession | None:
    """Return a session of a file as ONNX Runtime reads it, which need not be read in Python; None where that fails.

    It does where a function holds nodes, and where the file is none: whoever looks closer then says what is wrong.
    """
    import onnxruntime

    native.register(options)
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, **further)
    except Exception:  # noqa: BLE001 - each of ONNX Runtime's errors is a class of its own
        return None


def _of_model(
    prepared: io.Result, options: onnxruntime.SessionOptions, further: dict[str, Any], folders: set[Path] | None = None
) -> onnxruntime.InferenceSession:
    import onnxruntime

    if isinstance(prepared, ir.Model) and folders is None:
        folders = external.folders(prepared)
    if folders and older(onnxruntime.__version__, _FIRST_WITH_FOLDER):
        assert isinstance(prepared, ir.Model)
        prepared = ir.external_data.load_to_model(prepared)
    elif folders:
        options.add_session_config_entry(_FOLDER_KEY, os.fspath(_only(folders)))
    assert isinstance(prepared, (onnx.ModelProto, ir.Model))
    proto = prepared if isinstance(prepared, onnx.ModelProto) else ir.to_proto(prepared)
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, **further)


def _provider(given: Any) -> str:
    """Return the name of a provider, which may be given with its options."""
    return str(given[0] if isinstance(given, tuple) else given)


def _warn(lowered: ir.Model, providers: list[str]) -> None:
    """Warn of masks that are drawn in the middle of the graph: there the provider's part is cut in two."""
    drawn = [node for node in all_nodes(lowered) if node.op_type == MASKS_OP]
    inner = [node for node in drawn if any(_is_computed(value) for value in node.inputs)]
    if inner:
        _LOG.warning(
            "session: %d of %d groups of masks need sizes or control inputs that the model computes (%s, ...); each is "
            "drawn on the CPU in the middle of the graph, where %s stops and starts again",
            len(inner), len(drawn), inner[0].name, ", ".join(providers),
        )  # fmt: skip


def _is_computed(value: ir.Value | None) -> bool:
    """Return whether ``value`` follows from what nodes other than those of a generator compute."""
    pending = [value]
    while pending:
        producer = None if (each := pending.pop()) is None else each.producer()
        if producer is None or producer.op_type == "Constant":
            continue
        if GENERATOR_KEY not in producer.metadata_props:
            return True
        pending += producer.inputs
    return False


def _needs_types(model: ir.Model, sites: list[Site]) -> bool:
    """Return whether ONNX Runtime needs the body too: it infers no types through a custom op inside a function.

    The kernel still runs the nodes, since a registered kernel wins over a function.
    """
    has_body = any(f.domain == spec.DOMAIN and f.name == spec.OP_TYPE for f in model.functions.values())
    return not has_body and any(isinstance(site.scope, ir.Function) for site in sites)


def _refuse_homeless(model: ir.Model, options: onnxruntime.SessionOptions) -> None:
    """Refuse external data that nobody can find: a ModelProto does not say where it was read from."""
    lost = [tensor for tensor in external.without_base_dir(model) if not Path(tensor.location).is_file()]
    if not lost:
        return
    try:
        options.get_session_config_entry(_FOLDER_KEY)
    except RuntimeError:  # there is no such entry
        raise ModelFileError(
            f"the model's tensor {lost[0].name!r} is stored in {os.fspath(lost[0].location)!r}, and the model does not "
            "say where that is; give the model's path, or read it with onnx_spatialdrop.load"
        ) from None


def quiet_options() -> onnxruntime.SessionOptions:
    """Return new options with which ONNX Runtime says nothing but errors."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    return options


def _only(folders: set[Path]) -> Path:
    if len(folders) > 1:
        listed = ", ".join(sorted(str(folder) for folder in folders))
        raise ModelFileError(f"the model's weights lie in several folders ({listed}); save it into one file first")
    return next(iter(folders))
