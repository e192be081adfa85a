"""insert: SpatialDropout nodes after named values of an inference model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from building import NETWORK
from onnx import parser

import onnx_spatialdrop as sd
from onnx_spatialdrop.operator import reference, spec
from onnx_spatialdrop.passes.attach import attach
from onnx_spatialdrop.passes.find import find
from onnx_spatialdrop.passes.found import Found
from onnx_spatialdrop.passes.insert import InsertPass, insert
from onnx_spatialdrop.passes.remove import remove
from onnx_spatialdrop.passes.seeds import derive_seeds


# Two 1x1 "convolutions" with a Relu between them, every value's type and shape in the file.
def network(text: str = NETWORK) -> onnx.ModelProto:
    proto = parser.parse_model(text)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    session = ort.InferenceSession(attach(proto).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def image(samples: int = 3) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((samples, 2, 4, 4), np.float32)


def only(proto: onnx.ModelProto) -> Found:
    (found,) = find(proto)
    return found


def test_the_model_computes_what_it_computed_until_training_mode_is_fed() -> None:
    before, after = network(), insert(network(), after="h", rate=0.5)
    plain = ort.InferenceSession(before.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": image()}
    )
    assert run(after, {"x": image()})[0].tobytes() == plain[0].tobytes()
    dropped = run(after, {"x": image(), "training_mode": np.array(True), "step": np.array([0], np.int64)})
    assert dropped[0].tobytes() != plain[0].tobytes()


def test_whole_feature_maps_are_dropped_as_the_reference_says() -> None:
    proto = insert(network(), after="h", rate=0.4, seed=11)
    proto.graph.output.append(onnx.helper.make_tensor_value_info("h/mask", onnx.TensorProto.BOOL, None))
    attributes = only(proto)
    assert (attributes.axes, attributes.ratio) == ((2, 3), float(np.float32(0.4)))
    assert attributes.scale == spec.explicit_scale(0.4, np.dtype(np.float32))
    feeds = {"x": image(8), "training_mode": np.array(True), "step": np.arange(8, dtype=np.int64)}
    _, mask = run(proto, feeds)
    wanted = reference.dropout_mask((8, 3, 4, 4), (2, 3), 0.4, attributes.seed, np.arange(8))
    assert mask.shape == (8, 3, 1, 1)
    assert mask.tobytes() == wanted.tobytes()
    assert 0 < wanted.sum() < wanted.size


def test_everything_that_read_the_value_reads_the_dropped_one() -> None:
    proto = insert(network(), after="h")
    assert [list(node.output) for node in proto.graph.node] == [["conv"], ["h"], ["h/dropped", "h/mask"], ["y"]]
    assert list(proto.graph.node[2].input) == ["h", "training_mode", "step"]
    assert list(proto.graph.node[3].input) == ["h/dropped"]
    assert proto.graph.node[2].name == "h/SpatialDropout"


def test_a_subgraph_reads_the_dropped_value_too() -> None:
    proto = insert(
        network("""
        <ir_version: 9, opset_import: ["": 20]>
        net (float[N,2,4,4] x, bool c) => (float[N,2,4,4] y)
        {
          h = Relu (x)
          y = If (c) <then_branch = t () => (float[N,2,4,4] a) { a = Exp (h) },
                      else_branch = e () => (float[N,2,4,4] b) { b = Neg (h) }>
        }
        """),
        after="h",
    )
    branches = [attribute.g for attribute in proto.graph.node[-1].attribute]
    assert [list(branch.node[0].input) for branch in branches] == [["h/dropped"], ["h/dropped"]]


def test_a_graph_output_keeps_its_name_and_its_producer_gives_it_up() -> None:
    proto = insert(network(), after="y")
    assert [output.name for output in proto.graph.output] == ["y"]
    assert list(proto.graph.node[-2].output) == ["y/undropped"]
    assert list(proto.graph.node[-1].output) == ["y", "y/mask"]
    onnx.checker.check_model(proto, full_check=True)


def test_an_output_that_is_also_used_inside_is_dropped_in_both_places() -> None:
    text = NETWORK.replace("=> (float[N,3,4,4] y)", "=> (float[N,3,4,4] y, float[N,3,4,4] h)").replace(
        "float[N,3,4,4] conv, float[N,3,4,4] h", "float[N,3,4,4] conv"
    )
    proto = insert(network(text), after="h", seed=3)
    feeds = {"x": image(), "training_mode": np.array(True), "step": np.array([7], np.int64)}
    y, h = run(proto, feeds)
    mask = reference.dropout_mask((3, 3, 4, 4), (2, 3), 0.5, only(proto).seed, 7)
    assert not mask.all()
    assert not h[~np.broadcast_to(mask, h.shape)].any()
    np.testing.assert_allclose(y, 1 / (1 + np.exp(-h)), rtol=0, atol=2e-7)


def test_an_input_and_an_initializer_are_dropped_from_under_their_own_names() -> None:
    proto = insert(network(), after={"x": 0.25, "w": 0.5}, axes=[1, 2, 3])
    assert [node.output[0] for node in proto.graph.node] == ["x/dropped", "w/dropped", "conv", "h", "y"]
    assert list(proto.graph.node[2].input) == ["x/dropped", "w/dropped"]
    assert [found.ratio for found in find(proto)] == [0.25, 0.5]


def test_nodes_share_the_two_switches_of_the_model() -> None:
    proto = insert(insert(network(), after="conv"), after="h")
    assert [value.name for value in proto.graph.input] == ["x", "training_mode", "step"]
    defaults = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    assert defaults["training_mode"].tolist() is False
    assert defaults["step"].tolist() == [-1]


def test_seeds_differ_follow_the_base_seed_and_pass_over_those_that_are_there() -> None:
    once = insert(network(), after=["h", "conv"], seed=9)
    assert [found.seed for found in find(once)] == derive_seeds(9, 2)
    twice = insert(insert(network(), after="conv", seed=9), after="h", seed=9)
    assert [found.seed for found in find(twice)] == derive_seeds(9, 2)


def test_equal_calls_give_equal_bytes_and_the_order_of_names_is_irrelevant() -> None:
    first = insert(network(), after={"h": 0.1, "conv": 0.2}).SerializeToString(deterministic=True)
    assert insert(network(), after={"conv": 0.2, "h": 0.1}).SerializeToString(deterministic=True) == first


@pytest.mark.parametrize("after", ["x", "conv", "h", "y", ["x", "h", "y"]])
def test_remove_takes_out_what_insert_put_in_to_the_byte(after: str | list[str]) -> None:
    proto = ir.to_proto(ir.from_proto(network()))
    there = insert(proto, after=after)
    assert there != proto
    assert remove(there).SerializeToString(deterministic=True) == proto.SerializeToString(deterministic=True)


def test_a_second_node_after_the_same_value_gets_names_of_its_own() -> None:
    proto = insert(insert(network(), after="h"), after="h")
    assert [list(node.output) for node in proto.graph.node][2:4] == [
        ["h/dropped_1", "h/mask_1"],
        ["h/dropped", "h/mask"],
    ]
    onnx.checker.check_model(proto)
    run(proto, {"x": image()})


def test_a_type_and_rank_that_the_file_does_not_give_are_inferred() -> None:
    proto = network()
    del proto.graph.value_info[:]
    (found,) = find(insert(proto, after="h"))
    assert (found.axes, found.dtype, found.shape) == ((2, 3), "float32", ("N", 3, 4, 4))


def test_float16_gets_a_scale_rounded_to_float16() -> None:
    text = '<ir_version: 9, opset_import: ["": 20]> net (float16[N,2,4] x) => (float16[N,2,4] y) { y = Relu (x) }'
    assert only(insert(network(text), after="x", rate=0.3)).scale == float(np.float16(1 / 0.7))


def test_layouts_and_noise_shapes_are_the_users_words() -> None:
    assert only(insert(network(), after="h", data_format="channels_last")).axes == (1, 2)
    assert only(insert(network(), after="h", noise_shape=[None, 1, None, 1])).axes == (1, 3)
    assert only(insert(network(), after="h", axes=[-1])).axes == (3,)


def test_the_callers_model_is_not_changed_and_the_kind_is_kept(tmp_path: Path) -> None:
    proto, kept = network(), network()
    model = ir.from_proto(network())
    assert isinstance(insert(proto, after="h"), onnx.ModelProto)
    assert proto == kept
    assert len(find(insert(model, after="h"))) == 1
    assert find(model) == []
    path = tmp_path / "in.onnx"
    onnx.save(proto, path)
    written = insert(path, tmp_path / "out.onnx", after="h")
    assert written == tmp_path / "out.onnx"
    assert len(find(written)) == 1


def test_without_a_value_nothing_is_modified() -> None:
    model = ir.from_proto(network())
    assert not InsertPass([]).call(model).modified
    assert [value.name for value in model.graph.inputs] == ["x"]


RANKLESS = """
<ir_version: 9, opset_import: ["": 20]>
net (float[N,2,4] x, int64[K] s) => (float[] y) { h = Reshape (x, s) y = ReduceSum <keepdims = 0> (h) }
"""


def test_an_unknown_rank_is_accepted_when_axes_are_given() -> None:
    proto = insert(parser.parse_model(RANKLESS), after="h", axes=[1], seed=2)
    feeds = {"x": np.ones((6, 2, 4), np.float32), "s": np.array([6, 8], np.int64), "training_mode": np.array(True)}
    (total,) = run(proto, feeds | {"step": np.array([0], np.int64)})
    kept = reference.dropout_mask((6, 8), (1,), 0.5, only(proto).seed, 0)
    assert total == 2 * 8 * kept.sum()


def test_seeds_are_those_that_assign_seeds_would_give() -> None:
    proto = insert(network(), after=["y", "conv", "w", "x"], axes=[1], seed=9)
    assert sd.assign_seeds(proto, base=9) == proto
    assert sd.assign_seeds(proto, base=8) != proto
