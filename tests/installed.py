"""What the installed ONNX Runtime and onnx can do, for tests that older ones cannot pass."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest

from onnx_spatialdrop.versions import older

#: The newest opset that ONNX Runtime knows; 99 where it knows all.
NEWEST_OPSET = 21 if older(onnxruntime.__version__, "1.21") else 23 if older(onnxruntime.__version__, "1.24") else 99
#: Files that a program has as bytes can have their weights in a folder.
HAS_FOLDERS = not older(onnxruntime.__version__, "1.21")
#: For tests that convert a model to another opset.
CONVERTS = pytest.mark.skipif(
    older(onnx.__version__, "1.21"), reason=f"opsets are converted with onnx 1.21 or newer; this is {onnx.__version__}"
)


def skip_newer(model: onnx.ModelProto) -> None:
    """Skip the test if ONNX Runtime does not know the model's opset."""
    opset = next(each.version for each in model.opset_import if not each.domain)
    if opset > NEWEST_OPSET:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} knows opsets up to {NEWEST_OPSET}")
