"""Models of many dropout nodes side by side, and what each of them has to give."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from building import assert_same_bits
from onnx import TensorProto, helper, numpy_helper

from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.reference import spatial_dropout

TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE}
SIZES = {"A": 3, "B": 6}


def node(place: int, **attributes: Any) -> onnx.NodeProto:
    made = helper.make_node(
        "SpatialDropout",
        [f"x{place}", "training_mode", "step"],
        [f"y{place}", f"m{place}"],
        name=f"drop{place}",
        domain=spec.DOMAIN,
        **{key: value for key, value in attributes.items() if key not in ("axes", "shape", "dtype")},
    )
    made.attribute.append(helper.make_attribute("axes", attributes["axes"], attr_type=onnx.AttributeProto.INTS))
    return made


def many(
    rng: np.random.Generator, opset: int, count: int, even: bool, strata: tuple[int, ...] = (1,)
) -> tuple[onnx.ModelProto, list[dict[str, Any]]]:
    """Return a model of nodes side by side, and what each of them is."""
    parts, strata = [], int(rng.choice(strata))
    for _ in range(count):
        shape: list[int | str] = ["N", *(int(n) for n in rng.integers(1, 7, rng.integers(0, 4)))]
        if even and len(shape) > 1:
            shape[1] = 4 * int(rng.integers(1, 4))
        elif len(shape) > 2 and rng.random() < 0.5:
            shape[-1] = str(rng.choice(["A", "B"]))
        first = 2 if even else 1
        part = {
            "shape": shape,
            "axes": [axis for axis in range(first, len(shape)) if rng.random() < 0.4],
            "ratio": float(np.float32(rng.choice([0, 1, 0.5, 0.2, 0.03]))),
            "seed": int(rng.integers(-(2**63), 2**63)),
            "scale": float(rng.choice([0, 1.25])),
            "dtype": str(rng.choice(list(TYPES))),
            "strata": strata,
        }
        parts.append(part)
    return model_of(parts, opset), parts


def model_of(parts: list[dict[str, Any]], opset: int = 20) -> onnx.ModelProto:
    switches = [
        helper.make_tensor_value_info("training_mode", TensorProto.BOOL, []),
        helper.make_tensor_value_info("step", TensorProto.INT64, ["steps"]),
    ]
    kinds = [TYPES[part["dtype"]] for part in parts]
    inputs = [
        helper.make_tensor_value_info(f"x{place}", kind, part["shape"])
        for place, (part, kind) in enumerate(zip(parts, kinds, strict=True))
    ]
    outputs = []
    for place, (part, kind) in enumerate(zip(parts, kinds, strict=True)):
        masked = [1 if axis in part["axes"] else size for axis, size in enumerate(part["shape"])]
        outputs.append(helper.make_tensor_value_info(f"y{place}", kind, part["shape"]))
        outputs.append(helper.make_tensor_value_info(f"m{place}", TensorProto.BOOL, masked))
    defaults = [
        numpy_helper.from_array(np.array(False), "training_mode"),
        numpy_helper.from_array(np.array([-1]), "step"),
    ]
    nodes = [node(place, **part) for place, part in enumerate(parts)]
    graph = helper.make_graph(nodes, "many", inputs + switches, outputs, defaults)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(spec.DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def tensors(rng: np.random.Generator, parts: list[dict[str, Any]], batch: int) -> dict[str, np.ndarray]:
    sizes = {**SIZES, "N": batch}
    shapes = [[sizes.get(size, size) for size in part["shape"]] for part in parts]
    return {
        f"x{place}": rng.standard_normal(shape).astype(part["dtype"])
        for place, (shape, part) in enumerate(zip(shapes, parts, strict=True))
    }


def compare(results: list[np.ndarray], feeds: dict[str, np.ndarray], parts: list[dict[str, Any]], step: Any) -> None:
    for place, part in enumerate(parts):
        wanted = spatial_dropout(
            feeds[f"x{place}"], part["axes"], part["ratio"], part["seed"], step, True, part["scale"],
            strata=part["strata"],
        )  # fmt: skip
        assert_same_bits(results[2 * place], wanted[0])
        np.testing.assert_array_equal(results[2 * place + 1], wanted[1])
