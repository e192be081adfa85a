"""From the state of a framework's generators to steps and seeds, on graphs made by hand: no framework is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

import onnx_spatialdrop as sd
from onnx_spatialdrop.export.counters import NEXT_STEP_KEY, Counted, Draw, StepInputs, count, own_seeds
from onnx_spatialdrop.export.markers import CALL, MARKER, Call, replace_markers
from onnx_spatialdrop.graph import controls
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import reference, spec
from onnx_spatialdrop.operator.dialects import KERAS_TF_MODULUS, ratio_for
from onnx_spatialdrop.operator.evaluator import SpatialDropout


class TestCount:
    def test_where_layers_count_alike_the_step_is_their_counter(self) -> None:
        draws = [Draw("keras_tf", seed, 7) for seed in (1, 2, 3)]
        assert count(draws) == ([Counted()] * 3, 7)

    def test_a_layer_called_twice_moves_by_two(self) -> None:
        twice = [Draw("keras_jax", 5, 14, first, 2) for first in (0, 1)]
        assert count([Draw("keras_jax", 1, 7), *twice]) == ([Counted(), Counted(2, 0), Counted(2, 1, 1)], 7)

    def test_where_they_do_not_count_alike_the_one_that_is_least_far_leads(self) -> None:
        trained = [Draw("keras_tf", 1, 1000), Draw("keras_tf", 2, 2001, 1, 2)]
        assert count([*trained, Draw("keras_tf", 3, 4)]) == ([Counted(1, 996), Counted(2, 1994), Counted()], 4)

    def test_what_takes_no_draw_has_no_say(self) -> None:
        assert count([Draw("keras_tf", 1, 0, 0, 0), Draw("keras_tf", 2, 9)]) == ([Counted(), Counted()], 9)
        assert count([Draw("keras_tf", 1, 0, 0, 0)]) == ([Counted()], 0)

    def test_streams_are_told_apart_modulo_the_period(self) -> None:
        draws = [Draw("keras_tf", 3, 0), Draw("keras_tf_xla", 3 + KERAS_TF_MODULUS, 0), Draw("keras_jax", 3, 0)]
        assert [each.sequence for each in count(draws)[0]] == [0, 1, 0]

    def test_a_negative_counter_counts_modulo_the_period(self) -> None:
        assert count([Draw("keras_tf", 1, -1)]) == ([Counted()], KERAS_TF_MODULUS - 1)


@pytest.mark.parametrize(
    ("rng", "seed"), [("keras_tf", 5), ("keras_tf", -5), ("keras_tf", 2**63 - 1), ("keras_jax", 5), ("keras_jax", 0)]
)
def test_seeds_of_one_stream_differ_and_draw_the_same(rng: str, seed: int) -> None:
    taken = {8}
    seeds = own_seeds([Draw(rng, seed, 0)] * 4 + [Draw(rng, 8, 0)], taken)
    assert seeds[0] == seed
    assert len({8, *seeds}) == 6
    assert taken == {8, *seeds}
    masks = [reference.dropout_mask((64,), [], 0.5, each, 3, rng=rng) for each in seeds]
    for mask in masks[1:4]:
        np.testing.assert_array_equal(mask, masks[0])
    np.testing.assert_array_equal(masks[4], reference.dropout_mask((64,), [], 0.5, 8, 3, rng=rng))


def test_steps_are_computed_from_the_models_own_and_equal_ones_once() -> None:
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="g"), ir_version=9)
    _, step = controls.add_switches(model.graph)
    steps = StepInputs(model, step)
    asked = [Counted(), Counted(2, 0), Counted(2, 1, 1), Counted(1, 5), Counted(1, 0, 2), Counted(2, 0)]
    values = [steps.value(counted) for counted in asked]
    assert values[0] is step
    assert values[1] is values[5]
    model.graph.append(ir.node("Identity", [step]))  # control inputs come before all else
    steps.insert()
    assert [node.op_type for node in model.graph].count("Less") == 1
    assert model.graph[-1].op_type == "Identity"
    model.graph.outputs.extend(values[1:5])
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    evaluator = ReferenceEvaluator(ir.to_proto(model))
    for fed, expected in (
        ([0], ([0], [1], [5], [0])),
        ([7], ([14], [15], [12], [7])),
        ([-1], ([-1], [-2], [-1], [-3])),
        ([3, 4], ([6, 8], [7, 9], [8, 9], [3, 4])),
    ):
        results = evaluator.run(None, {"step": np.array(fed), "training_mode": np.array(True)})
        for got, want in zip(results, expected, strict=True):
            np.testing.assert_array_equal(got, want)


def twice() -> ir.Model:
    """One layer called twice, and another layer, whose generator is at 3."""
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=["N", 8, 4])
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 18, spec.DOMAIN: 1}, name="g")
    for index in range(3):
        source = graph[-1].outputs[0] if len(graph) else x
        graph.append(ir.node(MARKER, [source], {CALL: index}, domain=spec.DOMAIN))
        graph[-1].outputs[0].name = f"y{index}"
    graph.append(ir.node("Abs", [graph[-1].outputs[0]]))
    graph[-1].outputs[0].name = "y"
    graph.outputs.append(graph[-1].outputs[0])
    model = ir.Model(graph, ir_version=9)
    draws = [Draw("keras_jax", 5, 6, 0, 2), Draw("keras_jax", 5, 6, 1, 2), Draw("keras_jax", 9, 3)]
    calls = [
        Call(name, 0.6, (1,), 3, "float32", owner=ord(name), draw=draw) for name, draw in zip("aab", draws, strict=True)
    ]
    replace_markers(model, dict(enumerate(calls)), 0)
    return model


def run(evaluator: Any, **feeds: Any) -> np.ndarray:
    x = np.ones((2, 8, 4), np.float32)
    return evaluator.run(None, {"x": x, **{name: np.array(value) for name, value in feeds.items()}})[0]


class TestMarkersWithDraws:
    def test_the_nodes_draw_where_the_generators_are(self) -> None:
        model = twice()
        assert model.metadata_props[NEXT_STEP_KEY] == "3"
        ratio = ratio_for(0.6, "keras_jax", np.float32)
        assert ratio != np.float32(0.6)
        assert {op.read(node).ratio for node in model.graph if op.is_spatial_dropout(node)} == {ratio}
        evaluator = ReferenceEvaluator(ir.to_proto(model), new_ops=[SpatialDropout])
        for step in (3, 4):
            kept = [
                reference.dropout_mask((2, 8, 4), [1], ratio, seed, at, rng="keras_jax")
                for seed, at in ((5, 2 * step), (5, 2 * step + 1), (9, step))
            ]
            got = run(evaluator, training_mode=True, step=[step])
            np.testing.assert_array_equal(got != 0, np.broadcast_to(kept[0] & kept[1] & kept[2], got.shape))

    @pytest.mark.parametrize("clean", [sd.remove, sd.to_inference, lambda m: sd.expand(m, form="identity")])
    def test_nothing_of_it_is_left_without_dropout(self, clean: Any) -> None:
        cleaned = clean(twice())
        assert [node.op_type for node in cleaned.graph] == ["Abs"]
        assert [value.name for value in cleaned.graph.inputs] == ["x"]
        assert not cleaned.graph.initializers

    @pytest.mark.parametrize("form", ["uniform", "dropout"])
    def test_a_form_that_draws_by_the_runtime_leaves_no_step(self, form: str) -> None:
        expanded = sd.expand(twice(), form=form)
        assert [value.name for value in expanded.graph.inputs] == ["x", "training_mode"]
        assert not [name for name in expanded.graph.initializers if name.startswith("step")]

    def test_without_defaults_the_step_behind_the_nodes_has_to_be_fed(self) -> None:
        expanded = sd.expand(twice(), form="uniform", defaults=False)
        assert not expanded.graph.initializers
        attached = sd.expand(twice(), form="mask-inputs", defaults=False)
        assert "step" not in [value.name for value in attached.graph.inputs]

    def test_fresh_draws_of_one_generator_differ(self) -> None:
        model = twice()
        model.graph.outputs.extend(node.outputs[1] for node in model.graph if op.is_spatial_dropout(node))
        evaluator = ReferenceEvaluator(ir.to_proto(model), new_ops=[SpatialDropout])
        x = np.ones((2, 8, 4), np.float32)
        for _ in range(3):
            masks = evaluator.run(None, {"x": x, "training_mode": np.array(True), "step": np.array([-1])})[1:]
            assert not np.array_equal(masks[0], masks[1])
