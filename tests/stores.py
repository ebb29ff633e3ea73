"""A store in this process, whose writes a test sees, and may refuse."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class WatchedStore(MemoryFileSystem):  # type: ignore[misc]
    """Objects that appear whole, as in real stores.

    Attributes
    ----------
    written : list of str
        Paths, in the order in which they were written.
    before_write : callable
        Gets a path before it is written.
    """

    protocol = "watched"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    cachable = False
    written: ClassVar[list[str]] = []
    before_write: ClassVar[Callable[[str], object]] = print

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if "w" in mode:
            WatchedStore.before_write(path)
            WatchedStore.written.append(path)
        return super()._open(path, mode, **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("watched://", "memory://"))

    @classmethod
    def reset(cls) -> None:
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]
        cls.written.clear()
        cls.allow()

    @classmethod
    def allow(cls) -> None:
        """Write whatever comes."""
        cls.before_write = lambda _path: None

    @classmethod
    def objects(cls, folder: str) -> dict[str, bytes]:
        """All that lies in a folder, by its name relative to it."""
        prefix = f"/{folder}/"
        return {
            path.removeprefix(prefix): file.getvalue()
            for path, file in cls.store.items()
            if path.startswith(prefix)
        }


fsspec.register_implementation("watched", WatchedStore, clobber=True)


def disk_used() -> int:
    """Bytes that files in the folder of temporary files take."""
    places = ((place, name) for place, _, names in os.walk(tempfile.gettempdir()) for name in names)
    return sum(512 * os.lstat(Path(*each)).st_blocks for each in places)
