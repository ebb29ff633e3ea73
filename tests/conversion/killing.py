"""Runs that are killed, and what they leave."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from child import HANG
from exports import files

SHARDS = 4

# Ends the process as a loss of power would, at the n-th time that something is made durable.
DYING = """
import os, signal, sys
left = int(sys.argv.pop(1))

def dying(function):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

os.replace, os.fsync, os.rmdir = map(dying, (os.replace, os.fsync, os.rmdir))
from pyarrowquant.cli import main
main()
"""

# Ends the process when it has the second part of the results.
DYING_AFTER_TWO = """
import os, signal
replace = os.replace

def call(old, new):
    replace(old, new)
    if os.path.basename(new) == "00000002.arrow":
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = call
from pyarrowquant.cli import main
main()
"""

FORMATS: dict[str, tuple[str, list[str]]] = {
    "parquet": ("out.parquet", []),
    "shards": ("out", ["--to", "arrow"]),
    "compressed": ("out", ["--to", "compressed-tensors", "--group-size", "64"]),
    "bitsandbytes": ("out", ["--to", "bitsandbytes", "--double"]),
    "mlx": ("out", ["--to", "mlx"]),
    "gguf": ("out.gguf", ["--tensors-only"]),
    "onnx": ("out.onnx", ["--tensors-only"]),
}


class Killed(BaseException):
    """Ends a run within this process."""


@contextmanager
def killed_after(owner: type, method: str, times: int) -> Iterator[None]:
    """End what runs within the context when a method has been called so many times."""
    original, left = getattr(owner, method), times

    def call(*arguments: Any) -> Any:
        nonlocal left
        original(*arguments)
        left -= 1
        if left == 0:
            raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, method, call)
        with pytest.raises(Killed):
            yield


def contents(folder: Path, output: str) -> dict[str, bytes]:
    """The output: a file, what lies beside it, or a folder."""
    return {
        name: data
        for name, data in files(folder).items()
        if not name.startswith("model") and output in name
    }


def killed_at(count: int, *arguments: object, before: str = "") -> bool:
    """Run the command until something is made durable for the n-th time; False if it ended.

    `before` is a program that the process begins with.
    """
    command = [sys.executable, "-c", before + DYING, str(count), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0
