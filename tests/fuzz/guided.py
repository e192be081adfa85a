"""Broken models that look for new paths through the code: the same contract under atheris, which counts branches.

``python tests/fuzz/guided.py --seconds 2400 --write FOLDER`` needs ``pip install atheris`` (Python 3.11 to 3.13).
FOLDER keeps the inputs that reached something new. libFuzzer ends at the first breach and leaves the input beside it.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

with atheris.instrument_imports(include=["onnx_spatialdrop", "onnx_ir"]):
    import onnx_spatialdrop.cli
    import onnx_spatialdrop.verify  # noqa: F401
from fuzz import company, contract, mutate, report  # noqa: E402

#: Without demo and doctor, which read no model of the user's in any way of their own.
VERIFYING = tuple(verb for verb in contract.RUNNING if verb[0] == "verify")
VERBS = (*contract.READING, *contract.REWRITING, *VERIFYING)


def main() -> None:
    """Fuzz until the time is over or something breaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write the figures into docs/robustness.md")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(company.corpus()):
        if file.stat().st_size < 20_000:
            (arguments.folder / f"seed_{number}").write_bytes(bytes([number % 256]) + file.read_bytes())
    home = Path(tempfile.mkdtemp())
    runs, verified, start = 0, 0, time.monotonic()

    def one(data: bytes) -> None:
        nonlocal runs, verified
        runs += 1
        verb = VERBS[(data[0] if data else 0) % len(VERBS)]
        verified += verb in VERIFYING
        beside = company.good(company.pairs()[len(data) % len(company.pairs())]) if verb in VERIFYING else {}
        file = company.fill(home, beside | {"model.onnx": data[1:]})
        os.environ["ONNX_SPATIALDROP_DEBUG"] = "1"  # atheris is to see what was not foreseen
        with contract.limited(60):
            broken = contract.breach(verb, file)
        if broken:
            raise AssertionError(f"{' '.join(verb)}: {broken}")
        if time.monotonic() - start > arguments.seconds:
            figures = {
                "runs of a verb": runs,
                "of these of verify, which runs models": verified,
                "inputs that reached something new": _new(arguments.folder),
                "breaches": 0,
            }
            print("\n".join(f"{what}: {count}" for what, count in figures.items()), flush=True)
            minutes, busy = (time.monotonic() - start) / 60, time.process_time() / 60
            where = "atheris on the Python code of the package and onnx_ir"
            if arguments.write:
                report.write("guided", figures, f"{minutes:.0f} minutes ({busy:.0f} of a core), {where}")
            os._exit(0)  # libFuzzer knows no other end

    def change(data: bytes, _: int, seed: int) -> bytes:
        rng = random.Random(seed)
        first = bytes([rng.randrange(256)]) if rng.random() < 0.3 else data[:1]
        return first + mutate.mutate(data[1:], rng)

    options = [f"-seed={arguments.seed}", "-max_len=60000", "-timeout=300", "-len_control=0"]
    atheris.Setup(["guided", *options, str(arguments.folder)], one, custom_mutator=change)
    atheris.Fuzz()


def _new(folder: Path) -> int:
    return sum(not file.name.startswith("seed_") for file in folder.iterdir())


if __name__ == "__main__":
    main()
