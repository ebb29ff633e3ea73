"""Files whose bytes have their places before there are results."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

from pyarrowquant._core import laying
from pyarrowquant._core.layout import Coded
from pyarrowquant._core.locks import is_plain
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Packed
from pyarrowquant.errors import InternalError

_END = 4096  # bytes: a page, of which places may share the first and the last with others


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
        end = len(self.header)
        for begin, region in self.places():
            end = begin + region.size
        return self._aligned(end)

    def lay_out(self, output: Path) -> None:
        """Make a file that is not there yet, of its size, which has no more than its header."""
        with self.path(output).open("xb") as file:
            file.write(self.header)
            file.truncate(self.size)

    def fill_known(self, output: Path, go_on: Callable[[], object] = lambda: None) -> None:
        """Write all that needs no results to its places.

        Parameters
        ----------
        output : Path
        go_on : callable
            Is called before each piece of it, and may raise to break it off.
        """
        with _opened(self.path(output), is_synced=False) as file:
            for begin, region in self.places():
                if isinstance(region, KnownRegion):
                    _fill(file, begin, region, region.pieces(), go_on)

    def begin(self, output: Path) -> None:
        """Write all that needs no results to a file that is not there yet."""
        self.lay_out(output)
        self.fill_known(output)

    def extend(self, output: Path, count: int) -> None:
        """Write all but the first regions, which need no results, to a file that has these."""
        with self.path(output).open("r+b") as file:
            for begin, region in islice(self.places(), count, None):
                assert isinstance(region, KnownRegion)
                _fill(file, begin, region, region.pieces())
            file.truncate(self.size)

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

    @property
    def layers(self) -> set[str]:
        """The names of layers that have places in it."""
        regions = (region for file in self.files for region in file.regions)
        return {region.layer.name for region in regions if isinstance(region, LayerRegion)}

    @property
    def known_bytes(self) -> int:
        """How many bytes need no results."""
        regions = (region for file in self.files for region in file.regions)
        return sum(region.size for region in regions if isinstance(region, KnownRegion))

    def without(self, names: Collection[str]) -> Outline:
        """Return the same without files of these names."""
        return replace(self, files=[file for file in self.files if file.name not in names])

    def lay_out(self, output: Path) -> None:
        """Make files that are not there yet, of their sizes, which have but their headers.

        Parameters
        ----------
        output : Path
            A folder that is there, or the name of the file.
        """
        for outlined in self.files:
            outlined.lay_out(output)

    def fill_known(self, output: Path, go_on: Callable[[], object] = lambda: None) -> None:
        """Write all that needs no results to its places, as `OutlinedFile.fill_known` does."""
        for outlined in self.files:
            outlined.fill_known(output, go_on)

    def has_begun(self, output: Path) -> bool:
        """Whether all files that `lay_out` makes are there, and no links to others."""
        paths = [outlined.path(output) for outlined in self.files]
        return all(
            path.exists() and is_plain(path) and path.stat().st_size == outlined.size
            for path, outlined in zip(paths, self.files, strict=True)
        )

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
        self.lay_out(output)
        self.fill_known(output)
        places = Places(self, output)
        for name in places.names:
            places.fill(layers[name])
            forget()
        self.finish(output)


class Places:
    """The places of layers in the files of an output that has begun.

    Parameters
    ----------
    outline : Outline
    output : Path
    """

    def __init__(self, outline: Outline, output: Path) -> None:
        self._of_layers: dict[str, dict[Path, list[tuple[int, LayerRegion]]]] = {}
        for outlined in outline.files:
            for begin, region in outlined.places():
                if isinstance(region, LayerRegion):
                    files = self._of_layers.setdefault(region.layer.name, {})
                    files.setdefault(outlined.path(output), []).append((begin, region))

    @property
    def names(self) -> Iterable[str]:
        """The names of all layers, in the order of the files."""
        return self._of_layers.keys()

    def files_of(self, name: str) -> Iterable[Path]:
        """Return the files that have something of a layer."""
        return self._of_layers[name].keys()

    def fill(self, layer: Packed, are_shared: bool = False) -> Iterable[Path]:
        """Write what is made of a layer to its places; return the files.

        Parameters
        ----------
        layer : Packed
        are_shared : bool
            Whether other machines have written into the files, too.
        """
        files = self._of_layers[layer.name]
        for path, places in files.items():
            with _opened(path, is_synced=are_shared) as file:
                for begin, region in places:
                    _check_coded(layer, region.layer)
                    _fill(file, begin, region, region.pieces(layer))
        return files

    def fill_opened(self, layer: Packed, files: Mapping[Path, IO[bytes]]) -> list[bytes]:
        """Write the same to files that are open; return what `ends` is to find there."""
        found: list[bytes] = []
        for path, places in self._of_layers[layer.name].items():
            for begin, region in places:
                _check_coded(layer, region.layer)
                _fill(files[path], begin, region, _keeping_ends(region.pieces(layer), found))
        return found

    def ends(self, name: str) -> list[bytes]:
        """Read the begin and the end of each region of a layer."""
        found: list[bytes] = []
        for path, places in self._of_layers[name].items():
            with path.open("rb", buffering=0) as file:
                for begin, region in places:
                    size = min(_END, region.size)
                    for at in (begin, begin + region.size - size):
                        file.seek(at)
                        found.append(file.read(size))
        return found


def opened_shared(path: Path) -> IO[bytes]:
    """Open a file that several machines write into at a time, each to its own places.

    A client of NFS that has all of a page sends all of it, and so what was in the places of others
    when it read that. It does not where each write is to be on the disk when it returns.
    """
    return _opened(path, is_synced=True)


def _opened(path: Path, is_synced: bool) -> IO[bytes]:
    """Open a file that is there to write to places in it, and not to read.

    Else clients of NFS would read a page before they write to a part of it.
    """

    def opener(name: str, flags: int) -> int:
        flags &= ~(os.O_CREAT | os.O_TRUNC)
        return os.open(name, flags | getattr(os, "O_DSYNC", 0) if is_synced else flags)

    return open(path, "wb", opener=opener)


def _keeping_ends(pieces: Iterable[Any], found: list[bytes]) -> Iterator[Any]:
    """Give the same pieces, and keep the begin and the end of all."""
    begin = end = b""
    for piece in pieces:
        view = memoryview(piece).cast("B")
        begin += view[: _END - len(begin)]
        end = (end + view[-_END:])[-_END:]
        yield piece
    found += [begin, end]


def _check_coded(layer: Packed, planned: Coded) -> None:
    """Raise where a layer is coded otherwise than its place was made for."""
    found, expected = (
        (each.shape, each.encoding, each.bits, each.group) for each in (layer, planned)
    )
    if found != expected:
        raise InternalError(
            f"Layer {quoted(layer.name)} is coded as {found}, and not as {expected}"
        )


def _fill(
    file: IO[bytes],
    begin: int,
    region: Region,
    pieces: Iterable[Any],
    go_on: Callable[[], object] = lambda: None,
) -> None:
    file.seek(begin)
    written = 0
    for piece in pieces:
        go_on()
        written += file.write(piece)
    if written != region.size:
        raise InternalError(
            f"'{file.name}' got {written} bytes at {begin}, and was to have {region.size}"
        )
