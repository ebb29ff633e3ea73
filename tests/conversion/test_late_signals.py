"""Signals while the output gets its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conversion.killing import FORMATS

# Sends itself a signal at each call that gives the output its place, and at all that follow.
SIGNALLED = """
import os, signal, sys
from pyarrowquant.__main__ import main
from pyarrowquant.conversion.partial.work import Work

publish = Work.publish

def published(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    sys.setprofile(lambda *_: os.kill(os.getpid(), signal.SIGINT))
    publish(*arguments)
    sys.setprofile(None)

Work.publish = published
main()
"""


@pytest.mark.parametrize("kind", FORMATS)
def test_an_interrupt_while_the_output_gets_its_place_comes_too_late(
    model: Path, tmp_path: Path, kind: str
) -> None:
    name, options = FORMATS[kind]
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", SIGNALLED, "quantize", model, tmp_path / "out" / name]
    done = subprocess.run(
        [*map(str, command), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "layers" in done.stdout
    assert (tmp_path / "out" / name).exists()
    assert not list((tmp_path / "out").glob(".*"))
