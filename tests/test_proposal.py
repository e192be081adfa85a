"""proposal/ agrees with the package: function body, reference, schema, node tests, counts and figures."""

from __future__ import annotations

import itertools
import re
import runpy
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnx.inliner
import pytest
from building import assert_same_bits, dropout_model
from onnx.reference import ReferenceEvaluator
from standard_random import NEW_OPS

import onnx_spatialdrop as sd
from onnx_spatialdrop.operator import reference, spec
from onnx_spatialdrop.operator.schema import schema

ROOT = Path(__file__).parents[1]
PROPOSAL = ROOT / "proposal" / "onnx"
SCHEMA = (PROPOSAL / "defs" / "nn" / "defs.cc").read_text()
TEXT = (ROOT / "proposal" / "docs" / "proposals" / "0000-dropout-axes.md").read_text()
Dropout: Any = runpy.run_path(str(PROPOSAL / "reference" / "ops" / "op_dropout.py"))["Dropout"]
CASES = runpy.run_path(str(PROPOSAL / "test" / "dropout_axes_test.py"))


def body() -> onnx.FunctionProto:
    text = re.search(r'R"ONNX\((.*?)\)ONNX"', SCHEMA, re.DOTALL)
    assert text is not None
    head = '<opset_import: ["": 28], domain: "proposal"> Dropout <axes, generator, seed>'
    return onnx.parser.parse_function(f"{head} (data, ratio, training_mode, offset) => (output, mask) {text[1]}")


def run(node: onnx.NodeProto, inputs: list[np.ndarray], functions: list[Any], new_ops: list[Any]) -> list[np.ndarray]:
    info = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in zip(node.input, inputs, strict=True)
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    imports = [onnx.helper.make_opsetid("", 28), onnx.helper.make_opsetid("proposal", 1)]
    graph = onnx.helper.make_graph([node], "g", info, outputs)
    model = onnx.helper.make_model(graph, functions=functions, opset_imports=imports)
    if functions:  # the evaluator runs those without its new operators
        model = onnx.inliner.inline_local_functions(model)
    results: Any = ReferenceEvaluator(model, new_ops=new_ops).run(None, dict(zip(node.input, inputs, strict=True)))
    return [np.asarray(result) for result in results]


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("axes", [[2, 3], [-1], [0, 2], [0, 1, 2, 3]])
def test_body_and_reference_implementation_draw_as_the_operator_does(dtype: str, axes: list[int]) -> None:
    x = ((np.arange(2 * 6 * 2 * 3) * 7919 % 509 - 254) / 32).reshape(2, 6, 2, 3).astype(spec.DTYPES[dtype])
    x[0, 0, 0, :2] = np.inf, -0.0
    for ratio, (seed, offset), on in itertools.product(
        (0.0, 0.3, 0.5, 1.0), ((7, 3), (-(2**62), 2**40)), (True, False)
    ):
        inputs = [x, np.array(ratio, np.float32), np.array(on), np.array(offset)]
        names, attributes = ["data", "ratio", "training_mode", "offset"], {"axes": axes, "seed": seed}
        make = onnx.helper.make_node
        node = make("Dropout", names, ["y", "mask"], domain="proposal", generator="philox4x32_10", **attributes)
        wanted = reference.spatial_dropout(x, axes, ratio, seed, offset, on)
        with np.errstate(all="ignore"):
            by_body = run(node, inputs, [body()], NEW_OPS)
            node.domain = ""
            by_reference = run(node, inputs, [], [Dropout])
        for got in (by_body, by_reference):
            assert_same_bits(got[0], wanted[0])
            np.testing.assert_array_equal(got[1], wanted[1])


def test_the_schema_is_that_of_dropout_22_and_the_operator_s_where_both_have_a_word() -> None:
    ours, old = schema(), onnx.defs.get_schema("Dropout", 22)
    types_of = dict(re.findall(r'TypeConstraint\("(\w+)", \{([^}]*)\}', SCHEMA))
    for constraint in old.type_constraints:
        assert set(re.findall(r'"([^"]*)"', types_of[constraint.type_param_str])) == set(constraint.allowed_type_strs)
    assert set(re.findall(r'"([^"]*)"', types_of["T"])) >= set(ours.type_constraints[0].allowed_type_strs)
    attributes = dict(re.findall(r'\.Attr\("(\w+)".*AttributeProto::(\w+)', SCHEMA))
    assert attributes["seed"] == old.attributes["seed"].type.name
    assert attributes["axes"] == ours.attributes["axes"].type.name
    assert attributes["seed"] == ours.attributes["seed"].type.name
    inputs = re.findall(r'\.Input\(\d, "(\w+)", .*?"(T\d?)"', SCHEMA)
    assert inputs[:3] == [(each.name, each.type_str) for each in old.inputs]
    assert [name for name, _ in inputs] == list(body().input)
    for name, kind in (("training_mode", "T2"), ("offset", "T3")):
        (given,) = (each for each in ours.inputs if each.name == {"offset": "step"}.get(name, name))
        assert dict(inputs)[name] == kind
        assert f'"{given.type_str}"' in types_of[kind]
    assert sorted(body().attribute) == ["axes", "generator", "seed"]


