"""A process for llama.cpp, which ends its own where it finds what it does not expect."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any

from pyarrowquant._core.quoting import printable
from pyarrowquant.evaluation.child import FAILED, FOUND
from pyarrowquant.evaluation.counting import DONE, RUNNING, Evaluation
from pyarrowquant.evaluation.request import Request

# Modules come from where those of this process do, and never from the current folder alone.
_PROGRAM = (
    "import sys; sys.path = [each for each in sys.path if each]; import pickle; "
    "sys.path = pickle.load(sys.stdin.buffer); "
    "from pyarrowquant.evaluation.child import main; main()"
)
# llama.cpp would start a debugger where it aborts; its threads are those that are asked for.
_ENVIRONMENT = {"GGML_NO_BACKTRACE": "1", "OPENBLAS_NUM_THREADS": "1"}
_NO_MEMORY = "bad_alloc"  # the exception of C++
_LONGEST_END, _LONGEST_LINE = 4096, 200  # of what was printed


def run_apart(request: Request, progress: Callable[[int, int], object] | None) -> Evaluation:
    """Let another process predict a text.

    Raises what it raises there.

    Raises
    ------
    ValueError
        The process ended without an answer.
    """
    with (
        tempfile.TemporaryFile() as printed,
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=printed,
            env={**os.environ, **_ENVIRONMENT},
        ) as process,
    ):
        try:
            running = None
            for what, value in _answers(process, request):
                if what == FOUND:
                    assert isinstance(value, Evaluation)
                    return value
                if what == FAILED:
                    raise value
                if what == RUNNING:
                    running = value
                elif what == DONE and progress is not None:
                    progress(*value)
            raise _ended(process.wait(), running, _last_line(printed))
        finally:
            process.kill()


def _answers(process: subprocess.Popen[bytes], request: Request) -> Iterator[tuple[str, Any]]:
    """Ask a process, and give its answers until it ends."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError), process.stdin as asked:  # of a process that has ended
        for each in (sys.path, request):
            pickle.dump(each, asked)
    with suppress(EOFError, pickle.UnpicklingError):  # no answer, or a part of one
        while True:
            yield pickle.load(process.stdout)


def _last_line(printed: IO[bytes]) -> str:
    """Return what llama.cpp printed last, without the folders of its own sources."""
    size = printed.seek(0, os.SEEK_END)
    printed.seek(max(size - _LONGEST_END, 0))
    lines = printed.read().decode(errors="replace").split("\n")
    line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    start, space, rest = line.partition(" ")
    return printable(start.rpartition("/")[2] + space + rest)[:_LONGEST_LINE]


def _ended(code: int, path: str | None, line: str) -> ValueError:
    how = f"code {code}"
    with suppress(ValueError):
        how = signal.Signals(-code).name
    what = "The process of llama.cpp ended" if path is None else f"{path}: llama.cpp ended"
    printed = f", and printed last: {line}" if line else ""
    if how == "SIGKILL" or _NO_MEMORY in line:
        way_out = "That is for want of memory: take fewer threads=, a smaller context= or model"
    elif path is None:
        way_out = "Install it anew: pip install --force-reinstall llama-cpp-python"
    else:
        way_out = (
            "The file is damaged, or needs another version of llama-cpp-python: make it again, or "
            "upgrade that"
        )
    return ValueError(f"{what} with {how}{printed}. {way_out}")
