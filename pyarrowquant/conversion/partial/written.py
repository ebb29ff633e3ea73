"""What of an output workers of a cluster have written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pyarrowquant.conversion.partial.damage import DAMAGES
from pyarrowquant.conversion.partial.growing import GrowingFile, Written

_NAME = "written.txt"


class WrittenLayers:
    """Checksums of what workers have written of layers, by the numbers that these have.

    Parameters
    ----------
    folder : Path
        Of the run.
    noted : Written
        What counts of their file, in which each has a line.
    """

    def __init__(self, folder: Path, noted: Written) -> None:
        self._file = GrowingFile(folder / _NAME, noted)

    def read(self) -> dict[int, str]:
        """Read all of them, and make sure that they are as they were noted."""
        lines = self._file.lines()
        try:
            return {int(number): found for number, found in map(str.split, lines)}
        except DAMAGES as error:
            raise self._file.damaged_by(error) from error

    def add(self, found: Mapping[int, str]) -> Written:
        """Put some more onto the disk; return what a note is to say of the file from then on."""
        return self._file.add([f"{number} {each}" for number, each in found.items()])
