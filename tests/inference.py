"""Models as text, made inference models in both ways that there are, and run."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.backend.test.loader
import onnx.parser
import onnx_ir as ir
import onnxruntime

import onnx_spatialdrop as sd

RANDOM = np.random.default_rng(0)


def parse(text: str, opset: int = 18, ir_version: int = 9) -> onnx.ModelProto:
    domains = "".join(f', "{domain}": 1' for domain in ("onnx_spatialdrop", "f") if f"{domain}." in text)
    return onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["": {opset}{domains}]> {text}')


def both_ways(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the inference model, which is the same for a ModelProto and for an ir.Model, and stays what it is."""
    got = sd.to_inference(model)
    through_ir = ir.to_proto(sd.to_inference(ir.from_proto(model)))
    assert [n.op_type for n in got.graph.node] == [n.op_type for n in through_ir.graph.node]
    assert [v.name for v in got.graph.input] == [v.name for v in through_ir.graph.input]
    assert [v.name for v in got.graph.initializer] == [v.name for v in through_ir.graph.initializer]
    again = sd.to_inference(got)
    assert again.SerializeToString(deterministic=True) == got.SerializeToString(deterministic=True)
    return got


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def results(model: onnx.ModelProto, **feeds: Any) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def with_half(body: str) -> onnx.ModelProto:
    return parse(f"g (float[2,3] x) => (float[2,3] y) <float half = {{0.5}}> {{ {body} }}")
