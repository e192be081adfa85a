"""The fields of a file's graph are found wherever they stand, and what is not as protobuf writes it is refused."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from building import dropout_model
from google.protobuf.message import DecodeError
from onnx import helper

from onnx_spatialdrop.passes.plain import plain_inference
from onnx_spatialdrop.storage import wire
from onnx_spatialdrop.storage.spans import INFO, INPUT, NODE, Spans

MODELS = Path(__file__).parents[2] / "models"
GRAPH = 7
METADATA = b"\x82\x01\x08\x0a\x03key\x12\x01v"  # field 16: its tag takes two bytes


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of each field of a message of numbers and lengths."""
    position = 0
    while position < len(message):
        head = position
        tag, position = wire.number(message, position)
        size, position = wire.number(message, position)
        position += size if tag & 7 == wire.LENGTH else 0
        yield tag >> 3, message[head:position]


def split(content: bytes) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """Return the fields of a model but its graph, and those of its graph."""
    graph = onnx.ModelProto.FromString(content).graph.SerializeToString()
    return [each for each in fields(content) if each[0] != GRAPH], list(fields(graph))


def model_of(around: list[tuple[int, bytes]], graph: list[tuple[int, bytes]], at: int = 1) -> bytes:
    inside = b"".join(part for _, part in graph)
    whole = b":" + wire.varint(len(inside)) + inside
    return b"".join([part for _, part in around[:at]] + [whole] + [part for _, part in around[at:]])


def merged(parts: list[tuple[int, bytes]], rng: random.Random) -> list[tuple[int, bytes]]:
    """Return the fields in another order, in which those of one number follow each other as before."""
    places = rng.sample(range(len(parts)), len(parts))
    queues: dict[int, list[tuple[int, bytes]]] = {}
    for each in parts:
        queues.setdefault(each[0], []).append(each)
    return [queues[parts[place][0]].pop(0) for place in places]


def inference(content: bytes) -> bytes | None:
    found = plain_inference(content)
    return None if found is None else b"".join(found[0])


@pytest.mark.parametrize("name", ["digits_torch", "digits_float16"])
def test_the_order_of_fields_changes_nothing(name: str) -> None:
    content = (MODELS / f"{name}.onnx").read_bytes()
    expected, (around, graph) = inference(content), split(content)
    assert expected is not None
    for seed in range(20):
        rng = random.Random(seed)
        mixed = model_of(merged(around, rng), merged(graph, rng), rng.randrange(1, len(around) + 1))
        assert onnx.ModelProto.FromString(mixed) == onnx.ModelProto.FromString(content)
        assert inference(mixed) == expected


def test_what_is_found() -> None:
    model = dropout_model(wrap=True, mask=False)
    content = model.SerializeToString()
    spans = Spans(content)
    for tag, items in ((NODE, model.graph.node), (INFO, model.graph.value_info), (INPUT, model.graph.input)):
        rows = spans.of(tag)
        found = [content[start:end] for start, end in zip(spans.start[rows], spans.end[rows], strict=True)]
        assert found == [item.SerializeToString() for item in items]
    del model.graph.node[:], model.graph.value_info[:]
    assert spans.rest == model
    assert spans.holds(b"onnx_spatialdrop")
    assert not spans.holds(b"SpatialDropout")  # is in a node


def test_more_nodes_than_one_block_holds() -> None:
    count = 3 * wire._BLOCK // 2
    model = dropout_model(wrap=True, mask=False)
    last = model.graph.node[-1].output[0]
    for index in range(count):
        x, y = f"extra/{index - 1}" if index else last, f"extra/{index}"
        model.graph.node.append(helper.make_node("Identity", [x], [y], name=f"n{index}"))
    expected = onnx.ModelProto.FromString(inference(dropout_model(wrap=True, mask=False).SerializeToString()) or b"")
    expected.graph.node.extend(model.graph.node[-count:])
    assert onnx.ModelProto.FromString(inference(model.SerializeToString()) or b"") == expected


def test_one_node_that_is_not_allowed_among_many() -> None:
    """Nodes that differ in their seeds only are looked at once."""
    nodes = []
    for index in range(6):
        given = {"axes": [2, 3], "ratio": 0.25, "seed": (-3) ** (20 * index % 39), "scale": 4 / 3, "rng": "philox"}
        inputs, outputs = [f"d{index - 1}" if index else "x", "training_mode", "step"], [f"d{index}"]
        nodes.append(helper.make_node("SpatialDropout", inputs, outputs, domain="onnx_spatialdrop", **given))
    nodes.append(helper.make_node("Relu", ["d5"], ["y"]))
    model = dropout_model(wrap=True, mask=False)
    names = [value.name for value in (*model.graph.input, *model.graph.output)]
    assert {"x", "y"} <= set(names)
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    assert inference(model.SerializeToString()) is not None
    for node in model.graph.node[:6]:
        ratio = next(each for each in node.attribute if each.name == "ratio")
        for wrong in (2.0, float("nan")):
            ratio.f = wrong
            assert inference(model.SerializeToString()) is None
        ratio.f = 0.5
        assert inference(model.SerializeToString()) is not None
        seed = next(each for each in node.attribute if each.name == "seed")
        node.attribute.append(seed)
        assert inference(model.SerializeToString()) is None
        del node.attribute[-1]


def test_fields_after_one_of_a_long_tag() -> None:
    around, graph = split(dropout_model(wrap=True, mask=False).SerializeToString())
    content = model_of(around, [*graph, (16, METADATA)])
    written = onnx.ModelProto.FromString(inference(content) or b"")
    assert [(each.key, each.value) for each in written.graph.metadata_props] == [("key", "v")]
    assert inference(model_of(around, [(16, METADATA), *graph])) is None


@pytest.mark.parametrize("where", [0, 1, -1])
def test_a_length_of_more_bytes_than_it_takes_is_left_to_the_long_way(where: int) -> None:
    around, graph = split(dropout_model(wrap=True, mask=False).SerializeToString())
    number, part = graph[where]
    size, start = wire.number(part, 1)
    assert size == len(part) - start
    graph[where] = (number, part[: start - 1] + bytes((part[start - 1] | 0x80, 0)) + part[start:])
    content = model_of(around, graph)
    onnx.ModelProto.FromString(content)  # protobuf takes it
    with pytest.raises(ValueError, match="more bytes than it has to"):
        Spans(content)


def test_what_is_no_model_is_refused() -> None:
    content = dropout_model(wrap=True, mask=False).SerializeToString()
    around, graph = split(content)
    cut = [
        (number, part[:-1]) if place == len(graph) - 1 else (number, part) for place, (number, part) in enumerate(graph)
    ]
    for wrong in (
        b"",
        bytes(100),
        content[:-1],
        model_of(around, cut),
        content + content,
        b"\xff" * 50,
        b"\x0b" + content,
    ):
        with pytest.raises((ValueError, DecodeError)):
            Spans(wrong)


def test_endless_zeros_are_no_hang() -> None:
    """Two bytes of zeros look like a field without content."""
    with pytest.raises(ValueError, match="no model"):
        Spans(bytes(1 << 20))
    around, _ = split(dropout_model(wrap=True, mask=False).SerializeToString())
    with pytest.raises((ValueError, DecodeError)):
        Spans(model_of(around, [(0, bytes(1 << 24))]))
