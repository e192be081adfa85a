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
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import nn

import onnx_spatialdrop as sd
from onnx_spatialdrop.training import artifacts, update

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "models"))
import digits  # noqa: E402

SEEDS: Final = range(10)
EPOCHS: Final = 30
ROUNDS: Final = range(7)
EPOCHS_TIMED: Final = 3
BATCH: Final = 64
RATE: Final = 0.3
LEARNING_RATE: Final = 5e-3
DROPPED: Final = ("relu", "max_pool2d", "relu_2")
MARKS: Final = ("<!-- benchmark -->", "<!-- /benchmark -->")

Batches = list[np.ndarray]
#: After training: what the network answers for images, and seconds a step.
Trained = tuple[Callable[[np.ndarray], np.ndarray], float]


def network(rate: float) -> nn.Sequential:
    """Return the digits network of models/build_torch.py without its batch norm, which exports freeze."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Dropout2d(rate)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout2d(rate)),
        *(nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.Dropout2d(rate)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10)),
    )


def exported(seed: int) -> tuple[nn.Sequential, onnx.ModelProto]:
    """Return the network with the weights of ``seed``, and its inference model as PyTorch exports it."""
    torch.manual_seed(seed)
    module = network(RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (torch.zeros(2, 1, 8, 8),),
            dynamo=True,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    return module, program.model_proto


def batches(seed: int, count: int, epochs: int) -> Batches:
    generator = np.random.default_rng(seed)
    return [
        chosen for _ in range(epochs) for chosen in np.array_split(generator.permutation(count), -(-count // BATCH))
    ]


def rate_at(step: int, steps: int) -> float:
    return LEARNING_RATE * (1 - step / steps)


def train_torch(module: nn.Module, data: digits.Digits, chosen: Batches, *extra: torch.Tensor) -> Trained:
    torch.manual_seed(int(chosen[0][0]))  # one for each seed, after whatever making the module drew
    images, labels = torch.from_numpy(data.train_images)[:, None], torch.from_numpy(data.train_labels)
    optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE)
    module.train()
    seconds = []
    for step, batch in enumerate(chosen):
        x, y = images[batch], labels[batch]
        start = time.perf_counter()
        optimizer.param_groups[0]["lr"] = rate_at(step, len(chosen))
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x, *extra), y).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    module.eval()

    def answer(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            off = [torch.zeros_like(each) for each in extra]
            return np.asarray(module(torch.from_numpy(x), *off).numpy())

    return answer, float(np.median(seconds))


def train_ort(model: onnx.ModelProto, data: digits.Digits, chosen: Batches, form: str | None) -> Trained:
    import onnxruntime
    from onnxruntime.training.api import CheckpointState, Module, Optimizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        made = artifacts(model, folder=folder, form=form)
        state = CheckpointState.load_checkpoint(str(made.checkpoint))
        module = Module(str(made.training), state, str(made.evaluation), session_options=options)
        optimizer = Optimizer(str(made.optimizer), module)
        module.train()
        seconds = []
        for step, batch in enumerate(chosen):
            x, y = data.train_images[batch][:, None], data.train_labels[batch]
            draw = [np.array([step])] if "step" in made.inputs else []
            start = time.perf_counter()
            optimizer.set_learning_rate(rate_at(step, len(chosen)))
            module(x, *draw, y)
            optimizer.step()
            module.lazy_reset_grad()
            seconds.append(time.perf_counter() - start)
        inference = update(onnx.load(made.inference), state)
    session = onnxruntime.InferenceSession(inference.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"image": x})[0], float(np.median(seconds))


def variants(seed: int, data: digits.Digits, epochs: int = EPOCHS) -> dict[str, Callable[[], Trained]]:
    """Return what is compared; each entry trains anew from the same weights."""
    import onnx2pytorch
    import onnx2torch

    from onnx_spatialdrop.training import pytorch

    module, clean = exported(seed)
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    chosen = batches(seed, len(data.train_labels), epochs)
    spatial = sd.insert(clean, after=DROPPED, rate=RATE, seed=seed)
    elementwise = sd.insert(clean, after=DROPPED, rate=RATE, axes=[], seed=seed)

    def own(rate: float, kind: type[nn.Module] = nn.Dropout2d) -> Trained:
        fresh = network(rate)
        fresh.load_state_dict(weights)
        for index, layer in enumerate(fresh):
            if isinstance(layer, nn.Dropout2d):
                fresh[index] = kind(rate)  # type: ignore[call-arg]
        return train_torch(fresh, data, chosen)

    def through_onnx2torch() -> Trained:
        return train_torch(onnx2torch.convert(sd.expand(spatial, target="onnx2torch")), data, chosen)

    def through_onnx2pytorch() -> Trained:
        expanded = onnx2pytorch.ConvertModel(sd.expand(spatial, target="onnx2pytorch"))
        return train_torch(expanded, data, chosen, torch.tensor(True))

    runs: dict[str, Callable[[], Trained]] = {
        "none|onnxruntime-training": lambda: train_ort(clean, data, chosen, None),
        "none|torch": lambda: own(0.0, nn.Identity),
        "element-wise|onnxruntime-training, dropout": lambda: train_ort(elementwise, data, chosen, "dropout"),
        "element-wise|torch, nn.Dropout": lambda: own(RATE, nn.Dropout),
        "spatial|torch, nn.Dropout2d": lambda: own(RATE),
        "spatial|onnx2torch, our converter": lambda: train_torch(pytorch.convert(spatial), data, chosen),
        "spatial|onnx2torch, dropout": through_onnx2torch,
        "spatial|onnx2pytorch, uniform": through_onnx2pytorch,
    }
    for form in ("dropout", "uniform", "philox", "philox-int32"):
        runs[f"spatial|onnxruntime-training, {form}"] = lambda form=form: train_ort(spatial, data, chosen, form)
    return runs


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
