"""A library that cannot be loaded: the error says so, and what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from child import ROOT

from pyarrowquant._core import library

PROGRAM = """
import numpy as np, pyarrowquant
try:
    pyarrowquant.quantize_batch({"a": np.ones((2, 8), np.float32)})
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("what", ["missing", "empty", "text", "of another processor"])
def test_a_library_that_cannot_be_loaded(tmp_path: Path, what: str) -> None:
    built = shutil.ignore_patterns("__pycache__", "_pyarrowquant.*")
    shutil.copytree(ROOT / "pyarrowquant", tmp_path / "pyarrowquant", ignore=built)
    path = tmp_path / "pyarrowquant" / library.LIBRARY.name
    data = library.LIBRARY.read_bytes()
    if what != "missing":
        other = data[:18] + b"\xff\xff" + data[20:4096]  # of ELF, the processor
        path.write_bytes({"empty": b"", "text": b"no library", "of another processor": other}[what])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith(f"'{path}' cannot be loaded: it is missing, damaged or for ")
    assert "pip install --force-reinstall --no-deps pyarrowquant" in done.stdout
    assert done.stdout.count("\n") == 1
