"""Files that a command reads: what changes meanwhile is an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrowquant.conversion.partial.identity import check_files, described
from pyarrowquant.conversion.source import local_files, local_path
from pyarrowquant.reading.location import locate


class ReadFiles:
    """The files of sources of this machine, as they are before they are read.

    Parameters
    ----------
    *sources : str or Path
        Models and results. Of those elsewhere nothing is found out.
    """

    def __init__(self, *sources: str | Path) -> None:
        self.paths: list[Path] = []
        self._read = []
        for source in map(str, sources):
            paths = local_files(local_path(source))
            files = [locate(path, None) for path in dict.fromkeys(paths) if path.is_file()]
            self.paths += paths
            self._read.append((f"'{source}'", files, described(files)))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Say which file has changed, where that may be why reading fails, or what was read."""
        try:
            yield
        except Exception:
            self.check()
            raise

    def check(self) -> None:
        """Raise where a file was written to, or replaced, since this was made."""
        for source, files, before in self._read:
            check_files(source, files, before)
