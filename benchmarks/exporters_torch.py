"""Export the networks of tests/export/torch_networks.py and write what came out: docs/exporters_torch.md.

With --record it also writes the small files with expected outputs that the tests check where torch is not installed.

    python benchmarks/exporters_torch.py [--record]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch
from export.torch_forced import run_forced
from export.torch_networks import NETWORKS, Network

import onnx_spatialdrop as sd
import onnx_spatialdrop.export.torch as sdt

TABLE = ROOT / "docs" / "exporters_torch.md"
DATA = ROOT / "tests" / "data" / "torch"
STEPS = (0, 5)
EXPORTERS: dict[str, dict[str, Any]] = {
    "dynamo": {"dynamic_shapes": ({0: "batch"},)},
    "TorchScript": {"dynamo": False, "input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}},
}
PACKAGES = ("torch", "onnxscript", "onnx", "onnx-ir", "onnxruntime")


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name).split("+")[0] for name in PACKAGES}


def expected(network: Network, model: ir.Model) -> dict[str, np.ndarray]:
    """Return an input, torch's output in inference, and with the masks of each step forced in."""
    x = network.input(batch=3)
    with torch.no_grad():
        arrays = {"x": x.numpy(), "inference": network.module().eval()(x).numpy()}
    for step in STEPS:
        output, masks = run_forced(network.module(), model, step, x)
        if masks != network.nodes:
            raise RuntimeError(f"{network.name}: {masks} masks were forced in, and there are {network.nodes} layers")
        arrays[f"step {step}"] = output.numpy()
    return arrays


def differences(model: ir.Model, arrays: dict[str, np.ndarray]) -> tuple[float, float]:
    """Return the largest absolute differences between ONNX Runtime and torch: in inference, and with masks."""
    session = sd.session(model)
    off = session.run(None, {"x": arrays["x"]})[0] - arrays["inference"]
    on = []
    for step in STEPS:
        feeds = {"x": arrays["x"], "training_mode": np.array(True), "step": np.array([step])}
        on.append(np.abs(session.run(None, feeds)[0] - arrays[f"step {step}"]).max())
    return float(np.abs(off).max()), float(max(on))


def without_traces(model: ir.Model) -> ir.Model:
    """Take torch's notes out, which name the folders of the machine that exported; ours stay."""
    for node in model.graph.all_nodes():
        for key in [key for key in node.metadata_props if not key.startswith("onnx_spatialdrop")]:
            del node.metadata_props[key]
    for value in [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    return model


def rows(record: bool) -> list[str]:
    """Export every network with both exporters; return the table's rows."""
    lines = []
    for network in NETWORKS:
        for exporter, arguments in EXPORTERS.items():
            x = network.input()
            model = sdt.export(network.module(), (x,), **arguments)
            assert isinstance(model, ir.Model)
            arrays = expected(network, model)
            off, on = differences(model, arrays)
            inference = sdt.export(network.module(), (x,), dropout="inference", **arguments)
            assert isinstance(inference, ir.Model)
            without_traces(model)
            if record and exporter == "dynamo":
                name = network.name.replace(" ", "_").lower()
                sd.save(model, DATA / f"{name}.onnx")
                np.savez_compressed(DATA / f"{name}.npz", allow_pickle=False, **arrays)
            size = len(ir.to_proto(model).SerializeToString())
            found = sd.find(model)
            axes = " ".join(str(list(each)) for each in sorted({each.axes for each in found}))
            rates = ", ".join(f"{each:g}" for each in sorted({round(each.ratio, 6) for each in found}))
            counts = f"{sum(1 for _ in model.graph.all_nodes())} / {sum(1 for _ in inference.graph.all_nodes())}"
            lines.append(
                f"| {network.name} | {exporter} | {len(found)} | {axes} | {rates} | {off:.1e} | {on:.1e} "
                f"| {counts} | {size:,} |"
            )
            print(lines[-1])
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table, and the recorded files where they are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="write tests/data/torch too")
    record = parser.parse_args(arguments).record
    warnings.simplefilter("ignore")
    DATA.mkdir(parents=True, exist_ok=True)
    lines = rows(record)
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    TABLE.write_text(
        "# torch networks, exported and compared\n\n"
        f"Written by `python benchmarks/exporters_torch.py` with {used}; float32, a batch of 3 through\n"
        "a model that was exported with a batch of 2.\n\n"
        "| network | exporter | SpatialDropout nodes | axes | rates | difference in inference "
        "| difference with the same masks | nodes, op / inference | bytes |\n"
        "|---|---|---|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n\n"
        "The differences are the largest absolute ones between ONNX Runtime and torch's own forward pass: in\n"
        f"inference mode, and with the masks that the file draws at steps {' and '.join(map(str, STEPS))} put into\n"
        "torch's dropouts. The networks are small, have random weights from fixed seeds, and are in\n"
        "`tests/export/torch_networks.py`.\n",
        encoding="utf-8",
    )
    if record:
        (DATA / "versions.json").write_text(json.dumps(versions(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
