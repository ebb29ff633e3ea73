"""The size of the output as a budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyarrowquant._core import arguments
from pyarrowquant.conversion.unquantized import UnquantizedTensor
from pyarrowquant.errors import InternalError, UsageError
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats._sized_format import SizedFormat
from pyarrowquant.formats.registry import FORMATS
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.budget import too_small_error
from pyarrowquant.recipes.planned import PlannedLayer


@dataclass(frozen=True)
class FileSize:
    """The most bytes that a file may have.

    Attributes
    ----------
    size : int
    beside : int
        What it has beside the data of layers.
    alignment : int
        Layers take a multiple of so many bytes.
    """

    size: int
    beside: int
    alignment: int

    def bits(self, weights: int) -> int:
        return 8 * (self.size - self.beside)

    def of_layer(self, bits: int) -> int:
        block = 8 * self.alignment
        return -(-bits // block) * block

    def too_small(self, weights: int, least: int, floor: bool) -> ValueError:
        return too_small_error(floor)(
            f"Invalid size: {self.size:,} bytes. The smallest output"
            f"{' that passes the quality_floor' if floor else ''} has "
            f"{self.beside + least // 8:,} bytes"
        )

    def check(self, written: int) -> None:
        """Raise where more was written than foreseen."""
        if written > self.size:
            raise InternalError(f"The output has {written:,} bytes, and was to have {self.size:,}")


def check_size(size: object, target: Format, others: Iterable[str]) -> int:
    """Return a size that a format can have.

    Parameters
    ----------
    size : object
    target : Format
    others : iterable of str
        Arguments that say what a size decides.
    """
    number = arguments.integer("size", size)
    if number < 1:
        raise UsageError(f"Invalid size: {number}. Must be a number of bytes, 1 or more")
    if not isinstance(target, SizedFormat):
        sized = (name for name, each in FORMATS.items() if isinstance(each, SizedFormat))
        known = " and ".join(sized)
        raise UsageError(
            f"size= is for to={known!r}, whose size is known beforehand. bits_per_weight= is for "
            f"to={target.name!r} too"
        )
    for name in others:
        raise UsageError(f"size= and {name}= exclude each other")
    return number


def file_size(
    size: int,
    target: Format,
    model: Model,
    layers: Sequence[PlannedLayer],
    left: Sequence[UnquantizedTensor],
    origin: Origin,
) -> FileSize:
    """Return the budget that a size leaves to layers."""
    assert isinstance(target, SizedFormat)  # as of check_size
    coded = [layer for layer in layers if layer.settings is not None]
    kept = [tensor for tensor in left if tensor.kept]
    beside = target.bytes_beside(model, coded, kept, origin)
    return FileSize(size, beside, target.alignment(model))
