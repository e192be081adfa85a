"""One page of HTML that holds its pictures: what was measured, in a table, and what it looks like. No script in it."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence

__all__ = ["page"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td { padding: .15rem 1.2rem .15rem 0; border-bottom: 1px solid #ddd; }
td:last-child { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; } .row { display: flex; flex-wrap: wrap; gap: 1rem; } .row figure { flex: 1 1 20rem; margin: 0; }
figcaption, p { color: #555; max-width: 60rem; }
"""


def page(
    title: str,
    notes: Sequence[str],
    figures: Mapping[str, str],
    pictures: Sequence[tuple[str, Sequence[tuple[bytes, str]]]],
) -> str:
    """Return the page.

    Args:
        title: its heading.
        notes: paragraphs under it.
        figures: what was measured: names and values, as they are to be shown.
        pictures: sections: a heading, and PNG files with what they show, in words.
    """
    said = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    rows = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in figures.items())
    sections = "".join(
        f"<h2>{html.escape(heading)}</h2><div class='row'>{''.join(_figure(*each) for each in shown)}</div>"
        for heading, shown in pictures
        if shown
    )
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1>{said}<table>{rows}</table>{sections}</body></html>\n"
    )


def _figure(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    said = html.escape(caption)
    return f"<figure><img alt='{said}' src='data:image/png;base64,{data}'><figcaption>{said}</figcaption></figure>"
