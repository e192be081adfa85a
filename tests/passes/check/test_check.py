"""check names what will go wrong, where, and what to do; a model that is fine gets no findings."""

import contextlib
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx.version_converter
import onnx_ir as ir
import onnxruntime
import pytest
import zoo
from building import dropout_model
from exported import EXPORTED, exported

import onnx_spatialdrop as sd
from onnx_spatialdrop.errors import ModelFileError
from onnx_spatialdrop.passes.expand import FORMS
from onnx_spatialdrop.passes.fuse.policy import run as fuse

HEAD = '<ir_version: 9, opset_import: ["": 20]> g (float[N, 4] x) => (float[N, 4] y)'
TRAINING = "r = Constant <value_float = 0.5> () t = Constant <value = bool {1}> ()"


def parse(body: str, head: str = HEAD) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{head} {{ {body} }}")


def rules(model: onnx.ModelProto | str) -> list[tuple[str, tuple[str, ...]]]:
    return [(finding.rule, finding.nodes) for finding in sd.check(model)]


@pytest.mark.parametrize("name", [name for name, case in EXPORTED.items() if case["holds"] == "none"])
def test_models_without_dropout_are_fine(name: str) -> None:
    assert sd.check(exported(name)) == []


def test_a_model_with_its_body_is_fine() -> None:
    assert sd.check(sd.attach(dropout_model())) == []


@pytest.mark.parametrize(
    ("body", "deleted"),
    [
        ("a = Relu (x) [d] b = Dropout (a, r, t) y = Neg (b)", True),
        ("[d] b = Dropout (x, r, t) y = Neg (b)", False),
        ("a = Relu (x) [d] y = Dropout (a, r, t)", False),
        ("a = Relu (x) [d] b, m = Dropout (a, r, t) n = Cast <to = 1> (m) y = Mul (b, n)", False),
    ],
)
def test_dropout_that_onnx_runtime_deletes(body: str, deleted: bool) -> None:
    model = parse(f"{TRAINING} {body}")
    assert [nodes for rule, nodes in rules(model) if rule == "deleted-dropout"] == ([("d",)] if deleted else [])
    ran = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": np.ones((64, 4), np.float32)})[0]
    assert bool((ran == 0).any()) == (not deleted)


@pytest.mark.parametrize(("opset", "found"), [(21, False), (22, True)])
def test_random_ops_without_a_cpu_kernel(opset: int, found: bool) -> None:
    model = parse("[u] u = RandomUniformLike (x) y = Add (x, u)", HEAD.replace("20", str(opset)))
    assert (("no-cpu-kernel", ("u",)) in rules(model)) == found
    if found:
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented):
            onnxruntime.InferenceSession(model.SerializeToString())


def test_bernoulli() -> None:
    model = parse("s = Shape (x) p = ConstantOfShape <value = float[1] {0.7}> (s) [b] m = Bernoulli (p) y = Mul (x, m)")
    finding, live = sd.check(model)
    assert live.rule == "live-dropout"
    assert str(finding) == (
        "inverted-bernoulli: b: ONNX Runtime's Bernoulli is inverted: it gives 1 with probability 0.3 where it should "
        "be 0.7. Fix: fuse(model, bernoulli=True), or export rand(...) < p in its place."
    )


def test_equal_seeds_of_nodes_and_of_draws() -> None:
    model = dropout_model(wrap=True)
    copy = onnx.NodeProto()
    copy.CopyFrom(next(node for node in model.graph.node if node.op_type == "SpatialDropout"))
    copy.name, copy.output[0], copy.output[1] = "again", "y2", "m2"
    model.graph.node.append(copy)
    found = [finding for finding in sd.check(model) if finding.rule == "equal-seeds"]
    assert [(finding.nodes, finding.fix) for finding in found] == [(("drop", "again"), "assign_seeds(model)")]
    draws = parse(
        "[a] u = RandomUniformLike <seed = 3.0> (x) [b] v = RandomUniformLike <seed = 3.0> (x) y = Sub (u, v)"
    )
    assert ("equal-seeds", ("a", "b")) in rules(draws)
    ran = onnxruntime.InferenceSession(draws.SerializeToString()).run(None, {"x": np.ones((8, 4), np.float32)})[0]
    assert not ran.any()


