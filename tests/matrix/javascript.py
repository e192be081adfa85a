"""onnxruntime-node, and onnxruntime-web in a headless Chromium: many jobs in one process, by files of JSON.

A job is {"id", "model", "external", "runs"}: a file, the files of its weights, and the feeds of each run as
{"type", "dims", "data"}, base64. A result holds the outputs of each run in the same way, or the error.
"""

from __future__ import annotations

import base64
import http.server
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
from matrix.cases import Case
from matrix.verdict import Feeds, Outputs

__all__ = ["missing", "modules", "run_in_chromium", "run_in_node", "versions", "visited"]

HERE = Path(__file__).parent
#: A folder with node_modules in it; `.ci/matrix` sets it.
MODULES = "ONNX_SPATIALDROP_NODE_MODULES"
TYPES = {"float16": np.float16, "float32": np.float32, "int64": np.int64, "bool": np.bool_}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT = 300
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)


def modules() -> Path:
    """Return the folder with node_modules in it."""
    return Path(os.environ.get(MODULES, HERE))


def _browser() -> str | None:
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def missing(package: str) -> str:
    """Return why onnxruntime-node or onnxruntime-web cannot run here, or ""."""
    if not (modules() / "node_modules" / package).is_dir():
        return f"{package} is not installed (npm install --ignore-scripts {package}, and {MODULES} = that folder)"
    if package == "onnxruntime-node" and shutil.which("node") is None:
        return "node is not installed"
    if package == "onnxruntime-web" and _browser() is None:
        return "Chromium is not installed (apt-get install chromium)"
    return ""


def versions(package: str) -> str:
    """Return the version of a package, with the browser's."""
    found = json.loads((modules() / "node_modules" / package / "package.json").read_text())["version"]
    if package == "onnxruntime-node":
        return f"{found}, node {_said('node', '--version').lstrip('v')}"
    return f"{found}, Chromium {_said(_browser() or '', '--version').split()[1]}"


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def run_in_node(cases: dict[str, tuple[Case, Sequence[Feeds]]]) -> dict[str, list[Outputs] | str]:
    """Return the outputs of each case's runs in onnxruntime-node, or its error."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(cases, folder)
        command = ["node", str(HERE / "node.mjs"), str(folder), str(modules())]
        subprocess.run(command, check=True, timeout=TIMEOUT, capture_output=True)
        return _read(json.loads((folder / "results.json").read_text()))


def run_in_chromium(cases: dict[str, tuple[Case, Sequence[Feeds]]]) -> dict[str, list[Outputs] | str]:
    """Return the outputs of each case's runs in onnxruntime-web's wasm, in a headless Chromium, or its error."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(cases, folder)
        for file in ("page.html", "jobs.mjs"):
            shutil.copy(HERE / file, folder)
        (folder / "ort").symlink_to(modules() / "node_modules/onnxruntime-web/dist")
        return _read(visited(folder, "page.html"))


def visited(folder: Path, page: str) -> Any:
    """Return what a page of a folder posts, read from JSON, opened in a headless Chromium.

    Raises:
        RuntimeError: the browser ended, or took more than five minutes.
    """
    with tempfile.TemporaryDirectory() as profile, _Server(folder) as server:
        address = f"http://127.0.0.1:{server.server_port}/{page}"
        command = [_browser() or "", *FLAGS.split(), f"--user-data-dir={profile}", address]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(TIMEOUT):
                if server.done.wait(1) or browser.poll() is not None:
                    break
        finally:
            browser.terminate()
            browser.wait(30)
        if server.results is None:
            raise RuntimeError(f"Chromium posted no results (exit code {browser.returncode})")
        return server.results


class _Server(http.server.ThreadingHTTPServer):
    """Serves a folder on a free port, and takes what the page posts."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), lambda *given: _Handler(*given, directory=str(folder)))
        self.done = threading.Event()
        self.results: dict[str, Any] | None = None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *reason: object) -> None:
        self.shutdown()
        super().__exit__(*reason)


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map: ClassVar[dict[str, str]] = {
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        "": "application/octet-stream",
    }

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        assert isinstance(self.server, _Server)
        self.server.results = json.loads(content)
        self.server.done.set()

    def log_message(self, *_: object) -> None:
        pass


def _write(cases: dict[str, tuple[Case, Sequence[Feeds]]], folder: Path) -> None:
    jobs = []
    for index, (key, (case, plan)) in enumerate(cases.items()):
        model = f"{index}.onnx"
        shutil.copy(case.path, folder / model)
        external = _external(case.path)
        for name in external:
            shutil.copy(case.path.with_name(name), folder / name)
        runs = [{name: _encoded(array) for name, array in feeds.items()} for feeds in plan]
        jobs.append({"id": key, "model": model, "external": external, "runs": runs})
    (folder / "jobs.json").write_text(json.dumps(jobs))


def _external(path: Path) -> list[str]:
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    entries = [entry for tensor in tensors for entry in tensor.external_data if entry.key == "location"]
    return sorted({entry.value for entry in entries})


def _read(results: dict[str, Any]) -> dict[str, list[Outputs] | str]:
    if set(results) == {"error"}:
        raise RuntimeError(results["error"])
    return {
        key: result.get("error") or [{name: _decoded(tensor) for name, tensor in run.items()} for run in result["runs"]]
        for key, result in results.items()
    }


def _encoded(array: np.ndarray) -> dict[str, Any]:
    kept = np.ascontiguousarray(array)
    data = base64.b64encode(kept.tobytes()).decode()
    return {"type": str(kept.dtype), "dims": list(np.shape(array)), "data": data}


def _decoded(tensor: dict[str, Any]) -> np.ndarray:
    data = base64.b64decode(tensor["data"])
    return np.frombuffer(data, TYPES[tensor["type"]]).reshape([int(size) for size in tensor["dims"]])
