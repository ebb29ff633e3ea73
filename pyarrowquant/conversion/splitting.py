"""An output that is split into files of a size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyarrowquant._core import arguments
from pyarrowquant._core.settings import Settings
from pyarrowquant.errors import UsageError
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._gguf_split import is_part, part_name, parts_beside, room_of, split_of
from pyarrowquant.formats._origin import Origin, Split
from pyarrowquant.formats._sized_format import SizedFormat
from pyarrowquant.formats.registry import FORMATS
from pyarrowquant.reading.model import Model


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


def choices_of(
    target: Format, model: Model, origin: Origin
) -> Callable[[Settings, Sequence[int]], list[Settings]]:
    """Return what lists the settings that a budget may choose for a layer, the largest last.

    Of an output that is split, those for which a file has room; if there are none, the smallest.
    """
    if origin.split is None:
        return target.candidates
    assert isinstance(target, SizedFormat)  # as of check_split
    header = target.bytes_beside(model, (), (), origin)
    room = 8 * room_of(origin.split, header, target.alignment(model))

    def choices(settings: Settings, shape: Sequence[int]) -> list[Settings]:
        found = target.candidates(settings, shape)
        return [each for each in found if target.stored_bits(shape, each) <= room] or found[:1]

    return choices