@pytest.mark.parametrize(
    "body",
    [
        "[u] u = RandomUniform <shape = [1, 4]> () y = Mul (x, u)",
        "s = Constant <value_ints = [1, 4]> () t = ConstantOfShape (s) [u] u = RandomUniformLike (t) y = Mul (x, u)",
        f"{TRAINING} s = Constant <value_ints = [1, 4]> () o = ConstantOfShape <value = float[1] {{1.0}}> (s)"
        " [u] d, m = Dropout (o, r, t) f = Cast <to = 1> (m) y = Mul (x, f)",
    ],
)
def test_sources_that_optimisers_freeze(body: str) -> None:
    assert ("foldable-source", ("u",)) in rules(parse(body))


def test_a_source_that_depends_on_the_data_is_not_frozen() -> None:
    assert rules(parse("[u] u = RandomUniformLike (x) y = Mul (x, u)")) == []


@pytest.mark.parametrize(("seed", "found"), [("0.5", True), ("16777216.0", True), ("16777215.0", False)])
def test_float_seeds(seed: str, found: bool) -> None:
    model = parse(f"[u] u = RandomUniformLike <seed = {seed}> (x) y = Mul (x, u)")
    assert rules(model) == ([("float-seed", ("u",))] if found else [])


def test_random_ops_inside_if() -> None:
    body = """
        c = Constant <value = bool {1}> ()
        y = If (c) <then_branch = t () => (float[N, 4] a) { [u] a = RandomUniformLike (x) },
                    else_branch = e () => (float[N, 4] b) { b = Identity (x) }>
    """
    assert rules(parse(body)) == [("random-in-if", ("u",))]


def test_functions_that_a_converter_lost() -> None:
    model = onnx.version_converter.convert_version(sd.attach(dropout_model(opset=18)), 19)
    assert sd.check(model) == []  # a kernel runs it
    found = sd.check(model, target="onnxruntime")
    assert [(finding.rule, finding.nodes) for finding in found] == [("lost-function", ("drop",))]
    model.graph.node[0].domain = "somebody.else"
    assert [rule for rule, _ in rules(model)] == ["lost-function"]


def test_a_node_that_the_definition_does_not_allow() -> None:
    model = ir.from_proto(sd.attach(dropout_model()))
    next(node for node in model.graph if node.name == "drop").attributes["ratio"] = ir.AttrFloat32("ratio", 2.0)
    (finding,) = sd.check(model)
    assert finding.message == "node 'drop': ratio is 2.0; it must lie in [0, 1]"


def test_files_that_no_runtime_can_load() -> None:
    assert {rule for rule, _ in rules(exported("keras3_net_text_cnn_mc.onnx"))} == {"invalid-op", "live-dropout"}


@pytest.mark.parametrize(
    ("head", "body", "found"),
    [
        (14, "[b] y, rm, rv = BatchNormalization <training_mode = 1> (x, s, b, m, v)", True),
        (14, "[b] y = BatchNormalization (x, s, b, m, v)", False),
        (9, "[b] y, rm, rv, sm, sv = BatchNormalization (x, s, b, m, v)", False),
        (9, "[b] h, rm, rv, sm, sv = BatchNormalization (x, s, b, m, v) y = Add (h, rm)", True),
        (6, "[b] y = BatchNormalization (x, s, b, m, v)", True),
        (6, "[b] y = BatchNormalization <is_test = 1> (x, s, b, m, v)", False),
    ],
)
def test_batch_norm_in_training_mode(head: int, body: str, found: bool) -> None:
    weights = "float[4] s, float[4] b, float[4] m, float[4] v"
    model = parse(body, f'<ir_version: 9, opset_import: ["": {head}]> g (float[N, 4] x, {weights}) => (float[N, 4] y)')
    assert rules(model) == ([("training-batchnorm", ("b",))] if found else [])


@pytest.mark.parametrize(
    ("opset", "body", "message"),
    [
        (12, "[d] y = Dropout <ratio = 0.5> (x)",
         "Dropout has no attribute 'ratio' at opset 12: runtimes refuse the file"),
        (11, "[d] y = Dropout <ratio = 0.5> (x)", ""),
        (20, "[d] y = Dropuot (x)", "ONNX has no operator Dropuot at opset 20: runtimes refuse the file"),
        (10, "[d] y = Upsample <mode = \"nearest\"> (x, x)",
         "ONNX has no operator Upsample at opset 10: runtimes refuse the file"),
        (99, "[d] y = Dropuot (x)", ""),
        (19, "[d] y = Gelu (x)", "ONNX has no operator Gelu at opset 19: runtimes refuse the file"),
        (20, "[d] y = Gelu (x)", ""),
    ],
)  # fmt: skip
def test_what_onnx_does_not_have(opset: int, body: str, message: str) -> None:
    model = parse(body, HEAD.replace("20", str(opset)))
    assert [(found.rule, found.nodes, found.message) for found in sd.check(model)] == (
        [("invalid-op", ("d",), message)] if message else []
    )
    if message:
        with pytest.raises(Exception, match=r"Dropout|Dropuot|Upsample|Gelu"):
            onnxruntime.InferenceSession(model.SerializeToString())


