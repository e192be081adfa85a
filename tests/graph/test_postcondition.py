"""What holds after every rewrite: broken here on purpose, one thing at a time."""

from __future__ import annotations

import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnx_spatialdrop.errors import PostconditionError
from onnx_spatialdrop.graph.postcondition import Interface, check
from onnx_spatialdrop.passes.fuse.policy import run as fuse
from onnx_spatialdrop.passes.fuse.rewriter import Rewriter

TEXT = """<ir_version: 10, opset_import: ["" : 18]> g (float[N,4] x, float[4] w) => (float[N,4] y) {
    h = Add (x, w)  y = Neg (h) }"""
DROPOUT = """<ir_version: 10, opset_import: ["" : 18]> g (float[2,4,5,6] x) => (float[2,4,5,6] y) {
    u = RandomUniform <shape = [2, 4, 1, 1]> ()  k = Constant <value_float = 0.5> ()  b = Less (u, k)
    m = Cast <to = 1> (b)  s = Div (m, k)  y = Mul (x, s) }"""


def model() -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(TEXT))


def rename(given: ir.Model) -> None:
    given.graph.outputs[0].name = "z"


def retype(given: ir.Model) -> None:
    given.graph.outputs[0].type = ir.TensorType(ir.DataType.FLOAT16)


def reshape(given: ir.Model) -> None:
    given.graph.inputs[0].shape = ir.Shape([3, 4])


def drop_input(given: ir.Model) -> None:
    given.graph.inputs.pop(1)


def add_input(given: ir.Model) -> None:
    given.graph.inputs.append(ir.Value(name="idle", type=ir.TensorType(ir.DataType.BOOL)))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (rename, "the outputs became 'z'"),
        (retype, "the outputs became 'y' .FLOAT16"),
        (reshape, "the input 'x' became"),
        (drop_input, "the input 'w' is gone"),
        (add_input, "the input 'idle' is new, and nothing reads it"),
    ],
)
def test_another_interface_is_named(change, found: str) -> None:  # type: ignore[no-untyped-def]
    given = model()
    before = Interface.of(given)
    check(given, before)
    change(given)
    with pytest.raises(PostconditionError, match=found):
        check(given, before)


def test_a_switch_that_only_removed_nodes_read_may_leave() -> None:
    given = ir.from_proto(
        onnx.parser.parse_model(TEXT.replace("float[4] w", "bool w").replace("Add (x, w)", "Where (w, x, x)"))
    )
    before = Interface.of(given)
    drop_input(given)
    check(given, before)


def test_a_node_that_should_be_gone_is_named() -> None:
    given = model()
    with pytest.raises(PostconditionError, match="'h' .Add. is still there") as error:
        check(given, Interface.of(given), gone=[given.graph[0]])
    assert error.value.node is given.graph[0]


def test_fuse_leaves_alone_what_it_cannot_take_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the cleaning up switched off, random nodes live on: then nothing is changed, and the reason is given."""
    monkeypatch.setattr(Rewriter, "finish", lambda _: None)
    given = onnx.parser.parse_model(DROPOUT)
    fused, report = fuse(given)
    assert [node.op_type for node in fused.graph.node] == [node.op_type for node in given.graph.node]
    assert report.fused == []
    assert [record.reason.endswith("is still there") for record in report.refused] == [True]
    monkeypatch.undo()
    assert len(fuse(given)[1].fused) == 1
