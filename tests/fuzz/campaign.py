"""Run every verb on broken models for as long as it is told to, and count what breaks.

``python tests/fuzz/campaign.py --seconds 600 --write`` adds its figures to docs/robustness.md. A worker process tries
the inputs, so that a crash of the interpreter is counted, and the input kept, like everything else that breaks.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

_ROOT = Path(__file__).parents[2]
if __name__ == "__main__":  # imported by tests, it must not hide the installed package from those after it
    sys.path[:0] = [str(_ROOT), str(_ROOT / "tests")]

from fuzz import company, contract, report  # noqa: E402

_LIMIT_S = 30
#: What contract.py says where something is lost.
_LOSSES = ("changed other files", "replaced its output", "lost ", "wrote nothing", "wrote what it cannot read")
_MEMORY = 6 << 30


def good_models() -> list[bytes]:
    """Return the content of the models that broken ones are made of."""
    return [file.read_bytes() for file in company.corpus()]


def work(first: int, seconds: float, sender: Connection) -> None:
    """Try inputs from number ``first`` on; tell the parent the number before and the outcome after each."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    contents, end, number = good_models(), time.monotonic() + seconds, first
    with tempfile.TemporaryDirectory() as name:
        while time.monotonic() < end:
            folder, verbs = company.pick(contents, random.Random(number))
            file = company.fill(Path(name), folder)
            for verb in verbs:
                sender.send(("try", number, verb))
                sender.send(("done", *attempt(verb, file)))
            number += 1
    sender.send(("end", number, None))


def attempt(verb: contract.Verb, file: Path) -> tuple[str, str]:
    """Run one verb; return the kind of failure, "" for none, and what it was."""
    before = {path.name: path.read_bytes() for path in file.parent.iterdir()}
    try:
        with contract.limited(_LIMIT_S):
            broken = contract.breach(verb, file)
    except contract.Hang:
        company.fill(file.parent, before)
        return "hang", _where(sys.exc_info()[2])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        company.fill(file.parent, before)
        return "crash", f"{type(error).__name__}: {str(error)[:100]} at {_where(error.__traceback__)}"
    return ("contract", broken) if broken else ("", "")


def _where(trace: object) -> str:
    frames = [f for f in traceback.extract_tb(trace) if "onnx_spatialdrop" in f.filename]  # type: ignore[arg-type]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in frames[:-4:-1]) or "outside"


def campaign(seconds: float, first: int, keep: Path | None) -> tuple[Counter[str], Counter[str], int]:
    """Return how many runs ended how, the distinct findings, and the number of inputs tried."""
    ends, findings = Counter[str](), Counter[str]()
    stop, number, last = time.monotonic() + seconds, first, None
    while time.monotonic() < stop:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(
            target=work, args=(number, stop - time.monotonic(), sender), daemon=True
        )
        child.start()
        sender.close()
        while True:
            try:
                kind, *rest = receiver.recv()
            except EOFError:
                break
            if kind == "try":
                last = rest
            elif kind == "done":
                _count(rest, last, ends, findings, keep)
                last = None
            else:
                number = rest[0]
        child.join()
        if last is not None:
            _count(["killed", f"by signal {-(child.exitcode or 0)}"], last, ends, findings, keep)
            number, last = last[0] + 1, None
    return ends, findings, number - first


def _count(
    outcome: list[str], last: list[object] | None, ends: Counter[str], findings: Counter[str], keep: Path | None
) -> None:
    kind, what = outcome
    assert last is not None
    number, verb = last
    ends[kind or "kept"] += 1
    ends[f"of {verb[0]}"] += 1  # type: ignore[index]
    if not kind:
        return
    text = f"{kind}: {verb[0]}: {what}"  # type: ignore[index]
    findings[text] += 1
    if findings[text] == 1:
        print(f"input {number}, {' '.join(verb)}: {kind}: {what}", flush=True)  # type: ignore[arg-type]
        if keep is not None:
            place = keep / str(number)
            place.mkdir(parents=True, exist_ok=True)
            company.fill(place, company.pick(good_models(), random.Random(number))[0])  # type: ignore[arg-type]


def main() -> None:
    """Run a campaign."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--first", type=int, default=0, help="number of the first input; the rest follow from it")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/robustness.md")
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that broke something")
    arguments = parser.parse_args()
    start = time.monotonic()
    ends, findings, inputs = campaign(arguments.seconds, arguments.first, arguments.keep)
    minutes = (time.monotonic() - start) / 60
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = used.ru_utime + used.ru_stime
    for text, count in findings.most_common():
        print(f"{count:6} {text}")
    lost = sum(count for text, count in findings.items() if any(word in text for word in _LOSSES))
    figures = {
        "inputs tried": inputs,
        "runs of a verb": sum(count for end, count in ends.items() if not end.startswith("of ")),
        "of these of verify and demo, which run models": ends["of verify"] + ends["of demo"],
        "crashes (an exception, or the process gone)": ends["crash"] + ends["killed"],
        f"hangs (over {_LIMIT_S} s of work)": ends["hang"],
        "lost data (another file changed, an output replaced in vain, content gone)": lost,
        "other breaches (more than a line, no file named, a fault not foreseen)": ends["contract"] - lost,
    }
    print("\n".join(f"{what}: {count}" for what, count in figures.items()))
    if arguments.write:
        report.write(
            "campaign", figures, f"{minutes:.0f} minutes ({busy / 60:.0f} of a core) from input {arguments.first} on"
        )


if __name__ == "__main__":
    main()
