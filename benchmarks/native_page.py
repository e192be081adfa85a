"""The page of figures: what holds for all machines, then a section for each machine that the benchmark was run on."""

from __future__ import annotations

import re


def with_section(page: str, title: str, body: str) -> str:
    """Return ``page`` with the section ``title`` in place of the one of that title, or behind all others."""
    head, *sections = re.split(r"(?m)^## ", page)
    fresh = f"{title}\n\n{body.strip()}\n"
    titles = [section.partition("\n")[0] for section in sections]
    if title in titles:
        sections[titles.index(title)] = fresh
    else:
        sections.append(fresh)
    parts = [head, *(f"## {section}" for section in sections)]
    return "\n\n".join(part.strip() for part in parts) + "\n"