def test_a_function_of_the_model_may_have_any_name() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 20, "own": 1]> g (float[4] x) => (float[4] y) { y = own.Dropuot (x) }'
        '<domain: "own", opset_import: ["": 20]> Dropuot (a) => (b) { b = Relu (a) }'
    )
    assert rules(model) == []


LIVE = """
    s = Shape (x) u = RandomUniformLike (x) r = Constant <value_float = 0.5> () t = Constant <value_float = {factor}> ()
    k = Less (u, r) m = CastLike (k, x) z = Mul (x, m) y = Mul (z, t)
"""


@pytest.mark.parametrize(("factor", "proven"), [(2.0, True), (3.0, False)])
def test_dropout_that_nothing_switches_off(factor: float, proven: bool) -> None:
    (finding,) = sd.check(parse(LIVE.format(factor=factor)))
    assert (finding.rule, finding.message.startswith("dropout that nothing switches off")) == ("live-dropout", proven)
    assert ("multiplied by 3" in finding.message) == (not proven)


def test_noise_that_masks_nothing_is_the_model() -> None:
    assert rules(parse("e = RandomNormalLike (x) y = Add (x, e)")) == []


def test_dropout_that_a_value_switches_is_fine() -> None:
    model = sd.fuse(parse(LIVE.format(factor=2.0)), elementwise=True)
    assert sd.check(model) == []
    bare = sd.expand(model, form="uniform")
    for node in bare.graph.node:
        del node.metadata_props[:]
    assert [rule for rule, _ in rules(bare) if rule == "live-dropout"] == []


def nodes() -> list[ir.Model]:
    """Return models with SpatialDropout nodes: fused from what exporters wrote, and our own."""
    fused = [fuse(exported(name), elementwise=True) for name, case in EXPORTED.items() if case["holds"] == "dropout"]
    return [
        *(model for model, report in fused if not report.refused),
        *(sd.load(zoo.path(name)) for name in zoo.RECORDED),
    ]


WRITTEN = set(FORMS) - {"standard"}  # which no runtime has


def test_what_we_write_has_no_findings() -> None:
    tried = Counter[str]()
    for model in nodes():
        written = {"node": model, "removed": sd.remove(model)}
        for form in ("attached", *WRITTEN):
            with contextlib.suppress(sd.FormError):  # an opset that is too old for it
                written[form] = sd.attach(model) if form == "attached" else sd.expand(model, form=form)
        for form, made in written.items():
            assert sd.check(made) == [], form
        tried.update(list(written))
    assert min(tried.values()) >= 10
    assert set(tried) == {"node", "removed", "attached", *WRITTEN}


def test_frozen_masks() -> None:
    assert rules(exported("torch_hand_ones_dropout_mul_train_static.onnx")) == [("frozen-mask", ("getitem",))]


def test_dangling_external_data(tmp_path: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    model = parse("y = Gemm (x, w)", HEAD.replace("[N, 4]", "[N, 64]"))
    model.graph.initializer.append(weights)
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    assert sd.check(path) == []
    (tmp_path / "w.bin").unlink()
    (finding,) = sd.check(path)
    assert (finding.rule, finding.nodes) == ("dangling-data", ("w",))
    assert "its data file 'w.bin' is missing" in finding.message


def test_a_file_that_is_no_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelFileError, match=r"no\.onnx"):
        sd.check(tmp_path / "no.onnx")


def test_the_callers_model_is_left_alone() -> None:
    model = onnx.load(exported("torch_net_mnistnet_train_static.onnx"))
    before = model.SerializeToString(deterministic=True)
    assert {rule for rule, _ in rules(model)} == {"deleted-dropout", "foldable-source", "live-dropout"}
    assert model.SerializeToString(deterministic=True) == before
