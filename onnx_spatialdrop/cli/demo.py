"""``demo``: a trained CNN from its exporter to inference, to training graphs and to sessions, each step checked.

It works on models/: in this folder, or as they were installed with the package. It writes no file.
"""

from __future__ import annotations

import argparse
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

import onnx_spatialdrop
from onnx_spatialdrop import io
from onnx_spatialdrop.cli import demo_uncertainty
from onnx_spatialdrop.cli.terminal import print_json, refuse, screen, show, table
from onnx_spatialdrop.cli.verbs import Verbs, added
from onnx_spatialdrop.errors import ModelFileError, SpatialDropError
from onnx_spatialdrop.operator import reference
from onnx_spatialdrop.passes.expand import expand
from onnx_spatialdrop.passes.find import find
from onnx_spatialdrop.passes.fuse import explain, fuse
from onnx_spatialdrop.passes.to_inference import to_inference
from onnx_spatialdrop.runtime.session import KERNELS, choose, session
from onnx_spatialdrop.storage import arrays

__all__ = ["add"]

_RECORD = "digits_torch.npz"
_DRAWN_BY = {
    "uniform": "RandomUniformLike",
    "dropout": "Dropout on ones",
    "philox": "Philox in integers",
}
Array = npt.NDArray[Any]


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = added(verbs, "demo")
    verb.add_argument("--models", metavar="FOLDER", help="where digits_torch.onnx lies (default: the installed models)")
    verb.set_defaults(run=_run)


@dataclass
class _Demo:
    """The material, and the claims so far: whether each holds, and those that do not."""

    folder: Path
    images: Array
    labels: Array
    logits: Array
    failed: list[str] = field(default_factory=list)
    claims: dict[str, bool] = field(default_factory=dict)

    def check(self, holds: bool, claim: str) -> str:
        self.claims[claim] = bool(holds)
        if not holds:
            self.failed.append(claim)
        return "yes" if holds else "NO"

    def accuracy(self, logits: Array) -> float:
        return float((logits.argmax(axis=1) == self.labels).mean())


def _run(arguments: argparse.Namespace) -> int:
    folder = _models(arguments.models)
    screen.quiet = arguments.json
    try:
        demo = _told(folder)
    except (SpatialDropError, BrokenPipeError):
        raise
    except Exception as error:
        raise ModelFileError(f"{folder}: the demo cannot go on with what lies there: {io.first_line(error)}") from error
    finally:
        screen.quiet = False
    if arguments.json:
        print_json({"models": str(folder), "claims": demo.claims})
    if demo.failed:
        refuse(f"{folder}: the demo does not hold: {'; '.join(demo.failed)}")
    return 1 if demo.failed else 0


def _told(folder: Path) -> _Demo:
    """Go through everything, and return what holds and what does not."""
    recorded: Any = arrays.read(folder / _RECORD, "holds no arrays; models/build.py writes it")
    demo = _Demo(folder, recorded["images"], recorded["labels"], recorded["logits"])
    show(f"{len(demo.images)} handwritten digits that the network has not seen; models in", f"  {folder}", "")
    _to_inference(demo)
    _training_graphs(demo)
    _sessions(demo)
    demo.check(demo_uncertainty.of_digits(demo.folder, demo.images, demo.labels), "less sure of digits it gets wrong")
    demo.check(demo_uncertainty.of_pixels(demo.folder), "less sure of pixels it gets wrong")
    return demo


def _models(chosen: str | None) -> Path:
    package = Path(onnx_spatialdrop.__file__).parent
    places = [Path(chosen)] if chosen else [package / "models", package.parent / "models", Path("models")]
    for place in places:
        if (place / _RECORD).is_file():
            return place
    raise ModelFileError(f"{_RECORD} is not in {' or '.join(map(str, places))}; point --models at the models folder")


def _to_inference(demo: _Demo) -> None:
    """The exporter's training-mode file becomes the file that it writes in eval mode."""
    trained = demo.folder / "digits_torch_train_export.onnx"
    model, report = fuse(trained), explain(trained)
    assert isinstance(model, ir.Model)
    tangle = Counter(node.op_type for node in io.load(trained).graph)
    rows = [
        (record.name, str(list(record.axes or ())), f"{record.ratio:g}", f"{len(record.nodes)} nodes")
        for record in report.fused
    ]
    show("1. What the exporter wrote in training mode", *_listed(tangle), "")
    table("fuse recognises in it", ("SpatialDropout", "axes", "ratio", "written as"), rows)
    clean, eval_export = to_inference(trained), io.load(demo.folder / "digits_torch_eval_export.onnx")
    assert isinstance(clean, ir.Model)
    got = session(clean).run(None, {clean.graph.inputs[0].name: demo.images})[0]
    difference = float(np.abs(got - demo.logits).max())
    claims = [
        ("accuracy is PyTorch's", demo.accuracy(got) == demo.accuracy(demo.logits), f"{demo.accuracy(got):.4f}"),
        ("logits equal PyTorch's to float rounding", difference < 1e-4, f"largest difference {difference:.1e}"),
        (
            "no node more than the exporter's own eval file",
            clean.graph.num_nodes() <= eval_export.graph.num_nodes(),
            f"{clean.graph.num_nodes()} and {eval_export.graph.num_nodes()}",
        ),
    ]
    table("to-inference", ("claim", "holds", "measured"), [(c, demo.check(h, c), m) for c, h, m in claims])


