"""An output that is split into files of a size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pyarrowquant._core import arguments
from pyarrowquant.errors import UsageError
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._gguf_split import is_part, part_name, parts_beside, split_of
from pyarrowquant.formats._origin import Split
from pyarrowquant.formats.registry import FORMATS


@dataclass(frozen=True)
class OutputFile:
    """A file of an output that is split.

    Attributes
    ----------
    name : str
    bytes : int
    """

    name: str
    bytes: int


def check_split(
    size: object, destination: Path, target: Format, others: Mapping[str, bool]
) -> Split:
    """Return how an output is split.

    Parameters
    ----------
    size : object
        The most bytes of a file.
    destination : Path
        What parts are named after.
    target : Format
    others : mapping of str to bool
        Arguments that contradict it, and whether they are said.
    """
    number = arguments.integer("split", size)
    if number < 1:
        raise UsageError(f"Invalid split: {number}. Must be a number of bytes, 1 or more")
    if not target.splits:
        known = " and ".join(name for name, each in FORMATS.items() if each.splits)
        raise UsageError(f"split= is for to={known!r}, and not for to={target.name!r}")
    for name, is_said in others.items():
        if is_said:
            raise UsageError(f"split= and {name}= exclude each other")
    if is_part(destination.name):
        raise UsageError(
            f"'{destination}' is the name of a part. Give what parts are named after, such as "
            "NAME.gguf, which become NAME-00001-of-00003.gguf and the like"
        )
    return split_of(destination, number)


def parts_for(destination: Path, split: Split) -> list[Path]:
    """List the parts that an output of a split may replace, and one that it may have."""
    usual = destination.with_name(part_name(split.name, 1, 1))
    return sorted({usual, *parts_beside(destination, split.name)})
