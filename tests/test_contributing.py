"""What CONTRIBUTING.md promises of first changes: the one that it shows is there, and each takes two files at most."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnx_spatialdrop

ROOT = Path(__file__).parents[1]
PACKAGE = Path(onnx_spatialdrop.__file__).parent


def diffs() -> dict[str, tuple[str, str]]:
    """Return what stood in each file of the diffs in CONTRIBUTING.md, and what stands there now."""
    found = {}
    for block in re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL):
        lines = [line.removeprefix("   ") for line in block.splitlines()]
        name = next(line for line in lines if line.startswith("+++ b/"))[len("+++ b/") :]
        body = [line for line in lines if line.strip() and not line.startswith(("---", "+++"))]
        was, now = ("\n".join(line[1:] for line in body if line[0] != sign) for sign in "+-")
        found[name] = was, now
    return found


def copied(folder: Path) -> Path:
    copy = folder / "onnx_spatialdrop"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("models", "__pycache__", "*.so"))
    return copy


def run(folder: Path, program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def put(file: Path, before: str, row: str) -> None:
    """Put a row into a table, before another one."""
    text = file.read_text()
    assert text.count(before) == 1
    file.write_text(text.replace(before, f"{row}{before}"))


FUSE = """
import onnx.parser, onnx_spatialdrop as sd
model = onnx.parser.parse_model('''<ir_version: 10, opset_import: ["" : 18]>
g (float[N,4] x) => (float[N,4] y) <float k = {0.75}, float e = {2.0}> {
  u = RandomUniformLike (x) a = Mean (u, k) c = Mul (a, e) f = Floor (c) s = Div (f, k) y = Mul (x, s)
}''')
print([node.op_type for node in sd.fuse(model, elementwise=True).graph.node])
"""


def test_the_spelling_that_is_shown_is_what_its_diff_made_it(tmp_path: Path) -> None:
    shown = diffs()
    assert [name for name in shown if not name.startswith("tests/")] == ["onnx_spatialdrop/graph/ops.py"]
    for name, (was, now) in shown.items():
        text = ((PACKAGE.parent if name.startswith(PACKAGE.name) else ROOT) / name).read_text()
        assert now in text
        assert was not in text
    copy = copied(tmp_path)
    assert "SpatialDropout" in run(tmp_path, FUSE)
    file = copy / "graph" / "ops.py"
    was, now = shown["onnx_spatialdrop/graph/ops.py"]
    file.write_text(file.read_text().replace(now, was))
    assert "SpatialDropout" not in run(tmp_path, FUSE)


def test_a_form_is_a_file_and_its_rows_in_a_table(tmp_path: Path) -> None:
    expand = copied(tmp_path) / "passes" / "expand"
    (expand / "again.py").write_text("from onnx_spatialdrop.passes.expand.uniform import lower\n")
    put(expand / "targets.py", '    "identity": "",\n', '    "again": "again.lower",\n')
    put(expand / "targets.py", '    "uniform": (9, 21),', '    "again": (9, 21),\n')
    program = """
import onnx_spatialdrop as sd, onnx.parser
model = onnx.parser.parse_model('''<ir_version: 10, opset_import: ["" : 18]>
g (float[2,4,5] x) => (float[2,4,5] y) { y = Relu (x) }''')
expanded = sd.expand(sd.insert(model, after="y"), form="again")
print([node.op_type for node in expanded.graph.node][:3])
"""
    assert "RandomUniform" in run(tmp_path, program)


def test_a_verb_is_a_file_and_its_row_in_a_table(tmp_path: Path) -> None:
    cli = copied(tmp_path) / "cli"
    (cli / "count.py").write_text("""
from onnx_spatialdrop.cli.verbs import added
def add(verbs):
    verb = added(verbs, "count")
    verb.add_argument("words", nargs="+")
    verb.set_defaults(run=lambda arguments: print(len(arguments.words)) or 0)
""")
    put(cli / "verbs.py", '    "doctor": (', '    "count": ("count", "count words"),\n')
    program = "from onnx_spatialdrop.cli import main; main({})"
    assert run(tmp_path, program.format(["count", "a", "b"])) == "2\n"
    assert "count words" in run(tmp_path, program.format([]))
