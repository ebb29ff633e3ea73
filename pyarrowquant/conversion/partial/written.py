"""What workers of a cluster have written of an output: a file that grows with each batch.

A note that named all of it would be written anew with each batch, and so all of them together
would grow with the square of the layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pyarrowquant._core.placing import sync
from pyarrowquant._core.system_errors import naming_file
from pyarrowquant.conversion.partial.lock import refuse_others
from pyarrowquant.conversion.partial.parts import DAMAGES, Written, damaged

_NAME = "written.txt"


class WrittenLayers:
    """Checksums of what workers have written of layers, by the numbers that these have.

    Each has a line. A note says how much of the file counts; behind that may be what a run that was
    killed has added, and not noted.

    Parameters
    ----------
    folder : Path
        Of the run.
    noted : Written
        What counts of the file.
    """

    def __init__(self, folder: Path, noted: Written) -> None:
        self._file = folder / _NAME
        self._noted = noted
        refuse_others(self._file)

    def read(self) -> dict[int, str]:
        """Read all of them, and make sure that they are as they were noted."""
        if not self._noted.size:
            return {}
        try:
            with naming_file(self._file), self._file.open("rb") as file:
                data = file.read(self._noted.size)
            if Written().followed_by(data) != self._noted:
                raise ValueError("it is not as it was noted")
            lines = (line.split() for line in data.decode().splitlines())
            return {int(number): found for number, found in lines}
        except (FileNotFoundError, *DAMAGES) as error:
            raise damaged(self._file, error) from error

    def add(self, found: Mapping[int, str]) -> Written:
        """Put some more onto the disk; return what a note is to say of the file from then on."""
        data = "".join(f"{number} {each}\n" for number, each in found.items()).encode()
        is_new = not self._file.exists()
        with naming_file(self._file), self._file.open("wb" if is_new else "r+b") as file:
            file.seek(self._noted.size)
            file.write(data)
        sync(self._file)
        if is_new:
            sync(self._file.parent)
        self._noted = self._noted.followed_by(data)
        return self._noted
