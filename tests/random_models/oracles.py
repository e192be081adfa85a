"""What has to hold of any model, found out by running: rewrites there and back, in memory and from file to file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import onnxruntime as ort
from random_models.models import Pair

import onnx_spatialdrop as sd
from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.fuse.policy import run as fuse
from onnx_spatialdrop.passes.fuse.report import Record

__all__ = ["problems", "problems_of_file"]

_RANDOM = ("RandomUniform", "RandomUniformLike", "RandomNormalLike", "Bernoulli", "Dropout", spec.OP_TYPE)
_PARTS = ("node", "initializer", "input", "output")
_TOLERANCE = {"float16": 2e-2, "float32": 1e-4, "float64": 1e-6}


def problems(pair: Pair) -> Iterator[str]:
    """Yield what does not hold of a random model; nothing where all is well."""
    expected = run(pair.plain, pair)
    clean = sd.to_inference(pair.model)
    yield from _whole("to_inference", clean, pair)
    yield from _equal("to_inference", clean, pair, expected)
    if not pair.lies:
        left = [node.op_type for node in _nodes(clean) if node.op_type in _RANDOM and _first(node) not in pair.kept]
        yield from (f"to_inference leaves {op_type}" for op_type in left)
    if sd.to_inference(clean) != clean:
        yield "to_inference finds more in a second run"
    yield from _paths(clean, pair.model)
    fused, report = fuse(pair.model, elementwise=True, bernoulli=True)
    yield from _whole("fuse", fused, pair, new=("training_mode", "step"))
    yield from _equal("fuse and remove", sd.remove(fused), pair, expected)
    if not pair.lies:
        yield from (f"refused: {record.reason}" for record in report.refused if _is_wanted(record, pair))
    yield from _there_and_back(fused)
    yield from _inserted(pair.plain)


def problems_of_file(model: onnx.ModelProto) -> Iterator[str]:
    """Yield what does not hold of a model of which nothing is known; nothing where all is well."""
    clean = sd.to_inference(model)
    yield from _interface("to_inference", clean, model)
    if sd.to_inference(clean) != clean:
        yield "to_inference finds more in a second run"
    yield from _paths(clean, model)
    fused, report = fuse(model, elementwise=True, bernoulli=True)
    yield from _interface("fuse", fused, model, new=("training_mode", "step"))
    again, more = fuse(fused, elementwise=True, bernoulli=True)
    if more.fused or [record.reason for record in more.refused] != [record.reason for record in report.refused]:
        yield "fuse finds something else in a second run"
    if _attributes(again) != _attributes(fused):
        yield "fuse changes its own nodes"
    yield from _there_and_back(fused)


def run(model: onnx.ModelProto, pair: Pair) -> np.ndarray:
    """Return the first output, without what only looks like dropout and without what the file says of shapes."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.output[1:], bare.graph.value_info[:]
    nodes = [node for node in bare.graph.node if _first(node) not in pair.kept]
    del bare.graph.node[:]
    bare.graph.node.extend(nodes)
    feeds = {value.name: pair.feeds[value.name] for value in bare.graph.input if value.name in pair.feeds}
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(bare.SerializeToString(), options)
    except ort.capi.onnxruntime_pybind11_state.NotImplemented:  # operators without a kernel for the type
        with np.errstate(all="ignore"):
            return onnx.reference.ReferenceEvaluator(bare).run(None, feeds)[0]
    return session.run(None, feeds)[0]


def _first(node: onnx.NodeProto) -> str:
    return node.output[0]


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield every node, subgraphs and functions included."""
    stack = [list(model.graph.node), *(list(function.node) for function in model.functions)]
    while stack:
        for node in stack.pop():
            yield node
            stack += [list(attribute.g.node) for attribute in node.attribute if attribute.HasField("g")]


def _is_wanted(record: Record, pair: Pair) -> bool:
    """Return whether a refused draw is one that is dropout, and on."""
    kept = {pair.kept[output].name or f"computes '{output}'" for output in pair.kept}
    source = record.nodes[0]
    return "does nothing" not in record.reason and not any(source == name or source.endswith(name) for name in kept)


def _whole(verb: str, model: onnx.ModelProto, pair: Pair, new: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield what is wrong with what ``verb`` made of a random model, but for its numbers."""
    yield from _interface(verb, model, pair.model, new)
    nodes = {_first(node): node for node in model.graph.node}
    changed = [name for name, node in pair.kept.items() if nodes.get(name) != node]
    yield from (f"{verb} changes {name}, which is no dropout" for name in changed)


