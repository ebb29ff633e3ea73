"""Run the command line: ``pyarrowquant``, or ``python -m pyarrowquant``."""

from __future__ import annotations

import _thread
import gc
import io
import os
import signal
import sys
import time

TYPE_CHECKING = False  # which checkers take for true; typing takes longer to import than the rest
if TYPE_CHECKING:
    from typing import NoReturn

INTERRUPTED, TERMINATED = 130, 143  # as shells have it
_told: list[int] = []  # what codes signals have ended the process with
_IMPORTED = 10_000  # objects: imports make many, and hardly any is garbage


def main() -> None:
    """Run the command line in a process of its own, which ends when it is told to.

    This is told from the first moment on: what is imported takes longer than some commands. So
    what comes before, here and in the package's own file, is kept short.
    """
    _open_closed_streams()
    _print_any_name()
    signal.signal(signal.SIGINT, lambda *_: _leave("Interrupted\n", INTERRUPTED))
    signal.signal(signal.SIGTERM, lambda *_: _leave("", TERMINATED))
    gc.set_threshold(_IMPORTED)
    _import_numpy()
    from pyarrowquant.cli import main as run
    from pyarrowquant.cli._pandas import leave_out_pandas

    leave_out_pandas()
    signal.signal(signal.SIGINT, _interrupted)
    signal.signal(signal.SIGTERM, _terminated)
    sys.unraisablehook = _not_raised
    try:
        run(prog_name="pyarrowquant")
    except SystemExit as end:
        if _told and end.code:  # Ray ends with 1 where a signal comes while it waits
            end.code = _told[0]
        raise
    finally:  # what is done is done
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if "torch" not in sys.modules:  # whose Triton prints what is not collected
            gc.freeze()  # the process ends: nobody has to look for what is garbage


def _import_numpy() -> None:
    """Leave out the threads of its BLAS: they would wait in a loop for what no command asks for.

    Others that are imported later may need theirs.
    """
    name = "OPENBLAS_NUM_THREADS"
    if name not in os.environ:
        os.environ[name] = "1"
        import numpy  # noqa: F401

        del os.environ[name]


def _open_closed_streams() -> None:
    """Let streams that were closed lead to nowhere: a file would get their numbers, and their text.

    The lowest number that is free is what a file gets.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115, it stays
            setattr(sys, name, stream)


def _print_any_name() -> None:
    """Print what the output's encoding lacks as its number: on Windows that of a file has little.

    Names of layers may have any character.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _leave(message: str, code: int) -> NoReturn:
    """End where nothing is to be cleaned up."""
    _say(message)
    os._exit(code)


def _interrupted(*_: object) -> NoReturn:
    _say("Interrupted\n")
    _end(INTERRUPTED)


def _terminated(*_: object) -> NoReturn:
    _end(TERMINATED)


def _end(code: int) -> NoReturn:
    """End as a signal has it, which lets files of incomplete results be removed."""
    _told.append(code)
    sys.exit(code)


def _not_raised(ignored: sys.UnraisableHookArgs) -> None:
    """Send a signal again that came where Python drops exceptions, as in callbacks of C."""
    if isinstance(ignored.exc_value, SystemExit):
        number = signal.SIGINT if ignored.exc_value.code == INTERRUPTED else signal.SIGTERM
        _thread.start_new_thread(_send_again, (number,))
    else:
        sys.__unraisablehook__(ignored)


def _send_again(number: signal.Signals) -> None:
    time.sleep(0.01)  # until the callback is left
    _thread.interrupt_main(number)


def _say(message: str) -> None:
    os.write(2, message.encode())  # Python's own stream may be in use just then


if __name__ == "__main__":
    main()
