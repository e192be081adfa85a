"""``quantize``: write an int8 model whose ranges hold what draws compute."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop import io
from onnx_spatialdrop.cli import given
from onnx_spatialdrop.cli.jobs import operators, report, with_files
from onnx_spatialdrop.cli.terminal import working
from onnx_spatialdrop.cli.verbs import Verbs
from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.passes.attach import detach

__all__ = ["add"]

_TYPES = {"int8": "QInt8", "uint8": "QUInt8"}


def add(verbs: Verbs) -> None:
    """Add the verb."""
    verb = with_files(verbs, "quantize", "int8", _run)
    how = verb.add_mutually_exclusive_group(required=True)
    how.add_argument("--calibration", metavar="FILE", help="inputs that ranges are taken from: .npz by name, or .npy")
    how.add_argument("--dynamic", action="store_true", help="each run takes its ranges from what it computes")
    verb.add_argument("--batch", type=int, default=8, help="samples of --calibration at once (default: 8)")
    verb.add_argument("--draws", type=int, default=2, help="runs a batch, with dropout on (default: 2)")
    verb.add_argument("--activations", choices=_TYPES, default="int8", help="their type (default: int8)")
    verb.add_argument("--weights", choices=_TYPES, default="int8", help="their type (default: int8)")
    verb.add_argument("--per-channel", action="store_true", help="weights have a scale a channel")
    verb.add_argument("--quantize-outputs", action="store_true", help="quantise the last layers, too")


def _run(arguments: argparse.Namespace) -> int:
    from onnxruntime.quantization import QuantType

    from onnx_spatialdrop import quantization

    common: dict[str, Any] = {
        "quantize_outputs": arguments.quantize_outputs,
        "per_channel": arguments.per_channel,
        "weight_type": getattr(QuantType, _TYPES[arguments.weights]),
    }
    with working() as work:
        work.stage(f"reading {arguments.input}")
        model = io.load(arguments.input)
        work.stage(f"quantising {arguments.input}")
        if arguments.dynamic:
            made = quantization.quantize_dynamic(model, **common)
        else:
            made = quantization.quantize_static(
                model,
                reader=_feeds(arguments.calibration, model, arguments.batch),
                draws=arguments.draws,
                activation_type=getattr(QuantType, _TYPES[arguments.activations]),
                **common,
            )
        assert isinstance(made, ir.Model)
        if arguments.output is not None:
            work.stage(f"writing {arguments.output}")
            io.save(made, arguments.output, work.copied)
    said = "quantised; each run takes its own ranges" if arguments.dynamic else "quantised for ranges of draws"
    report(arguments, said, operators(detach(model)), operators(detach(made)))
    return 0


def _feeds(file: str, model: ir.Model, batch: int) -> list[dict[str, Any]]:
    """Return the arrays of a file that are inputs of the model, in batches of the first dimension."""
    if batch < 1:
        raise SpecError(f"--batch is {batch}; it must be 1 or more")
    named = given.inputs(file, [value.name or "" for value in model.graph.inputs])
    rows = {len(array) if np.ndim(array) else 0 for array in named.values()}
    if len(rows) != 1 or 0 in rows:
        raise SpecError(f"{file}: {', '.join(named)} must have as many rows as each other, one or more")
    return [
        {name: array[first : first + batch] for name, array in named.items()} for first in range(0, rows.pop(), batch)
    ]
