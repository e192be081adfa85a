"""What real exporters and people wrote as dropout is found, with the right axes, and what only looks like it is not."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from exported import EXPORTED, IDIOMS, KERAS, REPORTED, brief, exported, fuse_file, idiom, keras

import onnx_spatialdrop as sd
from onnx_spatialdrop.passes.fuse.policy import run as fuse

SWITCHES = ("switch training_mode (true)", "switch step (-1)")


@pytest.mark.parametrize("name", EXPORTED)
def test_every_dropout_of_an_exported_file_is_found(name: str) -> None:
    expected = [tuple(each) for each in EXPORTED[name]["expected"]]
    model, report = fuse_file(exported(name))
    assert brief(report.fused) == [each for each in expected if each[0] not in REPORTED]
    active = [record for record in report.refused if record.kind in REPORTED and "off" not in record.reason]
    assert brief(active) == [each for each in expected if each[0] in REPORTED]
    found = sd.find(model)
    assert [(list(node.axes), node.ratio) for node in found] == [
        (axes, float(np.float32(ratio))) for _, ratio, _, axes in brief(report.fused)
    ]
    for node, record in zip(found, report.fused, strict=True):
        assert node.scale == pytest.approx(1 / (1 - record.ratio), rel=1e-3 if node.dtype == "float16" else 1e-6)
        assert (node.seed, node.training_mode, node.step) == (
            record.seed,
            "switch training_mode (true)",
            "switch step (-1)",
        )
    assert len({node.seed for node in found}) == len(found)
    assert not any(n.op_type.startswith(("Random", "Stateless")) for n in model.graph) or report.refused


@pytest.mark.parametrize("name", IDIOMS)
def test_idioms_are_recognised_and_look_alikes_are_not(name: str) -> None:
    expected = IDIOMS[name]
    _, report = fuse_file(idiom(name))
    if expected is None:
        assert report.fused == []
        assert report.refused
        assert all(record.reason for record in report.refused)
    elif expected[0] in REPORTED:
        assert report.fused == []
        assert [[r.kind, r.ratio, list(r.axes or ())] for r in report.refused] == [expected]
    else:
        assert report.refused == []
        assert report.fused
        assert all([r.kind, r.ratio, list(r.axes or ())] == expected for r in report.fused)


@pytest.mark.parametrize("name", KERAS)
def test_keras_networks_with_moved_transpositions(name: str) -> None:
    model, report = fuse(onnx.load(keras(f"{name}_train.onnx")))
    assert [(r.kind, r.ratio, list(r.axes or ())) for r in report.fused] == KERAS[name]
    assert [r.kind for r in report.refused] == {"cnn": ["elementwise"], "alpha": ["alpha"]}.get(name, [])
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_scale", "kept values are multiplied by 1; dropout of ratio 0.2 multiplies them by 1.25"),
        ("nearly_the_scale", "kept values are multiplied by 1.2; dropout of ratio 0.2 multiplies them by 1.25"),
        ("wrong_side", "kept values are multiplied by 1.25; dropout of ratio 0.8 multiplies them by 5"),
        ("applied_twice", "kept values are multiplied by 1.5625; dropout of ratio 0.2 multiplies them by 1.25"),
        ("filled_with_1", "dropped values become 1.25, not 0"),
        ("mask_used_again", "kept values have 1.25 added to them"),
        ("mask_returned", "the mask is also used otherwise: it is an output of the graph"),
        ("two_thresholds", "one draw is cut at two thresholds"),
        ("product_of_two", "two draws are multiplied with each other"),
        ("gaussian_noise", "draws Gaussian noise, which no threshold makes a mask of"),
        ("uniform_noise", "multiplies by the draw itself, which no threshold has cut"),
        ("added", "adds the noise to an activation instead of multiplying it"),
        ("dropblock", "(MaxPool) reads it"),
        ("mixed_samples", "(Where) combines two activations"),
        ("a_ratio_a_channel", "compares the draw with a threshold that is not one constant number"),
        ("bernoulli_operator", "Bernoulli is inverted: it gives 1 with probability 0.2 where ONNX says 0.8"),
        ("feature_alpha", "alpha dropout: dropped values become SELU's lower bound, not 0"),
        ("elementwise", "element-wise dropout; it becomes SpatialDropout with axes [] only on request"),
    ],
)  # fmt: skip
def test_a_refusal_says_why(name: str, reason: str) -> None:
    _, report = fuse_file(idiom(f"{name}_dynamo.onnx"))
    assert all(reason in record.reason for record in report.refused)
    assert reason in str(report)


@pytest.mark.parametrize("name", [name for name, case in EXPORTED.items() if case["holds"].startswith("elementwise")])
def test_tf2onnx_losing_the_noise_shape_is_named(name: str) -> None:
    _, report = fuse_file(exported(name))
    assert report.fused == []
    for record in report.refused:
        assert record.kind == "elementwise"
        assert "tf2onnx's dropout rewriter makes element-wise Dropout of every noise shape" in record.notes[0]
        assert ("here also its ratio" in record.notes[0]) == ("ratio lost" in EXPORTED[name]["holds"])


@pytest.mark.parametrize(
    ("name", "ratio", "axes"),
    [
        ("torch_hand_ones_dropout_mul_train_static.onnx", 0.2, (2, 3)),
        ("keras3_spatialdropout2d_mc_static_FROZEN_BUG.onnx", 0.3, (1, 2)),
    ],
)
def test_a_mask_frozen_into_a_constant_is_named_and_left(name: str, ratio: float, axes: tuple[int, ...]) -> None:
    model, report = fuse_file(exported(name))
    (record,) = report.refused
    assert (record.kind, record.ratio, record.axes) == ("frozen", ratio, axes)
    assert "froze it into a constant" in record.reason
    before = ir.to_proto(ir.load(exported(name)))
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True)
