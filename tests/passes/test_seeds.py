"""Seeds: unique, reproducible, and proof against common-subexpression elimination."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from building import dropout_ir
from onnx_ir.passes.common import CommonSubexpressionEliminationPass

import onnx_spatialdrop as sd
from onnx_spatialdrop.passes.seeds import SeedsPass, derive_seeds


def twins(seed_a: int = 0, seed_b: int = 0) -> ir.Model:
    """Return a model with two nodes on one input: y1 and y2."""
    model = dropout_ir(shape=("N", 64), axes=(), ratio=0.5, seed=seed_a, mask=False)
    graph = model.graph
    second = sd.spatial_dropout(
        graph.inputs[0], 0.5, axes=[], training_mode=graph.inputs[1], step=graph.inputs[2], seed=seed_b, name="drop2"
    )
    graph.append(second)
    second.outputs[0].name = "y2"
    graph.outputs.append(second.outputs[0])
    return model


def test_seeds_are_distinct_reproducible_and_not_negative() -> None:
    seeds = derive_seeds(42, 1000)
    assert len(set(seeds)) == 1000
    assert all(0 < seed < 2**63 for seed in seeds)
    assert seeds == derive_seeds(42, 1000)
    assert seeds[:10] == derive_seeds(42, 10)
    assert not set(seeds) & set(derive_seeds(43, 1000))


def test_taken_seeds_are_passed_over() -> None:
    first, second = derive_seeds(7, 2)
    assert derive_seeds(7, 1, frozenset({first})) == [second]


def test_every_node_gets_its_own_seed_in_the_order_of_the_file() -> None:
    model = sd.assign_seeds(twins(), base=5)
    assert [found.seed for found in sd.find(model)] == derive_seeds(5, 2)
    assert sd.find(sd.assign_seeds(model, base=5))[0].seed == derive_seeds(5, 2)[0]


def test_tied_nodes_stay_tied_on_request() -> None:
    model = sd.assign_seeds(twins(9, 9), base=5, keep_ties=True)
    assert [found.seed for found in sd.find(model)] == derive_seeds(5, 1) * 2


def test_nodes_that_draw_as_a_framework_does_keep_its_seeds_unless_asked() -> None:
    model = twins(9, 9)
    model.graph[0].attributes["rng"] = ir.AttrString("rng", "keras_tf")
    seeded = sd.assign_seeds(model, base=5)
    assert [found.seed for found in sd.find(seeded)] == [9, *derive_seeds(5, 1)]
    rewrite = SeedsPass(5)
    rewrite.call(model.clone())
    assert rewrite.kept == 1
    assert [found.seed for found in sd.find(sd.assign_seeds(model, base=5, frameworks=True))] == derive_seeds(5, 2)
    assert not [finding for finding in sd.check(ir.to_proto(model)) if finding.rule == "equal-seeds"]


def test_a_base_seed_beyond_64_bits_is_refused() -> None:
    with pytest.raises(sd.SpecError, match=r"base is 18446744073709551616; it must fit in 64 bits"):
        sd.assign_seeds(twins(), base=2**64)


def after_cse(model: ir.Model) -> tuple[int, np.ndarray, np.ndarray]:
    """Return the number of nodes that survive onnx_ir's elimination, and both outputs for ones."""
    merged = model.clone()
    CommonSubexpressionEliminationPass()(merged)
    proto = sd.attach(ir.to_proto(merged))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones((8, 64), np.float32), "training_mode": np.array(True), "step": np.array([1])}
    y1, y2 = session.run(None, feeds)
    return len(sd.find(merged)), y1, y2


def test_equal_seeds_are_merged_by_optimisers_and_own_seeds_are_not() -> None:
    count, y1, y2 = after_cse(twins())
    assert count == 1  # the trap
    np.testing.assert_array_equal(y1, y2)
    count, y1, y2 = after_cse(sd.assign_seeds(twins()))
    assert count == 2
    agree = int((y1 == y2).sum())
    assert abs(agree - 256) < 6 * np.sqrt(512 / 4)  # independent fair coins agree half the time


def test_protos_work_too() -> None:
    got = sd.assign_seeds(ir.to_proto(twins()), base=1)
    assert isinstance(got, onnx.ModelProto)
    assert [found.seed for found in sd.find(got)] == derive_seeds(1, 2)
