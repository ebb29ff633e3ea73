"""Files of a run that grow with each batch.

A note that said all of it would be written anew with each batch, and so all of them together would
grow with the square of the layers.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

from pyarrowquant._core.placing import sync
from pyarrowquant._core.system_errors import naming_file
from pyarrowquant.conversion.partial.damage import DAMAGES, damaged
from pyarrowquant.conversion.partial.lock import refuse_others


@dataclass(frozen=True)
class Written:
    """How much of a file counts, from its beginning on, and the checksum of that.

    Attributes
    ----------
    size : int
        In bytes.
    checksum : int
    """

    size: int = 0
    checksum: int = 0

    def followed_by(self, data: bytes) -> Written:
        """Return the same of a file with more behind it."""
        return Written(self.size + len(data), zlib.crc32(data, self.checksum))


NOTHING = Written()


class GrowingFile:
    """A file of lines. A note says how much of it counts.

    Behind that may be what a run that was killed has added, and not noted.

    Parameters
    ----------
    file : Path
    noted : Written
        What counts of it.
    """

    def __init__(self, file: Path, noted: Written) -> None:
        self._file = file
        self._noted = noted
        refuse_others(file)

    def lines(self) -> list[str]:
        """Read all of them, and make sure that they are as they were noted."""
        if not self._noted.size:
            return []
        try:
            with naming_file(self._file), self._file.open("rb") as file:
                data = file.read(self._noted.size)
            if NOTHING.followed_by(data) != self._noted:
                raise ValueError("it is not as it was noted")
            return data.decode().splitlines()
        except (FileNotFoundError, *DAMAGES) as error:
            raise damaged(self._file, error) from error

    def damaged_by(self, error: Exception) -> ValueError:
        """Make the error of lines that say what no run has written."""
        return damaged(self._file, error)

    def add(self, lines: list[str]) -> Written:
        """Put some more onto the disk; return what a note is to say of the file from then on."""
        if not lines:
            return self._noted
        data = "".join(f"{line}\n" for line in lines).encode()
        is_new = not self._file.exists()
        with naming_file(self._file), self._file.open("wb" if is_new else "r+b") as file:
            file.seek(self._noted.size)
            file.write(data)
        sync(self._file)
        if is_new:
            sync(self._file.parent)
        self._noted = self._noted.followed_by(data)
        return self._noted
