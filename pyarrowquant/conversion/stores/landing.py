"""Where an output is made: at its place on this machine, or on its way to a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pyarrowquant._core.placing import refuse_root
from pyarrowquant.conversion.stores.on_the_way import on_the_way
from pyarrowquant.conversion.stores.store import Store, located
from pyarrowquant.reading.location import given_path
from pyarrowquant.reading.uris import is_uri


@dataclass(frozen=True)
class Landing:
    """Where an output is made.

    Attributes
    ----------
    path : Path
        Its place, or where its files lie until they are in the store.
    store : Store or None
        Where they go from there.
    """

    path: Path
    store: Store | None = None

    def __str__(self) -> str:
        return str(self.place)

    @property
    def place(self) -> Path | str:
        """Where the output will be."""
        return self.path if self.store is None else str(self.store)

    def at(self, path: Path) -> Landing:
        """Return the same, at the path that links lead to."""
        return replace(self, path=path)

    def beside(self, name: str) -> Path | str:
        """Return where a file of the output is that lies beside its place."""
        return self.path.with_name(name) if self.store is None else self.store.shown_beside(name)


@contextmanager
def landing(destination: str | os.PathLike[str]) -> Iterator[Landing]:
    """Give the place where an output is made; for a store a temporary folder of this machine.

    Raises
    ------
    UsageError
        The destination is a whole bucket, or the root folder.
    ImportError
        A package that knows the store is missing.
    OSError
        The store is not reached.
    """
    path = given_path("destination", destination)
    if not isinstance(destination, str) or not is_uri(destination):
        refuse_root(path)
        yield Landing(path)
        return
    location = located(destination)
    if location.is_local:
        refuse_root(Path(location.path))
        yield Landing(Path(location.path))
        return
    store = Store(destination, location)
    with on_the_way(store) as folder:
        yield Landing(folder / store.name, store)
