"""The operator as onnx.defs.OpSchema, so that onnx's checker and shape inference work past SpatialDropout nodes."""

from __future__ import annotations

import atexit
from contextlib import suppress
from typing import Any

import onnx
import onnx.defs
import onnx.shape_inference
from onnx.defs import OpSchema

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.operator import spec

__all__ = ["register_schema", "schema"]

_DOC = """
Drops whole slices of X: one mask entry is drawn for each position of X with `axes` collapsed, and shared along `axes`.
Kept values are multiplied by `scale`, dropped ones become +0. With training_mode false Y is X. The mask is a pure
function of seed, step and the entry's index: by Philox4x32-10, or as `rng` names a framework, by the bits that its
layers draw. With `strata` P, a prime number, each entry is dropped equally often in every P steps. A single negative
step asks for a fresh draw every run.
"""


def schema() -> OpSchema:
    """Return a new schema of SpatialDropout, version 1, with type and shape inference."""
    parameter, attribute, kind = OpSchema.FormalParameter, OpSchema.Attribute, OpSchema.AttrType
    differentiable = OpSchema.DifferentiationCategory.Differentiable
    made = OpSchema(
        spec.OP_TYPE,
        spec.DOMAIN,
        spec.VERSION,
        doc=_DOC,
        inputs=[
            parameter("X", "T", "The tensor to drop from, rank 1 to 16.", differentiation_category=differentiable),
            parameter("training_mode", "tensor(bool)", "One element; false: Y is X and the mask is all true."),
            parameter("step", "tensor(int64)", "Which draw: one element, or one for each index of X's dim 0."),
        ],
        outputs=[
            parameter("Y", "T", "X with slices dropped.", differentiation_category=differentiable),
            parameter("mask", "tensor(bool)", "X's shape with `axes` set to 1; true where kept."),
        ],
        type_constraints=[
            ("T", ["tensor(float16)", "tensor(bfloat16)", "tensor(float)", "tensor(double)"], "The types of X and Y.")
        ],
        attributes=[
            attribute("axes", kind.INTS, "Axes along which one mask entry is shared.", required=True),
            attribute("ratio", kind.FLOAT, "Fraction dropped, in [0, 1].", required=True),
            attribute("seed", kind.INT, "64-bit key, unique for each node.", required=True),
            attribute("scale", onnx.helper.make_attribute("scale", 0.0), "Factor of kept values; 0: 1/(1-ratio)."),
            attribute(
                "strata",
                onnx.helper.make_attribute("strata", 1),
                "Steps over which draws are balanced; 1: independent.",
            ),
            attribute(
                "rng", onnx.helper.make_attribute("rng", "philox"), f"Generator of the mask: {', '.join(spec.RNGS)}."
            ),
        ],
        **_determinism(),
    )
    if hasattr(made, "set_type_and_shape_inference_function"):  # from onnx 1.19 on
        made.set_type_and_shape_inference_function(_infer)
    return made


def _determinism() -> dict[str, Any]:
    """Return the argument that says that the operator draws, from onnx 1.20 on."""
    kinds = getattr(OpSchema, "NodeDeterminism", None)
    return {} if kinds is None else {"node_determinism": kinds.NonDeterministic}


def register_schema() -> None:
    """Make the operator known to onnx's checker and shape inference in this process; a second call does nothing."""
    if onnx.defs.has(spec.OP_TYPE, spec.VERSION, spec.DOMAIN):
        return
    onnx.defs.register_schema(schema())
    for name, (inputs, outputs) in spec.HELPERS.items():
        onnx.defs.register_schema(_helper_schema(name, inputs, outputs))
    atexit.register(_deregister)


def _deregister() -> None:
    """Take the schemas out of onnx's registry, which outlives Python: up to onnx 1.22 it crashes at the end."""
    for name in (spec.OP_TYPE, *spec.HELPERS):
        with suppress(Exception):  # somebody else has done so
            onnx.defs.deregister_schema(name, spec.VERSION, spec.DOMAIN)


def _helper_schema(name: str, inputs: int, outputs: int) -> OpSchema:
    """Return a schema for a helper function of the bodies: the checker asks for one, though the model defines it."""
    parameter = OpSchema.FormalParameter
    return OpSchema(
        name,
        spec.DOMAIN,
        spec.VERSION,
        doc="A step of the generators in the function body of SpatialDropout.",
        inputs=[parameter(f"in{index}", "W") for index in range(inputs)],
        outputs=[parameter(f"out{index}", "W") for index in range(outputs)],
        type_constraints=[("W", ["tensor(uint64)", "tensor(int64)"], "Words, below 2**32.")],
    )


def _infer(context: onnx.shape_inference.InferenceContext) -> None:
    x = context.get_input_type(0)
    if x is None or not x.HasField("tensor_type"):
        return
    y = onnx.TypeProto()
    y.CopyFrom(x)
    context.set_output_type(0, y)
    if context.get_num_outputs() < 2:
        return
    mask = onnx.TypeProto()
    mask.tensor_type.elem_type = onnx.TensorProto.BOOL
    axes = context.get_attribute("axes")
    if x.tensor_type.HasField("shape") and axes is not None:
        dims = x.tensor_type.shape.dim
        try:
            shared = spec.normalize_axes(list(axes.ints), len(dims))
        except SpecError as error:
            raise onnx.shape_inference.InferenceError(str(error)) from error
        mask.tensor_type.shape.SetInParent()
        for axis, dim in enumerate(dims):
            masked = mask.tensor_type.shape.dim.add()
            if axis in shared:
                masked.dim_value = 1
            else:
                masked.CopyFrom(dim)
    context.set_output_type(1, mask)
