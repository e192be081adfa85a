"""Skips what the installed ONNX Runtime cannot load, with the reason; lets programs run as users start them."""

import os
import signal
from contextlib import suppress

import onnxruntime
import pytest
from installed import NEWEST_OPSET


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-snapshots", action="store_true", help="write what the command line prints now")


def pytest_configure() -> None:
    with suppress(ImportError):  # not every environment has it
        import hypothesis

        hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no fault
        hypothesis.settings.load_profile("untimed")
    os.environ.pop("PYTHONUNBUFFERED", None)  # it hides what a program could not write as it ended
    # A job in the background of a shell script is started with interrupts ignored, and so are all its children.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason=f"onnxruntime {onnxruntime.__version__} knows opsets up to {NEWEST_OPSET}")
    for item in items:
        opset = item.callspec.params.get("opset", 0) if getattr(item, "callspec", None) is not None else 0
        if isinstance(opset, int) and opset > NEWEST_OPSET:
            item.add_marker(skip)
