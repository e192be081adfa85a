"""Record exported Keras networks, and write the table in docs/exporters_keras.md from the recordings.

    KERAS_BACKEND=tensorflow python tests/data/keras_exports/build.py record    (likewise jax, torch, if installed)
    python tests/data/keras_exports/build.py table                              (needs no Keras)

An .npz holds the input, Keras's inference output, and for two steps Keras's output with the reference's masks forced
into its own forward pass; versions.json says what wrote it.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
PACKAGES = (
    "keras",
    "tensorflow-cpu",
    "tensorflow",
    "tf2onnx",
    "jax",
    "jax2onnx",
    "torch",
    "onnxscript",
    "onnx",
    "onnx-ir",
)
START, END = "<!-- table: tests/data/keras_exports/build.py -->", "<!-- end of table -->"


def record() -> None:
    import keras
    from keras_networks import NETWORKS, STEPS, build, forced

    from onnx_spatialdrop.errors import SpatialDropError
    from onnx_spatialdrop.export import keras as sdk
    from onnx_spatialdrop.graph.scopes import spatial_dropouts
    from onnx_spatialdrop.operator import node as op

    backend = keras.backend.backend()
    for name in NETWORKS:
        model, x = build(name)
        try:
            exported = sdk.export(model, rng="philox")
        except SpatialDropError as error:
            print(f"{backend} {name}: {error}")
            continue
        sdk.export(model, HERE / f"{backend}_{name}.onnx", rng="philox")
        seeds: dict[str, list[int]] = {}
        for node in sorted((site.node for site in spatial_dropouts(exported)), key=lambda node: node.name or ""):
            seeds.setdefault((node.name or "").split(":")[0].split("/")[-1], []).append(op.read(node).seed)
        arrays = {"x": x, "inference": keras.ops.convert_to_numpy(model(x, training=False))}
        for step in STEPS:
            with forced(seeds, step):
                arrays[f"step{step}"] = keras.ops.convert_to_numpy(model(x, training=False))
        inference = sdk.export(model, dropout="inference", opset_version=exported.opset_imports[""])
        arrays["inference_nodes"] = np.array(inference.graph.num_nodes())
        np.savez_compressed(HERE / f"{backend}_{name}.npz", **arrays)
    versions = json.loads((HERE / "versions.json").read_text()) if (HERE / "versions.json").exists() else {}
    versions[backend] = {name: version for name in PACKAGES if (version := _version(name))}
    (HERE / "versions.json").write_text(json.dumps(versions, indent=1, sort_keys=True) + "\n")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def table() -> None:
    from keras_recordings import differences, paths

    from onnx_spatialdrop import io
    from onnx_spatialdrop.graph.scopes import spatial_dropouts
    from onnx_spatialdrop.operator import node as op

    rows = [
        "| backend, network | opset | nodes (inference) | SpatialDropout: axes | inference | masks forced |",
        "|---|---|---|---|---|---|",
    ]
    for path in paths():
        model = io.load(path)
        nodes = [site.node for site in spatial_dropouts(model)]
        axes = ", ".join(f"{node.name} {list(op.read(node).axes)}" for node in nodes)
        found = differences(path)
        worst = max(value for key, value in found.items() if key != "inference")
        with np.load(path.with_suffix(".npz")) as arrays:
            before = int(arrays["inference_nodes"])
        backend, _, network = path.stem.partition("_")
        rows.append(
            f"| {backend}, {network} | {model.opset_imports['']} | {model.graph.num_nodes()} ({before}) | {axes} | "
            f"{found['inference']:.1e} | {worst:.1e} |"
        )
    document = ROOT / "docs" / "exporters_keras.md"
    text = document.read_text()
    head, _, rest = text.partition(START)
    document.write_text(head + START + "\n" + "\n".join(rows) + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    {"record": record, "table": table}[sys.argv[1]]()
