"""Train the digits network with every kind of dropout and every trainer, ten seeds each, for docs/training.md.

    python benchmarks/training.py --results results.jsonl --document docs/training.md

Needs the training environment of docs/training.md with onnx2torch, onnx2pytorch, onnxscript and scikit-learn. For one
seed all trainers start from the same weights and see the same batches; only the dropout differs. Time is taken apart
from that, in short runs of one trainer after the other, several rounds of them, of which the fastest counts: so a
machine that is busy for a while slows all of them. Runs already in the results file are not repeated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from training_runs import Trained, digits, variants

SEEDS: Final = range(10)
ROUNDS: Final = range(7)
EPOCHS_TIMED: Final = 3
MARKS: Final = ("<!-- benchmark -->", "<!-- /benchmark -->")


def measure(name: str, seed: int, run: Callable[[], Trained], data: digits.Digits) -> dict[str, Any]:
    answer, _ = run()

    def score(images: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
        logits = answer(images[:, None]).astype(np.float64)
        top = logits.max(1, keepdims=True)
        each = (top + np.log(np.exp(logits - top).sum(1, keepdims=True)))[:, 0] - logits[range(len(labels)), labels]
        return float(each.mean()), int((logits.argmax(1) == labels).sum())

    train_loss, _ = score(data.train_images, data.train_labels)
    loss, right = score(data.test_images, data.test_labels)
    return {"name": name, "seed": seed, "train_loss": train_loss, "loss": loss, "right": right}


def table(results: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(each["name"] for each in results))
    order = {"none": 0, "element-wise": 1, "spatial": 2}
    lines = [
        "| dropout | trainer, form | seeds | loss, training images | loss, held back "
        "| right of 360 | lowest - highest | ms a step |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in sorted(names, key=lambda name: (order[name.split("|")[0]], names.index(name))):
        rows = [each for each in results if each["name"] == name and "seed" in each]
        seconds = min(each["seconds"] for each in results if each["name"] == name and "round" in each)
        kind, trainer = name.split("|")
        columns = [f"{np.mean([r[key] for r in rows]):.4f} ± {np.std([r[key] for r in rows], ddof=1):.4f}"
                   for key in ("train_loss", "loss")]  # fmt: skip
        right = [r["right"] for r in rows]
        lines.append(
            f"| {kind} | {trainer} | {len(rows)} | {columns[0]} | {columns[1]} | "
            f"{np.mean(right):.1f} ± {np.std(right, ddof=1):.1f} | {min(right)} - {max(right)} | {seconds * 1e3:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--document", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = digits.load()
    stored = arguments.results.read_text().splitlines() if arguments.results.exists() else []
    results = [json.loads(line) for line in stored]
    done = {(each["name"], key, each[key]) for each in results for key in ("seed", "round") if key in each}

    def keep(result: dict[str, Any]) -> None:
        results.append(result)
        with arguments.results.open("a") as out:
            out.write(json.dumps(result) + "\n")

    for seed in SEEDS:
        for name, run in variants(seed, data).items():
            if (name, "seed", seed) not in done:
                keep(measure(name, seed, run, data))
    for number in ROUNDS:
        for name, run in variants(0, data, EPOCHS_TIMED).items():
            if (name, "round", number) not in done:
                keep({"name": name, "round": number, "seconds": run()[1]})
    text = table(results)
    print(text)
    if arguments.document is not None:
        before, rest = arguments.document.read_text().split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        arguments.document.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
