"""Text in charts."""

from __future__ import annotations

import html

from pyarrowquant._core.quoting import printable


def chart_text(text: str) -> str:
    """Escape what charts would read as HTML, and what a page would act on."""
    return html.escape(printable(text), quote=False)
