"""Files of an output that are made one by one, and sent to a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyarrowquant.conversion.checks import check_room_on_the_way
from pyarrowquant.conversion.clusters.worker import WorkerError
from pyarrowquant.conversion.partial.journal import Stamp
from pyarrowquant.conversion.stores.on_the_way import on_the_way
from pyarrowquant.conversion.stores.store import Store
from pyarrowquant.conversion.stores.stored_work import StoredWork
from pyarrowquant.formats._outline import Outline, OutlinedFile


@dataclass(frozen=True)
class StoreDepot:
    """A store that files are uploaded to.

    Attributes
    ----------
    store : Store
    noted : str
        The path in the store of what the run has put there before.
    paths : dict of str to str
        Where in the store the files are to lie, by their names.
    """

    store: Store
    noted: str
    paths: Mapping[str, str]

    def is_reached(self) -> bool:
        if self.store.stamp(self.noted) is None:
            raise WorkerError(
                f"does not find in '{self.store}' what the driver has put there. Give a store that "
                "all machines reach under this name"
            )
        return True

    @contextmanager
    def room(self, file: OutlinedFile) -> Iterator[tuple[OutlinedFile, Path]]:
        with on_the_way(self.store) as folder:
            output = folder / self.store.name
            if not file.is_beside:
                output.mkdir()
            check_room_on_the_way([file], output)
            yield file, output

    def deliver(self, name: str, path: Path) -> Stamp:
        return self.store.upload(path, self.paths[name])


class FilesInStore:
    """Has files put into a store.

    Parameters
    ----------
    work : StoredWork
    outline : Outline
        Of the output.
    """

    def __init__(self, work: StoredWork, outline: Outline) -> None:
        names = [file.name for file in outline.files]
        self.done = work.begin(names)
        self.left: Sequence[str] = [
            name for name in names if self.done is None or name not in work.files
        ]
        self.depot = StoreDepot(work.store, work.noted, work.first_paths(self.left))

    def take(self, name: str, stamp: Stamp) -> bool:
        """Do nothing: a file has its place when it is uploaded."""
        return True
