"""Reports to read, and names of layers that would harm a page."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from commands import succeeded
from models import write_table

from cli.outputs import names_in
from cli.report.pages import Page

METRICS = ["mse", "relative_error", "cosine", "max_abs_error"]
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><b onmouseover="alert(1)">x</b>',
    "' onclick='alert(1)",
    '<a href="https://example.com">link</a>',
    "{{ 7 * 7 }}{% raw %}%{x}",
    "<!--<script>",
    "]]>&lt;i&gt;",
    "line\nbreak\u202e\x1b[31m",
]


def report(result: Path, folder: Path, *options: object) -> Page:
    succeeded("report", result, "--html", folder / "report.html", *options, "--overwrite")
    assert "report.html" in names_in(folder)
    return Page(folder / "report.html")


def written(table: pa.Table, folder: Path, name: str = "result.arrow") -> Path:
    write_table(table, folder / name)
    return folder / name
