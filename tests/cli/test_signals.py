"""Signals from the first moment of a run on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from child import HANG

import pyarrowquant

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

# Sends itself a signal when a module is about to be imported.
PROGRAM = """
import os, sys
from pyarrowquant.__main__ import main

module, number = sys.argv[1], int(sys.argv[2])

class Signals:
    def find_spec(self, name, path, target=None):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Signals())
sys.argv = ["pyarrowquant", "quantize", "--help"]
main()
print("was not interrupted")
"""


# Sends itself a signal in a callback whose exceptions Python drops.
CALLBACK = """
import os, sys, weakref
from pyarrowquant import cli
from pyarrowquant.__main__ import main

class Object: pass

def run(**_):
    referred = Object()
    callback = weakref.ref(referred, lambda _: os.kill(os.getpid(), int(sys.argv[1])))
    del referred
    while True:
        pass

cli.main = run
main()
"""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, {"Interrupted"}), (signal.SIGTERM, 143, set())],
)
def test_where_exceptions_are_dropped(number: int, code: int, said: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALLBACK, str(int(number))],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG,
    )
    assert done.returncode == code
    assert set(done.stderr.splitlines()) == said


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "Interrupted\n"), (signal.SIGTERM, 143, "")],
)
@pytest.mark.parametrize("module", ["click", "numpy", "pyarrow", "pyarrowquant.cli.quantize"])
def test_during_imports(module: str, number: int, code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module, str(int(number))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


def test_little_is_imported_before_signals_are_handled() -> None:
    """A signal that comes earlier is Python's, which prints a traceback."""
    program = (
        "import sys, __future__, _thread, gc, importlib, os, signal, time; "
        "before = set(sys.modules); import pyarrowquant.__main__; "
        "print(*sorted(sys.modules.keys() - before))"
    )
    root = Path(pyarrowquant.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["pyarrowquant", "pyarrowquant.__main__", "pyarrowquant._version"]
