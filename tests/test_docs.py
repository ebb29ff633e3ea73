"""Every example on every page runs: Python blocks as doctests, console blocks as commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from child import ROOT
from pages import run_examples

from pyarrowquant.formats.registry import FORMATS

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Their examples need what `make test-fleet` installs, which runs them.
ELSEWHERE = {ROOT / "docs" / "clusters.md"}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Blocks of other languages show files. `shell` blocks need what a test has not: a network, or the
# source tree.
RUN = {"python", "console"}
SHOWN = {"json", "mermaid", "shell", "text", "yaml"}
INSTALL = re.compile(r"pip install .+|make [\w-]+")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE], ids=name)
def test_examples(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_examples(page)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_that_do_not_run_are_no_examples(page: Path) -> None:
    blocks = FENCE.findall(page.read_text(encoding="utf-8"))
    assert {language for language, _ in blocks} <= RUN | SHOWN
    lines = [line for language, text in blocks if language == "shell" for line in text.splitlines()]
    assert [line for line in lines if not INSTALL.fullmatch(line)] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=name)
def test_links_outside_of_the_site(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_tables_have_all_formats_and_their_encodings() -> None:
    rows = re.findall(r"^\|(.*)\|$", (ROOT / "docs/formats/README.md").read_text("utf-8"), re.M)
    cells = {row.split("|")[0].strip(): row.split("|")[1:] for row in rows}
    names = [re.findall(r"write_(\w+)", cell)[0].replace("_", "-") for cell in cells[""]]
    held = dict(zip(names, cells["`encoding`"], strict=True))
    engines = {name: each for name, each in FORMATS.items() if name not in ("parquet", "arrow")}
    assert {name: set(cell.strip().split(", ")) for name, cell in held.items()} == {
        name: set(each.encodings) for name, each in engines.items()
    }
    of_commands = (ROOT / "docs/cli.md").read_text("utf-8")
    assert [name for name in engines if f"\n| [`{name}`](formats/" not in of_commands] == []
