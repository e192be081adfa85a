"""The declared prefix of OrtApi against the installed runtime: round trips through the slots that the header names.

Slots that need a running kernel (KernelInfo..., KernelContext...) are exercised by every other test here.
"""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

HEADER = Path(__file__).parents[2] / "ops" / "include" / "ort_c_api_prefix.h"
CALLED = set(re.findall(r"\bapi_?(?:->|\.)(\w+)\(", "".join(p.read_text() for p in HEADER.parents[1].glob("src/*.cc"))))

pytestmark = pytest.mark.skipif(not HEADER.is_file(), reason="needs the sources")


def slots() -> dict[str, int]:
    return {name: int(word) for name, word in re.findall(r"ORT_SLOT\(OrtApi, (\w+), (\d+)\)", HEADER.read_text())}


@pytest.fixture(scope="module")
def call() -> Callable[..., Any]:
    """Return a function that calls an API function by its name in the header."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    library = next((p for p in sorted(folder.glob("libonnxruntime.so*")) if p.is_file()), None)
    if library is None:
        pytest.skip("this onnxruntime ships no separate libonnxruntime.so")
    runtime = ctypes.CDLL(str(library))
    runtime.OrtGetApiBase.restype = ctypes.POINTER(ctypes.c_void_p * 2)
    get_api = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)(runtime.OrtGetApiBase().contents[0])
    table = (ctypes.c_void_p * 300).from_address(get_api(18))

    def call_slot(name: str, *arguments: Any, restype: Any = ctypes.c_void_p) -> Any:
        return ctypes.CFUNCTYPE(restype, *map(type, arguments))(table[slots()[name]])(*arguments)

    return call_slot


def test_every_function_that_is_called_has_its_slot_asserted() -> None:
    assert CALLED
    assert CALLED - {"GetApi", "GetVersionString"} <= set(slots())


def test_status(call: Callable[..., Any]) -> None:
    status = ctypes.c_void_p(call("CreateStatus", ctypes.c_int(2), ctypes.c_char_p(b"what is wrong")))
    assert call("GetErrorMessage", status, restype=ctypes.c_char_p) == b"what is wrong"
    call("ReleaseStatus", status, restype=None)


def test_shapes(call: Callable[..., Any]) -> None:
    info = ctypes.c_void_p()
    assert call("CreateTensorTypeAndShapeInfo", ctypes.pointer(info)) is None
    assert call("SetTensorElementType", info, ctypes.c_int(11)) is None
    assert call("SetDimensions", info, ctypes.pointer((ctypes.c_int64 * 3)(5, 7, 9)), ctypes.c_size_t(3)) is None
    kind, rank, count = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_size_t()
    assert call("GetTensorElementType", info, ctypes.pointer(kind)) is None
    assert call("GetDimensionsCount", info, ctypes.pointer(rank)) is None
    assert call("GetTensorShapeElementCount", info, ctypes.pointer(count)) is None
    assert (kind.value, rank.value, count.value) == (11, 3, 5 * 7 * 9)
    dims = (ctypes.c_int64 * 3)()
    assert call("GetDimensions", info, ctypes.pointer(dims), ctypes.c_size_t(3)) is None
    assert list(dims) == [5, 7, 9]
    names = (ctypes.c_char_p * 3)(b"N", b"", b"W")
    assert call("SetSymbolicDimensions", info, ctypes.pointer(names), ctypes.c_size_t(3)) is None
    read = (ctypes.c_char_p * 3)()
    assert call("GetSymbolicDimensions", info, ctypes.pointer(read), ctypes.c_size_t(3)) is None
    assert list(read) == [b"N", b"", b"W"]
    call("ReleaseTensorTypeAndShapeInfo", info, restype=None)


def test_domains(call: Callable[..., Any]) -> None:
    domain = ctypes.c_void_p()
    assert call("CreateCustomOpDomain", ctypes.c_char_p(b"somewhere"), ctypes.pointer(domain)) is None
    assert domain.value
    call("ReleaseCustomOpDomain", domain, restype=None)
