"""Kill processes while they write models, at every step and at random moments, and count what is lost.

``python tests/fuzz/kills.py [RANDOM_KILLS_SMALL RANDOM_KILLS_LARGE [MIB]]``, on Linux. Each writer is a process of its
own, killed with SIGKILL: by itself before and after each call that changes the file system (so between the two that
name the weights and the model, too), and by this process after a random time inside the window in which it writes. A
kill counts where it hit the writer between the beginning and the end of its writing. After each one OUTPUT has to be
the whole old model or the whole new one, with its own weights, and the source as it was. Prints a table for
docs/robustness.md.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import onnx_spatialdrop as sd
from onnx_spatialdrop import io

#: What changes the file system, or brings it to the disk: a writer is killed before and after each call of one.
STEPS = ("open", "fdopen", "link", "replace", "fsync", "fchmod", "unlink")
SMALL = 50_000


@dataclass
class Tally:
    """What was tried and what came of it."""

    kills: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scene:
    """A folder with a source of one kind and what OUTPUT holds before; ``old`` and ``new`` mark the two models."""

    folder: Path
    source: Path
    output: Path
    replaces: bool

    def write(self) -> None:
        """What a writer does."""
        if self.source.parent == self.output.parent:
            sd.attach(self.source, self.output)
        else:
            io.save(io.load(self.source), self.output)


def model(marked: float, path: Path, count: int, external: bool = True) -> None:
    """Write a model whose weights are all ``marked``, as its producer says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weight = onnx.numpy_helper.from_array(np.full(count, marked, np.float32), "w")
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [count]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    made = onnx.helper.make_model(
        graph, producer_name=f"{marked:g}", opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    onnx.save(made, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0)


def state(path: Path) -> str:
    """Return which model a file is, by its producer; raise where its weights are not its own."""
    found = onnx.load(path)
    weights = onnx.numpy_helper.to_array(found.graph.initializer[0])
    if not (weights == float(found.producer_name)).all():
        raise ValueError(f"the model {found.producer_name} has the weights {set(np.unique(weights))}")
    return found.producer_name


def scenes(folder: Path, count: int) -> list[Scene]:
    """Return the places: another folder, with and without a model there, and in place."""
    made = []
    for name, replaces, in_place in (("new", False, False), ("over", True, False), ("in_place", True, True)):
        home = folder / name
        source = home / "from" / "m.onnx"
        model(2, source, count)
        output = source if in_place else home / "to" / "m.onnx"
        output.parent.mkdir(exist_ok=True)
        made.append(Scene(home, source, output, replaces))
    return made


def reset(scene: Scene, count: int) -> None:
    """Put what was there before in its place: the small old model, or nothing."""
    if scene.source == scene.output:
        return  # every writer writes the same in place: the model and its weights before and after
    for path in scene.output.parent.iterdir():
        path.unlink()
    if scene.replaces:
        model(1, scene.output, min(count, 1000))


def check(scene: Scene, tally: Tally) -> None:
    """Look at what the killed writer left."""
    try:
        if state(scene.source) != "2":
            tally.faults.append(f"{scene.folder.name}: the source has changed")
        if not scene.output.exists():
            if scene.replaces:
                tally.faults.append(f"{scene.folder.name}: OUTPUT is gone")
            tally.outcomes["OUTPUT not there yet"] += 1
        else:
            tally.outcomes["the old model" if state(scene.output) == "1" else "the new model"] += 1
    except Exception as error:  # noqa: BLE001 - whatever it is, something was lost
        tally.faults.append(f"{scene.folder.name}: {type(error).__name__}: {error}")
    names = [path.name for path in scene.output.parent.iterdir() if path.suffix == ".tmp"]
    tally.outcomes["nameless leftovers (.tmp)"] += len(names)
    for name in names:
        (scene.output.parent / name).unlink()


def forked(work: Callable[[], None]) -> int:
    """Run ``work`` in a process of its own and return its id; it ends without cleaning up, as ours would."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    finally:
        os._exit(0)


def steps(scene: Scene, kill: int | None) -> int:
    """Write with every step counted, killed at step ``kill``; return how many steps there are where it is None."""
    read, write = os.pipe()

    def work() -> None:
        counted = 0

        def at_step() -> None:
            nonlocal counted
            counted += 1
            if counted == kill:
                os.kill(os.getpid(), signal.SIGKILL)

        for name in STEPS:
            original = getattr(os, name)

            def stepped(*arguments: Any, original: Any = original, **options: Any) -> Any:
                at_step()
                done = original(*arguments, **options)
                at_step()
                return done

            setattr(os, name, stepped)
        scene.write()
        os.write(write, str(counted).encode())

    child = forked(work)
    os.close(write)
    told = os.read(read, 20)
    os.close(read)
    os.waitpid(child, 0)
    return int(told or 0)


def at_every_step(scene: Scene, count: int, tally: Tally) -> None:
    """Kill a writer at each of its steps."""
    reset(scene, count)
    for kill in range(1, steps(scene, None) + 1):
        reset(scene, count)
        assert steps(scene, kill) == 0, "the writer was not killed"
        tally.kills += 1
        check(scene, tally)


def at_random(scene: Scene, count: int, wanted: int, tally: Tally, rng: random.Random) -> None:
    """Kill writers at random moments until ``wanted`` kills have hit one that was writing."""
    window, hits = 0.0, 0
    while hits < wanted:
        reset(scene, count)
        begun, begin = os.pipe()
        ended, end = os.pipe()

        def work(begin: int = begin, end: int = end) -> None:
            os.write(begin, b"b")
            scene.write()
            os.write(end, b"e")

        child = forked(work)
        os.close(begin)
        os.close(end)
        os.read(begun, 1)
        start = time.perf_counter()
        if window:
            time.sleep(rng.random() * window)
            os.kill(child, signal.SIGKILL)
        finished = bool(os.read(ended, 1))
        if finished:
            window = 0.9 * window + 0.1 * (time.perf_counter() - start) if window else time.perf_counter() - start
        _, status = os.waitpid(child, 0)
        os.close(begun)
        os.close(ended)
        if not finished and os.WIFSIGNALED(status):
            hits += 1
            tally.kills += 1
            check(scene, tally)


def main() -> int:
    """Run the campaign and print its table."""
    small, large, mib = (int(text) for text in (*sys.argv[1:], *("300", "40", "200")[len(sys.argv) - 1 :]))
    rng, rows, lost = random.Random(1), [], 0
    for title, count, wanted in (("200 kB", SMALL, small), (f"{mib} MB", mib << 18, large)):
        folder = Path(tempfile.mkdtemp(prefix="kills-"))
        try:
            for scene in scenes(folder, count):
                tally = Tally()
                at_every_step(scene, count, tally)
                exact = tally.kills
                at_random(scene, count, wanted, tally, rng)
                seen = ", ".join(f"{number} {what}" for what, number in sorted(tally.outcomes.items()) if number)
                place = {"new": "another folder", "over": "another folder, over a model", "in_place": "in place"}
                rows.append(
                    f"| {title} | {place[scene.folder.name]} | {exact} | {wanted} | {seen} | {len(tally.faults)} |"
                )
                print(rows[-1], *tally.faults, sep="\n  ", flush=True)
                lost += len(tally.faults)
        finally:
            shutil.rmtree(folder)
    print("\n| weights | OUTPUT | kills at a step | kills at random | what was there afterwards | lost |")
    print("|---|---|--:|--:|---|--:|", *rows, sep="\n")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
