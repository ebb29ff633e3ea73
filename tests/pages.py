"""Pages whose examples run: Python blocks as doctests, console blocks as commands."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

from child import HANG
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# A command after a prompt, which backslashes continue, and what it prints.
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n?)*)", re.MULTILINE)
# A line every two seconds, which a busy machine needs for what the pages show.
PROGRESS = re.compile(r"^\w+: (?:\d+ layers?, .*|[\d.]+ \w+ of .*)\n", re.MULTILINE)


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


def run_examples(page: Path) -> None:
    """Run the examples of a page in order, in the current folder."""
    for example in SYBIL.parse(page):
        example.evaluate()
