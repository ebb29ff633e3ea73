"""Many attempts in a child process; one that dies is reported with the attempt that killed it.

A module has a function `attempts` that gives labels and calls. A call returns what is wrong, or
None. The child writes down each label before the call, and the next child goes on after it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from child import HANG

Attempts = Iterable[tuple[str, Callable[[], str | None]]]


def survey(module: str, log: Path, **said: Any) -> tuple[int, list[str]]:
    """Make all attempts of a module; gives how many there were, and what was wrong with which."""
    log.write_text("")
    while True:
        first = len(log.read_text().splitlines())
        arguments = [sys.executable, __file__, module, str(log), str(first), json.dumps(said)]
        child = subprocess.run(
            arguments,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )
        if child.returncode == 0:
            break
        written = log.read_text()
        assert written[-1:] not in ("", "\n"), f"the child failed itself: {child.stderr}"
        log.write_text(f"{written}killed it: {child.returncode}\n")
    lines = log.read_text().splitlines()
    return len(lines), [line for line in lines if not line.endswith("\tfine")]


def run(module: str, log: str, first: str, said: str) -> None:
    warnings.simplefilter("ignore")
    found: Attempts = importlib.import_module(module).attempts(**json.loads(said))
    with open(log, "a") as written:
        for label, call in islice(found, int(first), None):
            written.write(f"{label}\t")
            written.flush()
            problem = call()
            written.write(f"{' '.join((problem or 'fine').split())}\n")
            written.flush()


if __name__ == "__main__":
    run(*sys.argv[1:])
