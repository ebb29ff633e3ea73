"""What commands print: JSON, tables of text, sizes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from pyarrowquant._core.quoting import in_line, printable

# Those that a command has as options, with a value or without.
_ARGUMENT = re.compile(
    r"\b(to|dtype|bit_width|group_size|method|zero_point|scale_dtype|encoding|recipe|"
    r"bits_per_weight|size|quality_floor|importance|context|threads|engine|address|"
    r"max_memory|continue_on_error|resume|overwrite|split|double|tensors_only|pre_tokenizer|"
    r"rescale|against)="
    r"(True|\"[\w-]+\"|'[\w-]+'|\d+)?"
)
_OTHER_NAMES = {"bit_width": "bits"}

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def show_json(value: object) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(plain(value), indent=2))


def plain(value: Any) -> Any:
    """Replace numbers that JSON lacks by "inf", "-inf" and "nan"."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def show_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns: the first to the left, the others to the right."""
    lines = [[printable(cell) for cell in line] for line in (titles, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        first = line[0].ljust(widths[0])
        others = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        click.echo("  ".join([first, *others]).rstrip())


def show_columns(rows: Iterable[tuple[str, str]], err: bool = False) -> None:
    """Print names, and behind each what is said of it."""
    lines = list(rows)
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        click.echo(f"{name.ljust(width)}  {text}", err=err)


def warnings_shown() -> Callable[..., None]:
    """Return what prints a warning in a line of its own, each text once.

    Settings that a quality floor chooses are checked as those before were.
    """
    told = set()

    def show(message: Warning | str, *_: object) -> None:
        text = printable(as_options(str(message)))
        if text not in told:
            told.add(text)
            click.echo(text, err=True)

    return show


def as_options(message: str) -> str:
    """Say arguments of Python as the options of the command line."""
    return _ARGUMENT.sub(_option, message)


def _option(argument: re.Match[str]) -> str:
    name = _OTHER_NAMES.get(argument[1], argument[1].replace("_", "-"))
    value = (argument[2] or "").strip("\"'")
    return f"--{name}" if value in ("", "True") else f"--{name} {value}"


def counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], most: int = 10) -> str:
    """The first names of many."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(in_line, names[:most])) + more


def quoted_path(path: object) -> str:
    """Show a whole path of this machine or of a store, in one line."""
    return f"'{printable(str(path))}'"


def size_text(count: float) -> str:
    """Bytes as people read them, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:  # from there on, three digits are 1e+03
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def shape_text(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
