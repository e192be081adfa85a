"""From an exporter's markers to nodes, on graphs made by hand: no framework is needed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export.markers import CALL, MARKER, VECTORIZED, Call, replace_markers, require_all
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.expand import expand
from onnx_spatialdrop.passes.seeds import derive_seeds


def call(layer: str, owner: int, seed: int | None = None, axes: tuple[int, ...] = (2, 3)) -> Call:
    return Call(layer, 0.3, axes, 4, "float16", seed, owner, {"onnx_spatialdrop.layer": layer})


def by_index(*calls: Call) -> dict[int, Call]:
    return dict(enumerate(calls))


def model(*indices: int, **attributes: int) -> ir.Model:
    """Markers in series between two Relu nodes, for the calls in ``indices``."""
    x = ir.val("x", dtype=ir.DataType.FLOAT16, shape=["N", 3, 4, 4])
    graph = ir.Graph([x], [], nodes=[], opset_imports={"": 18, spec.DOMAIN: 1}, name="g")
    for position, index in enumerate((None, *indices, None)):
        source = graph[-1].outputs[0] if len(graph) else x
        if index is None:
            graph.append(ir.node("Relu", [source]))
        else:
            graph.append(ir.node(MARKER, [source], {CALL: index, **attributes}, domain=spec.DOMAIN))
        graph[-1].outputs[0].name = f"v{position}"
    graph.outputs.append(graph[-1].outputs[0])
    return ir.Model(graph, ir_version=9)


def test_each_marker_becomes_a_node_under_its_outputs_name() -> None:
    subject = model(0, 1)
    made = replace_markers(subject, by_index(call("a", 1), call("b", 2)), 0)
    assert [node.op_type for node in subject.graph] == ["Relu", "SpatialDropout", "SpatialDropout", "Relu"]
    assert [(node.name, node.outputs[0].name, op.read(node).axes) for node in made] == [
        ("a", "v1", (2, 3)),
        ("b", "v2", (2, 3)),
    ]
    assert [value.name for value in subject.graph.inputs] == ["x", "training_mode", "step"]
    assert made[0].metadata_props["onnx_spatialdrop.layer"] == "a"


def test_a_type_that_the_exporter_left_out_is_the_layers_and_sets_the_scale() -> None:
    (node,) = replace_markers(subject := model(0), by_index(call("a", 1)), 0)
    assert subject.graph[1].inputs[0].dtype == ir.DataType.FLOAT16
    assert op.read(node).scale == spec.explicit_scale(0.3, spec.DTYPES["float16"])


def test_a_rank_that_the_exporter_left_out_is_the_layers_so_that_its_mask_can_be_an_input() -> None:
    subject = model(0)
    subject.graph.inputs[0].shape = None
    replace_markers(subject, by_index(call("a", 1)), 0)
    masks = [value for value in expand(subject, form="mask-inputs").graph.inputs if value.name == "a.mask"]
    assert [len(value.shape or ()) for value in masks] == [4]


def test_own_seeds_come_first_and_no_two_are_equal() -> None:
    calls = [call("a", 1), call("b", 2, seed=7), call("c", 3, seed=7), call("b", 2, seed=7), call("d", 4)]
    made = replace_markers(model(0, 1, 2, 3, 4), by_index(*calls), 5)
    seeds = [op.read(node).seed for node in made]
    assert seeds[1] == 7
    assert [seeds[0], seeds[4]] == derive_seeds(5, 2)
    assert seeds[2:4] == derive_seeds(7, 2)
    assert [node.name for node in made] == ["a", "b", "c", "b:1", "d"]


def test_a_layer_traced_twice_counts_where_it_survived() -> None:
    made = replace_markers(model(2, 3), by_index(call("a", 1), call("b", 2), call("a", 1), call("b", 2)), 0)
    assert [node.name for node in made] == ["a", "b"]


def test_without_markers_nothing_of_the_domain_stays() -> None:
    subject = model()
    assert replace_markers(subject, by_index(), 0) == []
    assert spec.DOMAIN not in subject.opset_imports
    assert len(subject.graph.inputs) == 1


def test_a_layer_that_is_not_in_the_file_is_refused() -> None:
    with pytest.raises(SpatialDropError) as error:
        require_all(model(0), by_index(call("a", 1), call("b", 2)))
    assert str(error.value) == (
        "layer 'b': its dropout was traced but is not in the exported graph (the exporter folded or dropped it, as it "
        "does where the layer's input is a constant or its output is unused); "
        'export with dropout="inference" (with tf2onnx: outside exporting()), or take the layer out of the call'
    )


def test_a_vectorised_layer_is_refused() -> None:
    with pytest.raises(SpatialDropError) as error:
        replace_markers(model(0, **{VECTORIZED: 1}), by_index(call("a", 1)), 0)
    assert str(error.value) == (
        "layer 'a': it was called on rank 4, but the exporter vectorised it over one more axis (as TimeDistributed "
        "over an unknown number of steps does); give that number in input_signature"
    )


@pytest.mark.parametrize("target", ["onnxruntime-training", "reference"])
@pytest.mark.parametrize("form", ["uniform", "philox", "dropout"])
def test_what_always_drops_does_so_in_onnx_runtime_without_being_fed(form: str, target: str) -> None:
    subject = model(0, 1)
    replace_markers(subject, by_index(call("a", 1), call("b", 2)), 0, always=True)
    assert "training_mode" not in [value.name for value in subject.graph.inputs]
    proto = ir.to_proto(expand(subject, form=form, target=target))
    # The one that an inference session deletes: nothing reads the mask of a trainer's Dropout (docs/exporters.md).
    deleted = (form, target) == ("dropout", "onnxruntime-training")
    for disabled in ([], ["EliminateDropout"]):
        session = onnxruntime.InferenceSession(proto.SerializeToString(), disabled_optimizers=disabled)
        (y,) = session.run(None, {"x": np.ones((64, 3, 4, 4), np.float16)})
        maps = y.reshape(-1, 16)
        np.testing.assert_array_equal(maps, np.repeat(maps[:, :1], 16, axis=1))
        zeros = float((maps[:, 0] == 0).mean())
        assert zeros == 0 if deleted and not disabled else 0.3 < zeros < 0.7  # 0.51 of 192 expected
