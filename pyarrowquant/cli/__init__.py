"""The command `pyarrowquant`: model files in, quantized files out."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import click
import pyarrow as pa

from pyarrowquant._core.quoting import printable
from pyarrowquant._version import __version__
from pyarrowquant.cli._show import as_options, warnings_shown
from pyarrowquant.errors import UnquantizedTensorWarning, UsageError

_COMMANDS = (
    "calibrate",
    "compare",
    "dequantize",
    "evaluate",
    "inspect",
    "quantize",
    "recipe",
    "report",
)

_NAMES = f"{__name__}.names"  # of files, in the context


class _Group(click.Group):
    """Says what went wrong in one line, without a traceback; so of warnings.

    A command is imported when it is run: to import them all takes longer than some of them.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(import_module(f"pyarrowquant.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_NAMES] = _of_lines(args)
        with _errors_in_a_line(ctx):  # --help and --version print here
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _errors_in_a_line(ctx), warnings.catch_warnings():
            warnings.showwarning = warnings_shown()
            warnings.simplefilter("always", UserWarning)
            warnings.simplefilter("ignore", UnquantizedTensorWarning)  # closing lines say so
            return super().invoke(ctx)


@contextmanager
def _errors_in_a_line(ctx: click.Context) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader of a pipe has seen enough
        raise
    except click.ClickException as e:
        # It is final by its annotation alone; the class and its context are to stay.
        vars(e).update(message=_escaped(e.message, ctx.meta[_NAMES]))
        raise
    except UsageError as e:
        raise click.UsageError(_short(str(e), ctx.meta[_NAMES])) from e
    except (ValueError, TypeError, OSError, ImportError, MemoryError, pa.ArrowException) as e:
        message = _short(str(e), ctx.meta[_NAMES]) or type(e).__name__
        if isinstance(e, OSError) and e.filename is None and _is_of_printing(e):
            message = f"Standard output cannot be written: {e.strerror or message}"
            _drop_output()
        if _is_nowhere():
            message = (
                "The current folder was removed. Change to another one, or give whole paths: "
                f"{message}"
            )
        raise click.ClickException(message) from e


def _is_of_printing(error: OSError) -> bool:
    """Whether an error was raised where click prints."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and str(at.tb_frame.f_globals.get("__name__")).startswith("click.")


def _drop_output() -> None:
    """Let what was printed lead to nowhere, or Python would fail again to write it at its end."""
    with suppress(OSError, ValueError):  # a stream that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_nowhere() -> bool:
    """Whether the folder that relative paths begin at was removed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _of_lines(arguments: Sequence[str]) -> frozenset[str]:
    """Return the names of files and folders in arguments that would break a line."""
    with suppress(OSError):
        arguments = [*arguments, os.getcwd()]
    names = {name for each in arguments for name in re.split(r"[/\\=]", each)}
    return frozenset(name for name in names if len(name.splitlines()) > 1)


def _escaped(message: str, names: Collection[str]) -> str:
    for name in names:
        message = message.replace(name, printable(name))
    return message


def _short(message: str, names: Collection[str]) -> str:
    """Leave out the middle where a great many layers have the same to say.

    Parameters
    ----------
    message : str
    names : collection of str
        Those of files that would break a line.
    """
    escaped = _escaped(message, names)
    lines = [printable(line) for line in as_options(escaped).splitlines()]
    if len(lines) > 8:
        lines[5:-1] = [f"... and {len(lines) - 6} lines more"]
    return "\n".join(lines)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="pyarrowquant")
def main() -> None:
    """Quantize model weights, without torch and without a GPU.

    Exit codes: 0 done, 1 failed (one line on standard error says why), 2 wrong usage, 130
    interrupted, 143 terminated.
    """
