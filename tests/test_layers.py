"""Imports go one way: operator, storage, io, graph, analysis, passes, kernels, runtime, export, verify, cli."""

import ast
from pathlib import Path

import onnx_spatialdrop

PACKAGE = Path(onnx_spatialdrop.__file__).parent
RANKS = {
    "errors": 0,
    "arguments": 0,
    "versions": 0,
    "gc_pause": 0,
    "metrics": 1,
    "operator": 1,
    "storage": 2,
    "io": 3,
    "graph": 4,
    "analysis": 5,
    "passes": 6,
    "kernels": 7,
    "runtime": 8,
    "montecarlo": 9,
    "plots": 10,
    "export": 9,
    "training": 9,
    "distributed": 10,
    "quantization": 10,
    "serving": 10,
    "integrations": 10,
    "verify": 10,
    "cli": 11,
    "__main__": 12,
}


def imports(file: Path) -> set[str]:
    """Return what a file of the package imports of the package: "passes", "operator", ..."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "onnx_spatialdrop" and len(parts) > 1:
                found.add(parts[1])
    return found & set(RANKS)


def test_no_layer_imports_one_above_it() -> None:
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        layer = file.relative_to(PACKAGE).with_suffix("").parts[0]
        if layer in RANKS:
            wrong += [f"{file.name} imports {name}" for name in imports(file) if RANKS[name] > RANKS[layer]]
    assert not wrong


def test_the_reader_sees_imports() -> None:
    assert {"graph", "io", "operator"} <= imports(PACKAGE / "passes" / "remove.py")