def _interface(verb: str, model: onnx.ModelProto, given: onnx.ModelProto, new: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield what is wrong with what ``verb`` made of the model ``given``, as far as anybody outside can see."""
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        yield f"{verb}: {str(error).splitlines()[0]}"
    if _signatures(model.graph.output) != _signatures(given.graph.output):
        yield f"{verb} changes the outputs"
    read = {name for node in _nodes(model) for name in node.input}
    booleans = {value.name for value in given.graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.BOOL}
    fed = [value for value in _fed(given, model) if value.name not in booleans - read]  # Ifs may have gone
    before, after = (
        _signatures(fed),
        _signatures(value for value in model.graph.input if not _is_new(value, given, model)),
    )
    switches = ("training_mode", "step", "spatial_dropout/training_mode", "spatial_dropout/step")
    if [value for value in before if value[0] not in switches] != [
        value for value in after if value[0] not in switches
    ]:
        yield f"{verb} changes the inputs"
    if not {value[0] for value in after if value not in before} <= set(new):
        yield f"{verb} adds inputs"
    if (model.producer_name, model.doc_string, list(model.metadata_props)) != (
        given.producer_name,
        given.doc_string,
        list(given.metadata_props),
    ):
        yield f"{verb} changes the metadata"


def _is_new(value: onnx.ValueInfoProto, given: onnx.ModelProto, model: onnx.ModelProto) -> bool:
    """Return whether a value is a constant that was not there before IR version 4, in which it is an input as well."""
    made = value.name in {tensor.name for tensor in model.graph.initializer}
    return model.ir_version < 4 and made and value.name not in {each.name for each in given.graph.input}


def _signatures(values: Iterable[onnx.ValueInfoProto]) -> list[tuple[str, bytes]]:
    return [(value.name, value.type.SerializeToString(deterministic=True)) for value in values]


def _fed(given: onnx.ModelProto, model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs of ``given``, of those that are initializers such as are left; none where IR 3 was raised."""
    raised = given.ir_version < 4 <= model.ir_version
    left = {tensor.name for tensor in model.graph.initializer if not raised}
    weights = {tensor.name for tensor in given.graph.initializer} - left
    return [value for value in given.graph.input if value.name not in weights]


def _equal(verb: str, model: onnx.ModelProto, pair: Pair, expected: np.ndarray) -> Iterator[str]:
    got, tolerance = run(model, pair), _TOLERANCE[str(expected.dtype)]
    if got.shape != expected.shape or not np.allclose(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
        yield f"{verb} is not the model without dropout"


def _paths(clean: onnx.ModelProto, given: onnx.ModelProto) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.onnx"), Path(folder, "out.onnx")
        source.write_bytes(given.SerializeToString())
        sd.to_inference(source, target)
        written = onnx.load(target)
        for part in _PARTS:
            pair = (ir.to_proto(ir.from_proto(model)).graph for model in (written, clean))  # empty fields go
            if len({str(getattr(graph, part)) for graph in pair}) > 1:
                yield f"to_inference from path to path has other {part}s than in memory"


def _there_and_back(fused: onnx.ModelProto) -> Iterator[str]:
    before = _attributes(fused)
    # A function that is handed its switches says no types of them, so that what it was is found in its calls only.
    handed = any(spec.OP_TYPE in {node.op_type for node in f.node} and len(f.input) > 1 for f in fused.functions)
    for form in () if handed else ("uniform", "philox"):
        try:
            written = sd.expand(fused, form=form)
        except FormError:
            continue
        back, report = fuse(written)
        if _attributes(back) != before:
            yield f"fuse, expand to {form} and fuse again: {len(report.fused)} of {len(before)} nodes"
    try:
        back = sd.detach(sd.attach(fused))
    except FormError:
        return
    if any(list(getattr(back.graph, part)) != list(getattr(fused.graph, part)) for part in _PARTS):
        yield "attach and detach"


def _attributes(model: onnx.ModelProto) -> list[spec.Attributes]:
    given = ir.from_proto(model)
    graphs = [given.graph, *given.functions.values()]
    return [op.read(node) for graph in graphs for node in graph.all_nodes() if op.is_spatial_dropout(node)]


def _inserted(plain: onnx.ModelProto) -> Iterator[str]:
    places = [_first(node) for node in plain.graph.node if node.op_type in ("Relu", "Conv", "Tanh", "MatMul")]
    if plain.opset_import[0].version < 7 or not places:
        return
    given = ir.to_proto(ir.from_proto(plain))
    back = sd.remove(sd.insert(given, after=places[:1], rate=0.5, axes=[]))
    if [node.op_type for node in back.graph.node] != [node.op_type for node in given.graph.node]:
        yield "insert and remove"
