"""Makes the README in a copy of the sources readable on a package's page, where relative links lead nowhere.

    package_page.py SOURCES [ADDRESS]

With the repository's address the links go there, and the package names it; without, they become plain text.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

#: A link or an image whose target is neither an address nor a heading of the page.
RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")


def on_page(text: str, address: str) -> str:
    """Return the README with links that work; ``address`` ends without a slash, or is empty."""

    def link(match: re.Match[str]) -> str:
        bang, label, target = match.groups()
        kind = "raw" if bang else "blob"
        return f"{bang}[{label}]({address}/{kind}/main/{target})" if address else label

    return RELATIVE.sub(link, text)


def main() -> None:
    """Change README.md, and pyproject.toml if there is an address."""
    sources, address = Path(sys.argv[1]), "".join(sys.argv[2:]).rstrip("/")
    readme, project = sources / "README.md", sources / "pyproject.toml"
    readme.write_text(on_page(readme.read_text(), address))
    if address:
        urls = "".join(
            f'{name} = "{address}{path}"\n'
            for name, path in {
                "Homepage": "",
                "Documentation": "/tree/main/docs",
                "Changelog": "/blob/main/CHANGELOG.md",
                "Issues": "/issues",
            }.items()
        )
        project.write_text(
            project.read_text().replace("[project.scripts]", f"[project.urls]\n{urls}\n[project.scripts]", 1)
        )


if __name__ == "__main__":
    main()
