"""How a marker is left in a graph that TensorFlow, JAX or PyTorch traces, so that its exporter writes it to the file.

One class a backend; each imports its framework when it is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export import tf2onnx
from onnx_spatialdrop.export.keras.call_recorder import outermost
from onnx_spatialdrop.export.keras.layers import Sizes, static_sizes
from onnx_spatialdrop.export.markers import MARKER
from onnx_spatialdrop.operator import spec

__all__ = ["EXTRAS", "Backend", "backend_of"]


@dataclass(frozen=True)
class Backend:
    """A Keras backend.

    Attributes:
        name: as ``keras.backend.backend()`` names it.
        packages: what Keras's exporter needs there.
        mark: (tensor, index of the call, axes) -> the tensor behind a marker.
        trace: what tells traces apart: a traced tensor -> an object for each.
        exporting: context in which the backend's exporter writes markers and leaves the model given as it was.
        advice: what to do when Keras's exporter fails.
        sizes: (the signature of the model's inputs) -> how to read the sizes of a traced tensor; see layers.py.
        opset: what to export to where the exporter's own default is too old; None where it is not.
    """

    name: str
    packages: tuple[str, ...]
    mark: Callable[[Any, int, tuple[int, ...]], Any]
    trace: Callable[[Any], Any]
    exporting: Callable[[Any], AbstractContextManager[None]]
    advice: str
    sizes: Callable[[Any], Sizes] = lambda _: static_sizes
    opset: int | None = None


#: The extra of this package that brings what a backend needs.
EXTRAS: Final = {"tensorflow": "keras", "jax": "keras-jax", "torch": "torch"}


def backend_of(name: str) -> Backend:
    """Return the backend of that name.

    Raises:
        SpatialDropError: Keras has no ONNX export for it.
    """
    for backend in (_TENSORFLOW, _JAX, _TORCH):
        if backend.name == name:
            return backend
    raise SpatialDropError(
        f"Keras runs on {name!r}, whose models it cannot export to ONNX; save the model, set KERAS_BACKEND=tensorflow "
        "before keras is imported, load it and export it there"
    )


_ELSEWHERE: Final = (
    "if model.export fails without this package too, load the saved model under KERAS_BACKEND=tensorflow and export it "
    "there"
)


@contextmanager
def _exporting_tensorflow(_model: Any) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)  # Keras looks for it
        with tf2onnx.writing_markers(), tf2onnx.any_scope_name():
            yield


_TENSORFLOW: Final = Backend(
    "tensorflow",
    ("tensorflow", "tf2onnx"),
    tf2onnx.mark,
    tf2onnx.trace_of,
    _exporting_tensorflow,
    "call the model once on data, or give input_signature and opset_version; if model.export fails without this "
    "package too, the model is beyond Keras's exporter",
    opset=18,
)


def _mark_jax(x: Any, call: int, axes: tuple[int, ...]) -> Any:
    del axes  # no exporter of JAX moves a marker
    return _jax_primitive().bind(x, call=call)


def _jax_trace(x: Any) -> Any:
    """Return the outermost trace that ``x`` is part of."""
    return outermost(getattr(x, "_trace", None), "parent_trace")


@cache
def _jax_primitive() -> Any:
    """Return the identity that jax2onnx writes as a marker; registered once, since JAX forgets no primitive."""
    from jax.extend.core import Primitive
    from jax.interpreters import batching
    from jax2onnx.plugins.plugin_system import PrimitiveLeafPlugin, register_primitive

    primitive = Primitive("onnx_spatialdrop_marker")
    primitive.def_impl(lambda x, **_: x)
    primitive.def_abstract_eval(lambda x, **_: x)

    def batch(_arguments: Any, _axes: Any, **_: Any) -> Any:
        raise SpatialDropError(
            "a dropout layer was called under jax.vmap (as TimeDistributed over an unknown number of steps does), "
            "which has no single mask; give that number in input_signature"
        )

    batching.primitive_batchers[primitive] = batch

    class MarkerPlugin(PrimitiveLeafPlugin):
        def lower(self, ctx: Any, eqn: Any) -> None:
            x, old = ctx.get_value_for_var(eqn.invars[0]), ctx.get_value_for_var(eqn.outvars[0])
            build = getattr(ctx.builder, MARKER)
            marker = build(
                x, call=int(eqn.params["call"]), _domain=spec.DOMAIN, _version=spec.VERSION, _outputs=[old.name]
            )
            marker.type, marker.shape = x.type, x.shape
            ctx.bind_value_for_var(eqn.outvars[0], marker)

    register_primitive(jaxpr_primitive=primitive.name, testcases=[])(MarkerPlugin)
    return primitive


_JAX: Final = Backend(
    "jax",
    ("jax", "jax2onnx"),
    _mark_jax,
    _jax_trace,
    nullcontext,
    _ELSEWHERE,
)


def _mark_torch(x: Any, call: int, axes: tuple[int, ...]) -> Any:
    from onnx_spatialdrop.export.torch import marker

    del axes  # no exporter of PyTorch moves a marker
    return marker.mark(x, call)


def _torch_sizes(signature: Any) -> Sizes:
    """Return what tells sizes: the ones that are traced where only the first axis, the batch, is open.

    TorchScript traces every size as a tensor, and Keras an open one as 1.
    """
    from keras import tree

    specs = tree.flatten(signature)
    if any(getattr(spec, "shape", None) is None or None in tuple(spec.shape)[1:] for spec in specs):
        return static_sizes
    return lambda x: (None, *map(int, x.shape[1:]))


@contextmanager
def _exporting_torch(model: Any) -> Iterator[None]:
    from onnx_spatialdrop.export.torch import marker

    modes = [(module, module.training) for module in model.modules()]
    try:
        with warnings.catch_warnings(), marker.writing():
            # Keras takes PyTorch's old exporter for dynamic shapes, which warns of itself.
            warnings.simplefilter("ignore")
            yield
    finally:
        for module, training in modes:  # Keras calls model.eval() and leaves it at that
            module.training = training


_TORCH: Final = Backend(
    "torch",
    ("torch", "onnxscript"),
    _mark_torch,
    lambda _: None,
    _exporting_torch,
    _ELSEWHERE,
    _torch_sizes,
)
