"""Write the operator's node tests from the NumPy reference, in the layout of onnx's own: python node_tests/build.py.

A case is a folder ``test_spatialdropout_<what>`` with model.onnx, one node, and test_data_set_0: input_0.pb X,
input_1.pb training_mode, input_2.pb step; output_0.pb Y and output_1.pb mask. Equal sources write equal bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.reference import spatial_dropout

HERE = Path(__file__).parent
DTYPES: dict[str, Any] = {
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
}
LAYOUTS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "elementwise": ((2, 3, 5), ()),
    "nct": ((3, 5, 7), (2,)),
    "ntc": ((3, 7, 5), (1,)),
    "nchw": ((2, 6, 3, 2), (2, 3)),
    "nhwc": ((2, 3, 2, 6), (1, 2)),
    "ncdhw": ((2, 5, 2, 2, 2), (2, 3, 4)),
    "ndhwc": ((2, 2, 2, 2, 5), (1, 2, 3)),
}
RATIOS = {"0": 0.0, "1": 1.0, "half": 0.5, "tiny": 2.0**-25, "near_1": 1 - 2.0**-24, "third": 1 / 3}


@dataclass(frozen=True)
class Case:
    """One node and what it reads; ``steps`` is the content of the input ``step``."""

    name: str
    shape: Sequence[int] = (2, 6, 3, 2)
    axes: Sequence[int] = (2, 3)
    ratio: float = 0.4
    seed: int = 7
    steps: Sequence[int] = (3,)
    dtype: str = "float32"
    training: bool = True
    values: Sequence[float] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    scalar_switch: bool = False

    def x(self) -> np.ndarray[Any, Any]:
        """Return X: numbers that every type but bfloat16 holds exactly, the given values first."""
        size = int(np.prod(self.shape))
        numbers = ((np.arange(size) * 7919 + 13) % 509 - 254) / 32
        numbers[: len(self.values)] = self.values[:size]
        return np.ascontiguousarray(numbers.reshape(self.shape).astype(DTYPES[self.dtype]))


def cases() -> Iterator[Case]:
    """Yield every case, in the order of the page that lists them."""
    for layout, (shape, axes) in LAYOUTS.items():
        for dtype in DTYPES:
            yield Case(f"{layout}_{dtype}", shape, axes, dtype=dtype)
        a_sample = tuple(range(5, 5 + shape[0]))
        yield Case(f"{layout}_step_a_sample", shape, axes, steps=a_sample)
        yield Case(f"{layout}_strata_31", shape, axes, steps=a_sample, attributes={"strata": 31})
        yield Case(f"{layout}_idle", shape, axes, training=False)
    for name, ratio in {
        "0": 0.0,
        "1": 1.0,
        "half": 0.5,
        "tiny": 2.0**-25,
        "near_1": 1 - 2.0**-24,
        "third": 1 / 3,
    }.items():
        for dtype in ("float32", "float16", "float64"):
            if not (name == "near_1" and dtype == "float16"):  # its scale is no float16
                yield Case(f"ratio_{name}_{dtype}", ratio=ratio, dtype=dtype, shape=(3, 9, 2, 2))
    for name, seed in {"0": 0, "minus_1": -1, "most": 2**63 - 1, "least": -(2**63)}.items():
        yield Case(f"seed_{name}", seed=seed, shape=(2, 33), axes=())
    for name, step in {"0": 0, "2_to_32": 2**32, "2_to_40": 2**40 + 1, "most": 2**63 - 1}.items():
        yield Case(f"step_{name}", steps=(step,), shape=(2, 33), axes=())
        yield Case(f"step_{name}_strata_127", steps=(step,), shape=(2, 33), axes=(), attributes={"strata": 127})
    for strata in (3, 5, 7, 31, 127):
        for ratio in (0.0, 0.1, 0.5, 1.0):
            name = f"strata_{strata}_ratio_{round(10 * ratio)}_tenths"
            steps = tuple(range(strata, strata + 5))
            yield Case(name, (5, 13), (), ratio, 11, steps, attributes={"strata": strata})
    for rng in ("keras_tf", "keras_tf_xla", "keras_jax"):
        for dtype in DTYPES:
            if dtype != "float64" or rng == "keras_jax":
                yield Case(f"{rng}_{dtype}", dtype=dtype, shape=(3, 6, 2, 2), attributes={"rng": rng})
        yield Case(f"{rng}_step_a_sample", shape=(3, 5, 4), axes=(1,), steps=(9, 0, 2**33), attributes={"rng": rng})
    special = (np.inf, -np.inf, np.nan, -0.0, 0.0, 1e-40, -1e-40)
    for dtype in DTYPES:
        for training in (True, False):
            name = f"special_values_{'on' if training else 'idle'}_{dtype}"
            yield Case(name, (4, 7), (), 0.5, dtype=dtype, training=training, values=special * 4)
    for name, shape, axes in (
        ("batch", (0, 3, 2), (2,)),
        ("map", (2, 3, 0), (2,)),
        ("channels", (2, 0, 3), (2,)),
    ):
        yield Case(f"empty_{name}", shape, axes)
    yield Case("rank_1", (11,), ())
    yield Case("rank_1_one_entry", (11,), (0,))
    yield Case("rank_8", (2, 1, 3, 1, 2, 1, 2, 2), (3, 5, 7))
    yield Case("batch_shared", (3, 7, 2), (0, 2))
    yield Case("all_shared", (2, 3), (0, 1))
    yield Case("one_sample_axis_0_shared", (1, 7, 2), (0,))
    yield Case("negative_axes", axes=(-2, -1))
    yield Case("axes_in_another_order", axes=(3, -2))
    yield Case("axes_apart", (2, 5, 3, 4), (1, 3))
    yield Case("rows_of_1_entry", (9, 1, 4), (2,), steps=tuple(range(9)))
    yield Case("rows_of_5_entries", (6, 5, 2), (2,), steps=(0, 0, 1, 2**40, 7, 7))
    yield Case("one_row_of_4099_entries", (1, 4099), ())
    yield Case("scale_1", attributes={"scale": 1.0})
    yield Case("scale_as_a_framework_has_it", ratio=0.3, attributes={"scale": float(np.float32(1 / 0.7))})
    yield Case("scale_large", attributes={"scale": 1e30}, dtype="float64")
    yield Case("training_mode_scalar", scalar_switch=True)
    yield Case("training_mode_scalar_idle", scalar_switch=True, training=False)


def model_of(case: Case, outputs: Sequence[np.ndarray[Any, Any]]) -> onnx.ModelProto:
    """Return the model of a case: one SpatialDropout node with all its attributes."""
    attributes = {"scale": 0.0, "rng": "philox", "strata": 1} | case.attributes
    node = helper.make_node(
        spec.OP_TYPE,
        ["X", "training_mode", "step"],
        ["Y", "mask"],
        domain=spec.DOMAIN,
        seed=case.seed,
        ratio=case.ratio,
        **attributes,
    )
    node.attribute.append(helper.make_attribute("axes", list(case.axes), attr_type=onnx.AttributeProto.INTS))
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(DTYPES[case.dtype]))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        f"test_spatialdropout_{case.name}",
        [
            info("X", dtype, case.shape),
            info("training_mode", onnx.TensorProto.BOOL, [] if case.scalar_switch else [1]),
            info("step", onnx.TensorProto.INT64, [len(case.steps)]),
        ],
        [info("Y", dtype, outputs[0].shape), info("mask", onnx.TensorProto.BOOL, outputs[1].shape)],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(spec.DOMAIN, spec.VERSION)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="onnx_spatialdrop")


def write(case: Case, folder: Path) -> None:
    """Write a case below ``folder``."""
    x, steps = case.x(), np.array(case.steps, np.int64)
    switch = np.array(case.training if case.scalar_switch else [case.training])
    y, mask = spatial_dropout(
        x, axes=case.axes, ratio=case.ratio, seed=case.seed, training_mode=case.training, step=steps, **case.attributes
    )
    place = folder / f"test_spatialdropout_{case.name}"
    data = place / "test_data_set_0"
    data.mkdir(parents=True)
    (place / "model.onnx").write_bytes(model_of(case, (y, mask)).SerializeToString(deterministic=True))
    for kind, arrays in (("input", (x, switch, steps)), ("output", (y, mask))):
        names = ("X", "training_mode", "step") if kind == "input" else ("Y", "mask")
        for index, (name, array) in enumerate(zip(names, arrays, strict=True)):
            tensor = numpy_helper.from_array(np.asarray(array), name)
            (data / f"{kind}_{index}.pb").write_bytes(tensor.SerializeToString(deterministic=True))


def build(folder: Path = HERE) -> list[str]:
    """Write all cases below ``folder`` anew; return their names."""
    for old in folder.glob("test_spatialdropout_*"):
        shutil.rmtree(old)
    names = []
    for case in cases():
        write(case, folder)
        names.append(case.name)
    if len(set(names)) != len(names):
        raise ValueError("two cases have one name")
    return names


if __name__ == "__main__":
    print(f"{len(build())} cases")
