"""What a file loses when a verb rewrites it that has nothing to do in it."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

__all__ = ["losses"]


def losses(before: onnx.ModelProto, after: onnx.ModelProto) -> list[str]:
    """Return what ``after`` lacks of ``before``: nodes, weights, inputs, outputs, functions, metadata.

    Left out is what docs/architecture.md says of passing through onnx_ir: the domain's second name, and value_info.
    """
    _rename(before)
    _rename(after)
    pairs = {
        "nodes": (before.graph.node, after.graph.node),
        "initializers": (before.graph.initializer, after.graph.initializer),
        "inputs": (_named(before.graph.input), _named(after.graph.input)),
        "outputs": (_named(before.graph.output), _named(after.graph.output)),
        "functions": (
            [list(_bytes(f.node)) for f in before.functions],
            [list(_bytes(f.node)) for f in after.functions],
        ),
        "metadata": (_properties(before), _properties(after)),
        "opsets": (_imports(before), _imports(after)),
    }
    return [what for what, (old, new) in pairs.items() if list(_bytes(old)) != list(_bytes(new))]


def _bytes(items: Iterable[object]) -> Iterable[object]:
    for item in items:
        yield item.SerializeToString(deterministic=True) if hasattr(item, "SerializeToString") else item


def _named(values: Iterable[onnx.ValueInfoProto]) -> list[str]:
    return [value.name for value in values]


def _properties(model: onnx.ModelProto) -> list[tuple[str, str]]:
    return sorted((entry.key, entry.value) for entry in model.metadata_props)


def _imports(model: onnx.ModelProto) -> list[tuple[str, int]]:
    return sorted({("" if entry.domain == "ai.onnx" else entry.domain, entry.version) for entry in model.opset_import})


def _rename(model: onnx.ModelProto) -> None:
    graphs = [model.graph.node, *(function.node for function in model.functions)]
    while graphs:
        for node in graphs.pop():
            node.domain = "" if node.domain == "ai.onnx" else node.domain
            for field in ("doc_string", "domain", "name", "overload"):
                if not getattr(node, field):
                    node.ClearField(field)  # written out or not, it is empty
            entries = sorted((entry.key, entry.value) for entry in node.metadata_props)
            del node.metadata_props[:]
            for key, value in entries:
                node.metadata_props.add(key=key, value=value)
            for attribute in node.attribute:
                if not attribute.doc_string:
                    attribute.ClearField("doc_string")
                field = {attribute.FLOAT: "f", attribute.INT: "i", attribute.STRING: "s"}.get(attribute.type)
                if field is not None and not attribute.ref_attr_name:
                    setattr(attribute, field, getattr(attribute, field))  # left out, it is 0
                for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                    del graph.value_info[:]
                    graphs.append(graph.node)