def inferred(shape: Any, axes: list[int]) -> tuple[Any, ...]:
    register = sd.operator.schema.register_schema
    register()
    model = dropout_model(shape=shape, axes=axes)
    del model.graph.output[1].type.tensor_type.shape.dim[:]
    model.graph.output[1].type.tensor_type.ClearField("shape")
    made = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output[1].type.tensor_type.shape.dim
    return tuple(dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else None) for dim in made)


@pytest.mark.parametrize(("shape", "axes", "masked"), CASES["SHAPES"])
def test_its_cases_of_shape_inference_hold_for_the_operator(shape: Any, axes: list[int], masked: Any) -> None:
    if not hasattr(schema(), "set_type_and_shape_inference_function"):
        pytest.skip("onnx before 1.19 infers nothing in Python")
    assert inferred(shape, axes) == masked


@pytest.mark.parametrize(("shape", "axes"), CASES["ILL_FORMED"])
def test_its_ill_formed_axes_are_refused(shape: Any, axes: list[int]) -> None:
    with pytest.raises(sd.SpecError):
        spec.normalize_axes(axes, len(shape))


@pytest.mark.parametrize("attributes", CASES["UPGRADES"])
@pytest.mark.parametrize("training", [None, False, True])
def test_without_the_new_attributes_it_is_dropout_22(attributes: dict[str, Any], training: bool | None) -> None:
    x = np.arange(1.0, 41.0, dtype=np.float32).reshape(5, 8)
    inputs = [x] if training is None else [x, np.array(0.5, np.float32), np.array(training)]
    node = onnx.helper.make_node("Dropout", ["x", "r", "t"][: len(inputs)], ["y", "m"], **attributes)
    old, new = run(node, inputs, [], []), run(node, inputs, [], [Dropout])
    if training and "seed" not in attributes:
        old, new = ([np.sort(np.unique(y)), np.zeros(m.shape)] for y, m in (old, new))
        assert set(old[0]) | set(new[0]) <= {0.0, *(2 * x).reshape(-1).tolist()}
        return
    for a, b in zip(old, new, strict=True):
        np.testing.assert_array_equal(a, b)


def node_tests() -> list[tuple[str, onnx.NodeProto, list[np.ndarray], list[np.ndarray]]]:
    found: list[Any] = []

    def expect(node: Any, inputs: Any, outputs: Any, name: str) -> None:
        found.append((name, node, inputs, outputs))

    base, case = types.ModuleType("base"), types.ModuleType("node")
    base.Base, case.expect = object, expect  # type: ignore[attr-defined]
    stubs = {"onnx.backend.test.case.base": base, "onnx.backend.test.case.node": case}
    with mock.patch.dict(sys.modules, stubs):
        module = runpy.run_path(str(PROPOSAL / "backend" / "test" / "case" / "node" / "dropout.py"))
    for name, export in vars(module["Dropout"]).items():
        if name.startswith("export_"):
            export.__func__()
    return found


NODE_TESTS = node_tests()


@pytest.mark.parametrize("case", NODE_TESTS, ids=[name for name, *_ in NODE_TESTS])
def test_its_node_tests_are_what_the_reference_gives(case: Any) -> None:
    _, node, inputs, outputs = case
    for got, wanted in zip(run(node, inputs, [], [Dropout]), outputs, strict=True):
        assert_same_bits(got, wanted)
    if len(inputs) > 1:
        found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        ratio, step = float(inputs[1]), int(inputs[3])
        y, _ = reference.spatial_dropout(inputs[0], found["axes"], ratio, found["seed"], step)
        assert_same_bits(outputs[0], y)


def nodes(graph: onnx.GraphProto) -> int:
    return sum(1 + sum(nodes(a.g) for a in node.attribute if a.HasField("g")) for node in graph.node)


def test_its_counts_and_times_are_the_package_s() -> None:
    def count(rng: str, form: str) -> int:
        target, opset = ("onnx", 28) if form == "standard" else ("onnxruntime", 24)
        model = dropout_model(shape=(2, 4, 3, 3), opset=opset, rng=rng, mask=False)
        return nodes(sd.expand(model, form=form, target=target).graph)

    by = [count("philox", form) for form in ("philox", "philox-int32", "standard")]
    assert f"| Philox4x32-10 | {by[0]} | {by[1]} | {by[2]} |" in TEXT
    assert f"| {count('keras_jax', 'philox')} | {count('keras_jax', 'philox-int32')} | - |" in TEXT
    assert f"{len(body().node)} nodes" in TEXT
    measured = (ROOT / "docs" / "benchmarks.md").read_text()
    for rng, name in (("philox", "Philox4x32-10"), ("keras_jax", "Threefry2x32-20")):
        (row, *_) = re.findall(rf"(?m)^\| {rng} \| (.*) \|$", measured)
        times = row.split(" | ")[::2]
        assert f"| {name} | {' | '.join(times)} |" in TEXT
    (tests,) = re.findall(r"The (\d+) p-values are one family", (ROOT / "docs" / "statistics.md").read_text())
    assert f"pass {tests} tests" in TEXT