def _exposed(demo: _Demo) -> tuple[ir.Model, list[Any]]:
    """Return digits_torch.onnx with what each node drops from and to as further outputs, and its nodes."""
    model = io.load(demo.folder / "digits_torch.onnx")
    nodes = find(model)
    for each in nodes:
        model.graph.outputs.extend(value for value in (each.node.inputs[0], each.node.outputs[0]) if value is not None)
    return model, nodes


def _dropped_maps(before: Array, after: Array) -> tuple[int, int, bool]:
    """Return how many maps with something in them were dropped, how many there were, and whether all went whole."""
    alive = np.abs(before).max(axis=(2, 3)) > 0
    zeroed = np.abs(after).max(axis=(2, 3)) == 0
    partly = ((after == 0) & (before != 0)).any(axis=(2, 3)) & ~zeroed
    return int((alive & zeroed).sum()), int(alive.sum()), not partly.any()


def _training_graphs(demo: _Demo) -> None:
    """Each form drops whole maps at the ratio; philox drops the operator's own."""
    rows = []
    for form in ("uniform", "dropout", "philox"):
        model, nodes = _exposed(demo)
        standard = expand(model, form=form, target="onnxruntime")
        assert isinstance(standard, ir.Model)
        run = session(standard)
        offered = {value.name for value in run.get_overridable_initializers()}
        feeds = {"training_mode": np.array(True), "step": np.array([5])}
        outputs = run.run(None, {"image": demo.images} | {k: v for k, v in feeds.items() if k in offered})[1:]
        counts = [_dropped_maps(x, y) for x, y in zip(outputs[::2], outputs[1::2], strict=True)]
        dropped, maps = sum(count[0] for count in counts), sum(count[1] for count in counts)
        ratio = nodes[0].ratio
        near = abs(dropped - maps * ratio) < 5 * np.sqrt(maps * ratio * (1 - ratio))
        exact = all(_same_maps(each, x, y) for each, x, y in zip(nodes, outputs[::2], outputs[1::2], strict=True))
        rows.append(
            (
                form,
                _DRAWN_BY[form],
                str(standard.graph.num_nodes()),
                demo.check(all(count[2] for count in counts), f"{form} drops whole maps"),
                demo.check(near, f"{form} drops {ratio:g} of the maps") + f" {dropped / maps:.3f}",
                demo.check(exact, "philox has the reference's bits") if form == "philox" else "its own numbers",
            )
        )
    show("2. Training graphs in standard operators", "")
    table("expand", ("form", "drawn by", "nodes", "whole maps", "0.3 of them", "exact bits"), rows)


def _same_maps(each: Any, before: Array, after: Array) -> bool:
    expected, _ = reference.spatial_dropout(before, each.axes, each.ratio, each.seed, 5, True, each.scale)
    return bool(np.array_equal(after, expected))


def _sessions(demo: _Demo) -> None:
    """Every kernel gives the same bits; without feeds the file is the inference model."""
    rows, missing, per_sample = [], [], np.arange(len(demo.images))
    for kernel in KERNELS:
        try:
            choose(kernel)
        except onnx_spatialdrop.KernelError as error:
            rows.append((kernel, "-", "-", "-", "-"))
            missing.append(str(error))
            continue
        model, nodes = _exposed(demo)
        run = session(model, kernel)
        idle = run.run(["logits"], {"image": demo.images})[0]
        on = {"image": demo.images, "training_mode": np.array(True)}
        outputs = run.run(None, on | {"step": np.array([5])})[1:]
        exact = all(_same_maps(each, x, y) for each, x, y in zip(nodes, outputs[::2], outputs[1::2], strict=True))
        whole = run.run(None, on | {"step": per_sample})[2]
        part = run.run(None, on | {"image": demo.images[100:140], "step": per_sample[100:140]})[2]
        fresh = [run.run(None, on)[2] for _ in range(2)]
        rows.append(
            (
                kernel,
                demo.check(demo.accuracy(idle) == demo.accuracy(demo.logits), f"{kernel}: inference by default"),
                demo.check(exact, f"{kernel}: the reference's bits"),
                demo.check(np.array_equal((whole == 0)[100:140], part == 0), f"{kernel}: independent of batching"),
                demo.check(not np.array_equal(*fresh), f"{kernel}: a fresh draw every run"),
            )
        )
    show("3. Sessions that drop maps", "")
    columns = ("kernel", "off by default", "exact bits", "same in any batch", "fresh draws")
    table("session(model, kernel)", columns, rows)
    for reason in missing:
        show(reason)


def _listed(counts: Counter[str]) -> list[str]:
    text = ", ".join(f"{count}\0{name}" for name, count in sorted(counts.items()))
    return [f"   {line}".replace("\0", " ") for line in textwrap.wrap(text, 76)]
