"""Every example on every page runs: Python blocks as doctests, console blocks as commands."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from child import HANG, ROOT
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# A command after a prompt, which backslashes continue, and what it prints.
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n?)*)", re.MULTILINE)
# A line every two seconds, which a busy machine needs for what the pages show.
PROGRESS = re.compile(r"^\w+: (?:\d+ layers?, .*|[\d.]+ \w+ of .*)\n", re.MULTILINE)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Blocks of other languages show files. `shell` blocks need what a test has not: a network, or the
# source tree.
RUN = {"python", "console"}
SHOWN = {"json", "mermaid", "shell", "text", "yaml"}
INSTALL = re.compile(r"pip install .+|make [\w-]+")


def run_commands(example: Example) -> str | None:
    """Run the commands of a console block; where output is shown, theirs is like it."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "80",
        "PYTHONWARNINGS": "error",
    }
    for command, wanted in COMMAND.findall(example.parsed):
        done = subprocess.run(
            ["bash", "-ec", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            timeout=HANG,
            check=False,
        )
        if done.returncode:
            return f"$ {command}\nended with {done.returncode}:\n{done.stdout}"
        printed = PROGRESS.sub("", done.stdout)
        shown = doctest.Example(command, wanted)
        checker = doctest.OutputChecker()
        if wanted.strip() and not checker.check_output(shown.want, printed, FLAGS):
            return f"$ {command}\n{checker.output_difference(shown, printed, FLAGS)}"
    return None


SYBIL = Sybil(
    [PythonCodeBlockParser(doctest_optionflags=FLAGS), CodeBlockParser("console", run_commands)]
)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_examples(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for example in SYBIL.parse(page):
        example.evaluate()


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
