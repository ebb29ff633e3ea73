"""Pages of reports, as programs read them."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any


class Page(HTMLParser):
    """The tags of a page, the text of its scripts and the cells of its tables."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._table: list[list[str]] | None = None
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        said = dict(attributes)
        self.tags.append((tag, said))
        if tag == "script":
            self.scripts.append("")
        if tag == "table":
            self._table = self.tables.setdefault(str(said["id"]), [])
        if tag == "tr" and self._table is not None:
            self._table.append([])
        if tag in ("td", "th") and self._table is not None:
            self._table[-1].append("")
        if tag in ("script", "style", "td", "th"):
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""
        if tag == "table":
            self._table = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside in ("td", "th") and self._table is not None:
            self._table[-1][-1] += data
        elif not self._inside:
            self.text += data

    def block(self, name: str) -> Any:
        """A block of JSON."""
        scripts = [said for tag, said in self.tags if tag == "script"]
        (i,) = [i for i, said in enumerate(scripts) if said.get("id") == name]
        return json.loads(self.scripts[i])

    @property
    def data(self) -> Any:
        return self.block("report-data")

    @property
    def charts(self) -> Any:
        return self.block("charts")
