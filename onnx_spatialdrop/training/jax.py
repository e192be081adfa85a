"""Models with SpatialDropout nodes as JAX functions, to be trained with jax.grad and any JAX optimizer.

jaxonnxruntime runs the standard operators; this module teaches it the node. It needs both, which are imported with it.
Masks are the operator's own bits, drawn by its definition in NumPy on the host, for every generator that ``rng`` names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.errors import FormError, SpecError, TrainerError
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import reference, spec
from onnx_spatialdrop.passes.opset import InlineFunctionsPass, OpsetPass
from onnx_spatialdrop.training.parameters import chosen, in_memory

try:
    import jax
    import jax.numpy as jnp
    from jaxonnxruntime import call_onnx, config
    from jaxonnxruntime.core import handler
except ImportError as error:
    raise TrainerError(
        f"training with JAX needs jax and jaxonnxruntime ({error}); 'pip install onnx_spatialdrop[jax]'"
    ) from error

__all__ = ["convert"]

#: (weights, feeds) -> the model's outputs.
Function = Callable[[Mapping[str, Any], Mapping[str, Any]], list[Any]]

#: jaxonnxruntime 0.3.0 knows Reshape up to 19, and operators as of these opsets; newer models are converted.
_LAST_OPSET: Final = 20
_OPSETS: Final = (20, 18, 17)
_STATIC: Final = "jaxort_only_allow_initializers_as_static_args"


def convert(
    model: io.Source, inputs: Mapping[str, npt.ArrayLike], *, requires_grad: Sequence[str] | None = None
) -> tuple[Function, dict[str, Any]]:
    """Return the model as a pure function ``function(weights, feeds)``, and its weights.

    The function can be differentiated and jitted. ``feeds`` maps inputs to arrays, as a session's run does; those with
    a default may be left out, so that dropout is off until ``training_mode`` is true. Then ``step`` names the draw: a
    function that is pure cannot count, so one below 0 is an error. Steps of 2**31 and more need ``jax_enable_x64``.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        inputs: one example for each input without a default; shapes that the graph computes are fixed by it.
        requires_grad: names of initializers to return as weights; by default all that ``trainable`` finds. All others
            are constants of the function.

    Returns:
        The function, and the weights by initializer: a tree for jax.grad, and what ``update`` takes.

    Raises:
        TrainerError: a name that the model does not have, or an input without an example.
        FormError: a model that cannot be converted to an opset that jaxonnxruntime reads.
        NotImplementedError: jaxonnxruntime knows no such operator.
    """
    prepared = _prepared(model)
    names = chosen(prepared, requires_grad)
    defaults = {}
    for value in prepared.graph.inputs:
        if value.const_value is not None:
            defaults[value.name or ""] = value.const_value.numpy()
            prepared.graph.initializers.pop(value.name or "", None)
            value.const_value = None
        elif value.name not in inputs:
            raise TrainerError(f"inputs has no example of {value.name!r}; jaxonnxruntime follows shapes through one")
    before = config.jaxort_only_allow_initializers_as_static_args
    config.update(_STATIC, False)  # let shapes that the graph computes, and types of Cast, be those of the example
    try:
        run, initializers = call_onnx.call_onnx_model(ir.to_proto(prepared), {**defaults, **inputs})
    finally:
        config.update(_STATIC, before)
    constants = {name: array for name, array in initializers.items() if name not in names}
    feedable = [value.name for value in prepared.graph.inputs]

    def function(weights: Mapping[str, Any], feeds: Mapping[str, Any]) -> list[Any]:
        unknown = [name for name in feeds if name not in feedable]
        if unknown or set(weights) != set(names):
            raise TrainerError(
                f"the function takes the weights {', '.join(map(repr, names))} "
                f"and the inputs {', '.join(map(repr, feedable))}"
            )
        fed = {name: _as_jax(name, value) for name, value in {**defaults, **feeds}.items()}
        return list(run({**constants, **weights}, fed))

    return function, {name: jnp.asarray(initializers[name]) for name in names}


def _prepared(model: io.Source) -> ir.Model:
    """Return a copy that jaxonnxruntime reads, its SpatialDropout nodes still in it."""

    def prepare(copy: ir.Model) -> None:
        InlineFunctionsPass().call(copy)
        before = copy.opset_imports.get("", 1)
        for version in _OPSETS if before > _LAST_OPSET else ():
            try:
                OpsetPass(version).call(copy)
            except FormError:
                if version == _OPSETS[-1]:
                    raise
                continue
            break

    result = io.rewrite(model, None, prepare)[0]
    prepared = ir.from_proto(result) if isinstance(result, onnx.ModelProto) else cast("ir.Model", result)
    for index, node in enumerate(scopes.all_nodes(prepared)):
        node.name = node.name or f"unnamed_{index}"  # jaxonnxruntime keeps what it knows of a node under its name
    for site in scopes.spatial_dropouts(prepared):
        op.complete(site.node)
        if not op.read(site.node).axes:
            del site.node.attributes["axes"]  # jaxonnxruntime reads no empty list
    return in_memory(prepared)


def _as_jax(name: str, value: Any) -> Any:
    if isinstance(value, jax.Array):  # tracers too
        return value
    array = np.asarray(value)
    if array.dtype.kind == "i" and np.any(array.astype(jax.dtypes.canonicalize_dtype(array.dtype)) != array):
        raise SpecError(f"{name!r} is {value}, which needs 64 bits; set jax_enable_x64")
    return jnp.asarray(array)


@handler.register_op(spec.OP_TYPE, spec.DOMAIN)
class _Handler(handler.Handler):
    """What jaxonnxruntime finds the node by: it looks through the subclasses of its own class."""

    @classmethod
    def version_1(cls, node: Any, _inputs: Sequence[Any]) -> Callable[..., Any]:
        """Return the function that stands for a node."""
        where = f"node {node.name!r}" if node.name else spec.OP_TYPE
        given = dict(node.attrs)
        attributes = spec.Attributes(
            tuple(given.get("axes") or ()),
            given["ratio"],
            given["seed"],
            given.get("scale", 0.0),
            given.get("rng", "philox"),
            given.get("strata", 1),
            where,
        )
        run: Callable[..., Any] = jax.jit(lambda x, training, step: _dropped(attributes, x, training, step))
        return run


def _dropped(attributes: spec.Attributes, x: Any, training: Any, step: Any) -> tuple[Any, Any]:
    dtype, training = np.dtype(x.dtype), jnp.all(training)
    masked = jax.ShapeDtypeStruct(spec.mask_shape(x.shape, attributes.axes, attributes.where), jnp.bool_)

    def draw(step: Any) -> npt.NDArray[np.bool_]:
        return reference.dropout_mask(
            x.shape,
            attributes.axes,
            attributes.ratio,
            attributes.seed,
            np.asarray(step),
            rng=attributes.rng,
            strata=attributes.strata,
            dtype=dtype,
            where=attributes.where,
        )

    mask = jax.lax.cond(
        training,
        lambda step: jax.pure_callback(draw, masked, step, vmap_method="sequential"),
        lambda _: jnp.ones(masked.shape, jnp.bool_),
        step,
    )
    scale = spec.kept_scale(attributes.ratio, attributes.scale, dtype)
    dropped = jnp.where(mask, x * scale, jnp.zeros((), x.dtype))
    return jnp.where(training, dropped, x), mask
