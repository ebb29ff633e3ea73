"""What a run has put into a store so far, so that another one can continue it from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from pyarrowquant.conversion.partial.checksums import checked
from pyarrowquant.conversion.partial.damage import DAMAGES, WorkError, damaged
from pyarrowquant.conversion.partial.interrupted import Continued, continued
from pyarrowquant.conversion.partial.journal import Journal
from pyarrowquant.conversion.partial.lock import LOCK, RUN
from pyarrowquant.conversion.partial.noted import folder_of, output_in
from pyarrowquant.conversion.partial.parts import Done, part_file
from pyarrowquant.conversion.partial.work import RECIPE, Work, not_as_left, warn
from pyarrowquant.conversion.stores.landing import Landing
from pyarrowquant.conversion.stores.store import Store
from pyarrowquant.formats._gguf_split import is_part_of
from pyarrowquant.formats._outputs import exists_error
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.safetensors import INDEX_SUFFIX

_JOURNAL = "stored.json"


def journal_folder(store: Store) -> str:
    """Return the path of what is the folder of the work for a store."""
    return store.beside(f".{store.name}.partial")


def journal_of(store: Store) -> Journal:
    """Read what an interrupted run has noted in a store; an empty one if there is none."""
    text = store.read(f"{journal_folder(store)}/{_JOURNAL}")
    return Journal() if text is None else _read(text, store)


def journal_or_none(store: Store) -> Journal:
    """Return the same; an empty one also where it is damaged.

    Nothing says then which files are of that run.
    """
    try:
        return journal_of(store)
    except WorkError:  # which resuming says
        return Journal()


def _read(text: bytes, store: Store) -> Journal:
    try:
        return Journal.from_json(checked(text))
    except DAMAGES as error:
        name = store.shown_beside(f".{store.name}.partial/{_JOURNAL}")
        raise damaged(name, error) from error


class StoredWork(Work):
    """The work for a destination in a store, where all that a run continues from is as well.

    What has the name of a hidden folder beside the destination has run.json, the recipe that was
    fitted, parts of results, and stored.json, which says what files of the output are whole. These
    have their places from then on if nothing was there before; else they lie apart in that folder
    until all are there. What makes them usable comes last: of a folder its index and config.json,
    of a split output the first part. On this machine are only files that are being made.

    Parameters
    ----------
    landing : Landing
        On its way to a store.
    run : dict
        What decides about the results.
    resume : bool
        Whether to go on from what is in the store.
    is_folder : bool
        Whether the output is a folder.
    overwrite : bool
        Whether what is there may be replaced.
    """

    def __init__(
        self, landing: Landing, run: dict[str, Any], resume: bool, is_folder: bool, overwrite: bool
    ) -> None:
        assert landing.store is not None
        super().__init__(landing.path, run, resume)
        self.store = landing.store
        self._there = journal_folder(self.store)
        self._is_folder = is_folder
        self._overwrite = overwrite
        self._has_begun = self._is_published = False

    def __enter__(self) -> StoredWork:
        if self._resume:
            _fetch(self.store, self._folder)
        super().__enter__()
        self._has_begun = True
        return self

    @property
    def kept_in(self) -> str:
        return self.store.shown_beside(f".{self.store.name}.partial")

    def begin(self, names: Collection[str]) -> Done | None:
        """Say which files of the output come into the store before its end.

        Returns
        -------
        Done or None
            How far an interrupted run was.

        Raises
        ------
        FileExistsError
            Some are there, and must not be replaced.
        WorkError
            What is there of an interrupted run has changed.
        """
        if self._journal.names:
            self._check_files()
        else:
            found = any(self.store.stamps([self._path(name) for name in names])) or (
                self._is_folder and bool(self.store.names_within())
            )
            if found and not self._overwrite:
                raise exists_error(self.store)
            self._journal.replaces = found
        self._journal.names.update(names)
        self._write_journal()
        return self._journal.done

    def first_paths(self, names: Iterable[str]) -> dict[str, str]:
        """Return where files lie until all are there, by their names."""
        return {name: self._first_path(name) for name in names}

    @property
    def noted(self) -> str:
        """The path of what the run has put into the store before all else."""
        return f"{self._there}/{RUN}"

    def complete(self, totals: dict[str, Any]) -> None:
        """Do nothing: what is complete is so in the store."""

    def publish(
        self,
        overwrite: bool,
        check: Callable[[Path], object],
        data_of: Callable[[Path], set[str]],
    ) -> None:
        """Put what is left of the output into the store, and what makes it usable last."""
        root = self.output if self._is_folder else output_in(self._folder)
        made = {
            file.relative_to(root).as_posix(): file
            for file in sorted(root.rglob("*"))
            if file.is_file()
        }
        if not self._is_folder and self.store.name in made:  # which replaces another at once
            for name in sorted(made, key=lambda name: name == self.store.name):
                self._journal.files[name] = self.store.upload(made[name], self._path(name))
            self._is_published = True
            return
        if not self._journal.names:
            self.begin(made)
        self._journal.names.update(made)
        self._write_journal()
        for name in self._in_order(made):
            self._journal.files[name] = self.store.upload(made[name], self._first_path(name))
            made[name].unlink()
        self._write_journal()
        self._check_files()
        self._place()
        if self._journal.replaces:
            self._remove_obsolete()
        self._is_published = True

    def _place(self) -> None:
        """Give files their places that lie apart."""
        files = self._journal.files
        apart = [name for name in files if self._first_path(name) != self._path(name)]
        if self._journal.replaces:  # so that nothing loads old files and new ones together
            for name in filter(self._is_last, apart):
                self.store.remove(self._path(name))
        for name in self._in_order(apart):
            self.store.copy(self._first_path(name), self._path(name), files[name].bytes)

    def _in_order(self, names: Iterable[str]) -> list[str]:
        """Sort names of files: what makes the others usable comes last, config.json at the end."""
        return sorted(names, key=lambda name: (self._is_last(name), name == CONFIG, name))

    def _is_last(self, name: str) -> bool:
        """Whether a file makes the others usable, or says which they are."""
        if not self._is_folder:
            return name == min(self._journal.names)
        return name == CONFIG or (name.endswith(INDEX_SUFFIX) and "/" not in name)

    def _remove_obsolete(self) -> None:
        """Remove what was replaced, and has no new file of its name."""
        if self._is_folder:
            old = self.store.names_within()
        else:
            part = min(self._journal.names)
            old = [name for name in self.store.names_beside() if is_part_of(name, part)]
        for name in set(old) - self._journal.names:
            self.store.remove(self._path(name))

    def _path(self, name: str) -> str:
        """Return the place of a file of the output."""
        return self.store.within(name) if self._is_folder else self.store.beside(name)

    def _first_path(self, name: str) -> str:
        """Return where a file lies until all are there."""
        is_apart = self._journal.replaces or (not self._is_folder and self._is_last(name))
        return f"{self._there}/output/{name}" if is_apart else self._path(name)

    def _check_files(self) -> None:
        """Raise where files are not as the interrupted run has left them."""
        names = sorted(self._journal.files)
        found = self.store.stamps([self._first_path(name) for name in names])
        for name, stamp in zip(names, found, strict=True):
            if stamp != self._journal.files[name]:
                raise not_as_left(f"'{self.store}'", name)

    def _start(self) -> None:
        """Remove what an interrupted run has put into the store, and begin."""
        self._journal = journal_or_none(self.store)
        self._remove_placed()
        self._journal = Journal()
        self._remove_noted()
        super()._start()

    def _noted(self, file: Path) -> None:
        self.store.upload(file, f"{self._there}/{file.name}")

    def _noted_files(self) -> Journal:
        return journal_of(self.store)

    def _write_journal(self) -> None:
        self._write(_JOURNAL, self._journal.to_json())

    def _is_of_use(self) -> bool:
        return bool(self._journal.files) or super()._is_of_use()

    def _end(self, keep: bool) -> None:
        super()._end(keep)
        if self._has_begun and not keep:
            try:
                if not self._is_published:  # as an interrupt may come when a file is just whole
                    self._remove_placed()
                self._remove_noted()
            except OSError as error:
                warn(f"'{self.kept_in}' could not be removed: {error}")

    def _remove_placed(self) -> None:
        """Remove files that have their places, where nothing was before."""
        if self._journal.replaces:
            return
        names = sorted(self._journal.names)
        found = self.store.stamps([self._path(name) for name in names])
        for name, stamp in zip(names, found, strict=True):
            if stamp is not None and self._journal.files.get(name, stamp) == stamp:
                self.store.remove(self._path(name))

    def _remove_noted(self) -> None:
        """Remove what is noted in the store, first what makes it something to continue."""
        for name in (RUN, _JOURNAL):
            self.store.remove(f"{self._there}/{name}")
        self.store.remove_folder(self._there)


def continued_in_store(landing: Landing, run: dict[str, Any]) -> Continued | None:
    """Return what an interrupted run has left in a store that can be continued, as `continued`."""
    assert landing.store is not None
    _fetch(landing.store, folder_of(landing.path))
    journal = journal_of(landing.store)
    found = continued(landing.path, run, are_placed=False)
    return found if journal.done is None else Continued(journal.done.read, is_complete=False)


def _fetch(store: Store, folder: Path) -> None:
    """Bring what an interrupted run has noted to this machine, but for its files."""
    folder.mkdir()
    (folder / LOCK).touch()
    there = journal_folder(store)
    for name in (RUN, RECIPE):
        store.download(f"{there}/{name}", folder / name)
    number = 1
    while store.download(f"{there}/{part_file(number)}", folder / part_file(number)):
        number += 1
