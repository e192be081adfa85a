"""What a package's page and its metadata say: links that lead somewhere, needs that can be met on every platform."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGE_PAGE = ROOT / ".ci" / "package_page.py"
ADDRESS = "https://example.org/spatialdrop"


@pytest.mark.skipif(not PACKAGE_PAGE.is_file(), reason="needs the sources")
@pytest.mark.parametrize("address", ["", f"{ADDRESS}/"])
def test_no_link_of_the_packages_page_is_relative(address: str, tmp_path: Path) -> None:
    for name in ("README.md", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    before = re.findall(r"\]\(([^)]+)\)", (tmp_path / "README.md").read_text())
    subprocess.run([sys.executable, str(PACKAGE_PAGE), str(tmp_path), *filter(None, [address])], check=True)
    after = re.findall(r"\]\(([^)]+)\)", (tmp_path / "README.md").read_text())
    assert "docs/operator.md" in before
    kinds = {link: "raw" if link.endswith(".png") else "blob" for link in before}  # a picture, not a page about it
    assert after == ([f"{ADDRESS}/{kinds[link]}/main/{link}" for link in before] if address else [])
    urls = re.findall(r'(?m)^\w+ = "(https://.*)"$', (tmp_path / "pyproject.toml").read_text())
    assert [url.startswith(ADDRESS) for url in urls] == [True] * (4 if address else 0)


def test_windows_on_arm_needs_no_package_that_it_has_not() -> None:
    needs = {one.name: one for one in map(Requirement, metadata.requires("onnx_spatialdrop") or [])}
    marker = needs["onnxruntime-extensions"].marker
    assert marker is not None
    places = [("win32", "ARM64"), ("win32", "AMD64"), ("linux", "aarch64"), ("darwin", "arm64")]
    met = [marker.evaluate({"sys_platform": system, "platform_machine": machine}) for system, machine in places]
    assert met == [False, True, True, True]
