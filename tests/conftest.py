"""What the installed ONNX Runtime cannot load is skipped with the reason."""

import onnxruntime
import pytest

_OLD = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) < (1, 24)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason=f"onnxruntime {onnxruntime.__version__} does not know opset 24")
    for item in items:
        if _OLD and getattr(item, "callspec", None) is not None and item.callspec.params.get("opset") == 24:
            item.add_marker(skip)
