"""Write docs/statistics.md: python benchmarks/randomness_page.py [--dieharder]."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from randomness import ALPHA, FEW, GENERATORS, Field, cycles_are_balanced, holm, p_values, weakened
from scipy import stats

PAGE = Path(__file__).parents[1] / "docs" / "statistics.md"

#: Tests of dieharder by number: some that it calls good, and that need few words.
DIEHARDER = (0, 3, 8, 15, 101, 102)


def dieharder(field: Field, axis: str, test: int) -> list[tuple[str, float]]:
    """Return what dieharder says of a stream of words along seeds, steps or entries."""
    run = subprocess.Popen(
        ["dieharder", "-g", "200", "-d", str(test), "-p", "24", "-D", "test_name", "-D", "ntuple", "-D", "pvalues"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert run.stdin is not None
    assert run.stdout is not None
    try:
        for block in range(2**20):
            numbers = np.arange(block * 2**18, (block + 1) * 2**18)
            at = [numbers if name == axis else np.full(1, 7) for name in ("seeds", "steps", "entries")]
            run.stdin.write(field(*at).astype("<u4").tobytes())
    except BrokenPipeError:
        pass
    lines = run.stdout.read().decode().splitlines()
    run.wait()
    fields = [[part.strip() for part in line.split("|")] for line in lines if "|" in line and "#" not in line]
    return [(f"{name} {ntuple}", float(p)) for name, ntuple, p in fields]


def _table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def dieharder_table() -> str:
    """Run dieharder on words along each axis; return a row a stream."""
    streams = [(n, axis) for n in GENERATORS for axis in ("entries", "seeds", "steps") if GENERATORS[n].cycle == 1]
    found = [
        (stream, p)
        for stream in streams
        for number in DIEHARDER
        for _, p in dieharder(GENERATORS[stream[0]].field, stream[1], number)
    ]
    adjusted = holm([p for _, p in found])
    rows: list[tuple[Any, ...]] = []
    for stream in streams:
        own = [(p, a) for (of, p), a in zip(found, adjusted, strict=True) if of == stream]
        least = min(p for p, _ in own)
        rows.append((f"`{stream[0]}`", stream[1], len(own), f"{least:.3g}", sum(a < ALPHA for _, a in own)))
    return _table(("generator", "words along", "p-values", "least", "rejected"), rows)


def generators_table() -> tuple[str, int, int]:
    """Return a row a generator, how many p-values there are, and how many Benjamini and Hochberg reject."""
    results = {name: p_values(generator) for name, generator in GENERATORS.items()}
    everything = [p for found in results.values() for p in found.values()]
    adjusted = iter(holm(everything))
    rows: list[tuple[Any, ...]] = []
    for name, found in results.items():
        own = [next(adjusted) for _ in found]
        least = min(found, key=lambda test: found[test])
        level = stats.kstest(list(found.values()), "uniform").pvalue
        rejected = sum(a < ALPHA for a in own)
        rows.append((f"`{name}`", len(found), f"{found[least]:.2g} ({least})", rejected, f"{level:.2g}"))
    discovered = int(np.sum(stats.false_discovery_control(everything) < ALPHA))
    return _table(("generator", "tests", "least p-value", "rejected", "uniform"), rows), len(everything), discovered


def faults_table() -> str:
    """Return a row a generator of too few rounds."""
    rows: list[tuple[Any, ...]] = []
    for name, run in weakened().items():
        found = run()
        rejected = [test for test, a in zip(found, holm(list(found.values())), strict=True) if a < ALPHA]
        rows.append((name, len(found), len(rejected), ", ".join(rejected[:2])))
    return _table(("generator", "tests", "rejected", "such as"), rows)


TEXT = """# Statistics of the generators

Written by `python benchmarks/randomness_page.py --dieharder`. `tests/operator/test_randomness.py` is a short version.

Words are drawn along 10^6 seeds, steps and entries. Tested are the frequencies of their first two bytes and of 24
bits, pairs of neighbours and of words 4 and 64 apart (another block; another row of 64 entries, which is a sample's),
seed and step exchanged, and {few:,} pairs of seeds and of steps that differ in one bit, for each bit that counts.
Pairs are disjoint, and their first four bits fall into 256 cells: chi-square with 255 degrees of freedom. With
`strata`, what is tested is rank and word as one number, and steps of different cycles.

The {tests} p-values are one family. "Rejected" is after Holm's correction, which bounds the chance of one false alarm
in all of them by {alpha:.0%}. By Benjamini and Hochberg, at a false discovery rate of {alpha:.0%}, {discovered} are
rejected. "Uniform" is the p-value of a Kolmogorov-Smirnov test of a generator's p-values.

{generators}

{balanced}

## Power

The same tests, on the generators with too few rounds:

{faults}

So the tests see a generator that is far too weak. That none is a little so, they cannot show: for Philox4x32-10 that
rests on BigCrush, which its authors found to pass from 7 rounds on (Salmon et al. 2011).
"""

DIEHARDER_TEXT = """
## dieharder

Six tests of dieharder 3.31.1 (Debian) with 24 samples each, on raw words along entries, seeds or steps, the other two
at 7: birthdays, ranks of 6 x 8 matrices, the count of ones in a stream, runs, and the NIST suite's runs and serial
tests. All p-values are one family, of which small ones count: dieharder's own comparison of few samples with their
distribution gives numbers next to 1 too often. Draws with `strata` are made of the words of `philox`.

{streams}
"""


def page(with_dieharder: bool) -> str:
    """Return the report."""
    generators, tests, discovered = generators_table()
    text = TEXT.format(
        few=FEW,
        tests=tests,
        alpha=ALPHA,
        discovered=discovered,
        generators=generators,
        balanced=cycles_are_balanced(),
        faults=faults_table(),
    )
    return text + (DIEHARDER_TEXT.format(streams=dieharder_table()) if with_dieharder else "")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--dieharder", action="store_true", help="run dieharder, too: some minutes")
    chosen = parser.parse_args()
    if chosen.dieharder and shutil.which("dieharder") is None:
        raise SystemExit("dieharder is not installed (Debian: apt install dieharder)")
    PAGE.write_text(page(chosen.dieharder))
