"""Nodes out of topological order are sorted, and no more than that: who stands right stays where it is."""

import random
from pathlib import Path

import onnx
import onnx.parser
import pytest

import onnx_spatialdrop as sd
from onnx_spatialdrop.cli import main
from onnx_spatialdrop.errors import ModelFileError, ModelFileWarning
from onnx_spatialdrop.storage.order import sort_nodes

HEAD = '<ir_version: 9, opset_import: ["": 18]> g (float[N] x, bool c) => (float[N] y)'


def parse(body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEAD} {{ {body} }}")


def made(model: onnx.ModelProto) -> list[str]:
    return [node.output[0] for node in model.graph.node]


def test_what_is_read_too_early_moves_to_right_before_its_reader() -> None:
    model = parse("a = Abs(x) y = Add(a, q) b = Neg(x) q = Exp(p) p = Relu(x)")
    assert sort_nodes(model)
    assert made(model) == ["a", "p", "q", "y", "b"]
    assert not sort_nodes(model)


def test_what_a_branch_reads_its_if_reads() -> None:
    branch = "b () => (float[N] u) { u = Neg(late) }"
    other = "e () => (float[N] v) { own = Abs(x) v = Neg(own) }"
    model = parse(f"y = If(c) <then_branch = {branch}, else_branch = {other}> own = Exp(x) late = Relu(x)")
    assert sort_nodes(model)
    assert made(model) == ["late", "y", "own"]  # the branch's own is another one


def test_inside_branches_and_functions() -> None:
    branch = "b () => (float[N] u) { u = Neg(late) late = Abs(x) }"
    model = parse(f"y = If(c) <then_branch = {branch}, else_branch = e () => (float[N] v) {{ v = Neg(x) }}>")
    assert sort_nodes(model)
    assert [node.op_type for node in model.graph.node[0].attribute[0].g.node] == ["Abs", "Neg"]


def test_a_cycle_is_refused() -> None:
    model = parse("a = Add(x, b) b = Neg(a) y = Relu(b)")
    assert not sort_nodes(model)
    with pytest.raises(ModelFileError, match="reads 'b', which nothing before it computes"):
        sd.find(model)


def test_any_order_is_put_right() -> None:
    rng = random.Random(0)
    for _ in range(50):
        names, nodes = ["x"], []
        for index in range(12):
            nodes.append(onnx.helper.make_node("Add", [rng.choice(names), rng.choice(names)], [f"v{index}"]))
            names.append(f"v{index}")
        nodes.append(onnx.helper.make_node("Relu", [names[-1]], ["y"]))
        model = parse("y = Relu(x)")
        del model.graph.node[:]
        model.graph.node.extend(rng.sample(nodes, len(nodes)))
        sort_nodes(model)
        onnx.checker.check_model(model)


def test_every_verb_reads_such_files_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = parse("y = Neg(d) d = Dropout(h) h = Relu(x)")
    file = tmp_path / "m.onnx"
    onnx.save(model, file)
    with pytest.warns(ModelFileWarning, match="m.onnx: its nodes did not stand in topological order; they were sorted"):
        assert made(sd.save(sd.load(file), tmp_path / "s.onnx") and onnx.load(tmp_path / "s.onnx")) == ["h", "d", "y"]
    assert main(["inspect", str(file)]) == 0
    assert "they were sorted" in capsys.readouterr().err
    with pytest.warns(ModelFileWarning):
        sd.to_inference(file, tmp_path / "out.onnx")
    assert made(onnx.load(tmp_path / "out.onnx")) == ["h", "y"]
