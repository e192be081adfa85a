"""The model's two switches: made once, reused, and kept apart from what only has their names."""

import numpy as np
import onnx_ir as ir
import pytest

from onnx_spatialdrop.graph.controls import add_switches, constant_of, is_switch


def graph(*inputs: ir.Value) -> ir.Graph:
    return ir.Graph(list(inputs), [], nodes=[], opset_imports={"": 18}, name="g")


def test_switches_are_made_once() -> None:
    g = graph()
    training_mode, step = add_switches(g)
    assert [value.name for value in g.inputs] == ["training_mode", "step"]
    assert all(is_switch(value) for value in g.inputs)
    assert (training_mode.const_value.numpy().tolist(), step.const_value.numpy().tolist()) == (False, [-1])
    assert add_switches(g, training_mode=True) == (training_mode, step)
    assert constant_of(training_mode) is None  # its default is no promise


def test_an_input_of_that_name_and_another_type_is_left_alone() -> None:
    other = ir.val("training_mode", dtype=ir.DataType.FLOAT, shape=[])
    other.const_value = ir.tensor(np.zeros((), np.float32), name="training_mode")
    g = graph(other)
    training_mode, _ = add_switches(g)
    assert training_mode.name == "spatial_dropout/training_mode"
    assert training_mode.dtype == ir.DataType.BOOL


def test_names_that_are_all_taken_are_an_error() -> None:
    taken = [ir.val(name, dtype=ir.DataType.FLOAT, shape=[]) for name in ("step", "spatial_dropout/step")]
    with pytest.raises(ValueError, match="the names 'step' and 'spatial_dropout/step' are both taken; rename those"):
        add_switches(graph(*taken))
