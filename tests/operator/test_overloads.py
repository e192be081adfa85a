"""Why one function draws all dialects: functions that differ in their overload alone are not told apart everywhere."""

import numpy as np
import onnx
import onnxruntime
from building import dropout_model
from expanding import ort_session
from onnx.reference import ReferenceEvaluator

import onnx_spatialdrop as sd

TEXT = """
<ir_version: 10, opset_import: ["": 21, "d": 1]>
g (float[1] x) => (float[1] one, float[1] two) {
  one = d.F:single (x)
  two = d.F:twofold (x)
}
<domain: "d", overload: "single", opset_import: ["": 21]>
F (x) => (y) { y = Identity (x) }
<domain: "d", overload: "twofold", opset_import: ["": 21]>
F (x) => (y) { y = Add (x, x) }
"""


def test_overloads_are_mistaken_for_each_other_and_attach_writes_none() -> None:
    """Onnx's ReferenceEvaluator takes the last one for all; so does ONNX Runtime up to 1.23, which 1.31 does not."""
    model = onnx.parser.parse_model(TEXT)
    feeds = {"x": np.ones(1, np.float32)}
    assert [float(each[0]) for each in ReferenceEvaluator(model).run(None, feeds)] == [2.0, 2.0]  # the trap
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 31):
        assert [float(each[0]) for each in ort_session(model).run(None, feeds)] == [1.0, 2.0]
    attached = sd.attach(dropout_model(rng="keras_tf"))
    assert not any(function.overload for function in attached.functions)
    assert not any(node.overload for node in attached.graph.node)
