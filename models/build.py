"""Train the digits models and write every file of this folder: ``python models/build.py [--only NAME ...]``.

Building needs scikit-learn, PyTorch and Keras on TensorFlow (see README.md); using the files needs none of them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import readme
from digits import replace_bytes

FOLDER: Final = Path(__file__).parent

#: What is built: name -> (module, function, packages that decide what comes out). In this order.
BUILDS: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "digits_torch": ("build_torch", "build", ("torch", "onnxscript")),
    "digits_torch_eval_export": ("build_torch", "build_eval_export", ("torch", "onnxscript")),
    "digits_torch_train_export": ("build_torch", "build_train_export", ("torch", "onnxscript")),
    "digits_float16": ("build_torch", "build_float16", ("torch", "onnxscript")),
    "digits_keras": ("build_keras", "build", ("keras", "tensorflow-cpu", "tf2onnx")),
    "digits_keras_1d": ("build_keras", "build_1d", ("keras", "tensorflow-cpu", "tf2onnx")),
    "digits_keras_eval_export": ("build_keras", "build_eval_export", ("keras", "tensorflow-cpu", "tf2onnx")),
    "digits_keras_train_export": ("build_keras", "build_train_export", ("keras", "tensorflow-cpu", "tf2onnx")),
    "digits_if": ("variants", "build_if", ()),
    "digits_function": ("variants", "build_function", ()),
    "digits_external": ("variants", "build_external", ()),
}
COMMON: Final = ("onnx", "onnx-ir", "numpy", "scikit-learn")


def main(arguments: list[str] | None = None) -> int:
    """Build what was asked for and bring README.md up to date."""
    parser = argparse.ArgumentParser(description="Train the digits models and write their files.")
    parser.add_argument("--only", nargs="+", choices=BUILDS, metavar="NAME", help=f"one or more of {', '.join(BUILDS)}")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write (default: beside this script)")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in BUILDS if options.only is None or name in options.only]
    for number, name in enumerate(names, 1):
        print(f"[{number}/{len(names)}] {name} ...", end=" ", flush=True)
        start = time.perf_counter()
        module, function, packages = BUILDS[name]
        getattr(importlib.import_module(module), function)(options.folder)
        _note_versions(options.folder / "versions.json", name, packages)
        print(f"{time.perf_counter() - start:.1f} s", flush=True)
    missing = [name for name in BUILDS if not (options.folder / f"{name}.onnx").exists()]
    if missing:
        print(f"README.md not written: {', '.join(missing)} not built yet")
        return 0
    replace_bytes(options.folder / "README.md", readme.text(options.folder, list(BUILDS)).encode())
    return 0


def _note_versions(path: Path, name: str, packages: tuple[str, ...]) -> None:
    noted: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    noted[name] = {package: metadata.version(package) for package in (*packages, *COMMON)}
    ordered = {key: noted[key] for key in BUILDS if key in noted}
    replace_bytes(path, (json.dumps(ordered, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
