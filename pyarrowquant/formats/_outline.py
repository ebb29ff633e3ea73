"""Files whose bytes have their places before there are results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from pyarrowquant._core import laying
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.results import Packed
from pyarrowquant.errors import InternalError


@dataclass(frozen=True)
class KnownRegion:
    """Bytes of a file that need no results.

    Attributes
    ----------
    size : int
    pieces : callable
        Gives the bytes, as buffers one after the other.
    """

    size: int
    pieces: Callable[[], Iterable[Any]]


@dataclass(frozen=True)
class LayerRegion:
    """Bytes of a file that are made of the results of a layer.

    Attributes
    ----------
    size : int
    layer : Coded
        How it is, or will be, coded.
    pieces : callable
        Gives the bytes of the packed layer, as buffers one after the other, each of which is used
        before the next one comes.
    """

    size: int
    layer: Coded
    pieces: Callable[[Packed], Iterable[Any]]


Region = KnownRegion | LayerRegion


def part_region(layer: Coded, part: laying.Part) -> LayerRegion:
    """Return the place of a part of a layer."""
    size = layer.shape[0] * part.row_bytes
    return LayerRegion(size, layer, partial(laying.pieces, part=part))


@dataclass(frozen=True)
class OutlinedFile:
    """A file of regions, one behind the other.

    Attributes
    ----------
    name : str
        Within the output; empty where the output is this file.
    header : bytes
    regions : sequence of Region
    alignment : int
        Of the beginnings of regions and the file's end.
    is_beside : bool
        Whether it lies beside the output and not in it.
    """

    name: str
    header: bytes
    regions: Sequence[Region]
    alignment: int = 1
    is_beside: bool = False

    def path(self, output: Path) -> Path:
        """Return where it is."""
        return output.with_name(self.name) if self.is_beside else output / self.name

    def places(self) -> Iterator[tuple[int, Region]]:
        """Give each region, with the place where it begins."""
        begin = self._aligned(len(self.header))
        for region in self.regions:
            yield begin, region
            begin = self._aligned(begin + region.size)

    @property
    def size(self) -> int:
        size = self._aligned(len(self.header))
        for region in self.regions:
            size = self._aligned(size + region.size)
        return size

    def _aligned(self, position: int) -> int:
        return -(-position // self.alignment) * self.alignment


@dataclass(frozen=True)
class Outline:
    """What an output will be.

    Attributes
    ----------
    files : sequence of OutlinedFile
        Those that have weights.
    finish : callable
        Writes all other files of an output, whose path it gets.
    """

    files: Sequence[OutlinedFile]
    finish: Callable[[Path], object] = lambda _: None

    def write(
        self,
        output: Path,
        layers: Mapping[str, Packed],
        forget: Callable[[], object] = lambda: None,
    ) -> None:
        """Write the output, of which nothing is there yet but its folder.

        Parameters
        ----------
        output : Path
        layers : mapping
            All packed layers by their names.
        forget : callable
            Is called when the memory of a layer is not needed any more.
        """
        for outlined in self.files:
            with outlined.path(output).open("xb") as file:
                _begin(file, outlined)
                for begin, region in outlined.places():
                    if isinstance(region, LayerRegion):
                        _fill(file, begin, region, region.pieces(layers[region.layer.name]))
                        forget()
        self.finish(output)


def _begin(file: IO[bytes], outlined: OutlinedFile) -> None:
    """Write all that needs no results."""
    file.write(outlined.header)
    for begin, region in outlined.places():
        if isinstance(region, KnownRegion):
            _fill(file, begin, region, region.pieces())
    file.truncate(outlined.size)


def _fill(file: IO[bytes], begin: int, region: Region, pieces: Iterable[Any]) -> None:
    file.seek(begin)
    written = sum(file.write(piece) for piece in pieces)
    if written != region.size:
        raise InternalError(
            f"'{file.name}' got {written} bytes at {begin}, and was to have {region.size}"
        )
