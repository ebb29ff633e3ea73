"""What a run has done so far, so that another one can continue it."""

from __future__ import annotations

import json
import secrets
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pyarrow as pa

from pyarrowquant._core.locks import closing, is_plain
from pyarrowquant._core.placing import (
    contents,
    remove,
    sync,
    sync_tree,
)
from pyarrowquant._core.scratch import remove_all
from pyarrowquant._core.system_errors import name_file, naming_file
from pyarrowquant.conversion.partial.checksums import checked, with_checksum
from pyarrowquant.conversion.partial.damage import DAMAGES, WorkError, damaged
from pyarrowquant.conversion.partial.identity import SourceChangedError
from pyarrowquant.conversion.partial.journal import (
    Journal,
    Stamp,
    journal_file,
    journal_in,
    stamp_of,
)
from pyarrowquant.conversion.partial.lock import (
    COMPLETE,
    LOCK,
    RUN,
    locked,
    refuse_others,
    remove_unused,
)
from pyarrowquant.conversion.partial.noted import (
    check_same,
    folder_of,
    noted_at_end,
    noted_in,
    output_in,
    placed,
    remove_all_but,
    remove_folder,
    remove_placed_data,
)
from pyarrowquant.conversion.partial.parts import (
    Done,
    done_file,
    last_part,
    last_placed,
    part_file,
    parts_in,
    results_of,
    write_part,
)
from pyarrowquant.conversion.partial.publishing import Publishing
from pyarrowquant.conversion.signals import unhindered
from pyarrowquant.errors import LayerError, users_level
from pyarrowquant.reading.strict_json import parse_any
from pyarrowquant.recipes.recipe import Recipe

RECIPE = "recipe.json"


class Work:
    """The hidden folder beside a destination where results lie until the destination is complete.

    It is locked while it is open. At the end of the context it is removed; it stays if the run
    failed or was interrupted after a part was done.

    It has run.json, which says what decides about the results; and either parts, files of results
    of which output/ is made in the end, or from the beginning on output/, in which results have
    their places, and done.json, which says how far that is, and how much counts of written.txt,
    which says what of it workers of a cluster have written, and of layers.jsonl, which says what
    became of layers. Where these make files as a whole, that
    is in a folder of its own, files.json says which are in output/, and done.json how far the
    others are. The files in output/ have the names that they will have. From the moment on when
    these are whole and on the disk there is complete.json: the run, its totals, how to recognize
    the output, the name that what it replaces may have for a moment, the names of files that
    nothing needs after that, and the permissions that a folder is to have; and, from the moment on
    when the files of a split output get their names, the names that others have.

    Parameters
    ----------
    destination : Path
    run : dict
        What decides about the results, with a list "source" of files. JSON.
    resume : bool
        Whether to go on from what is there, which must be of the same run.
    """

    def __init__(self, destination: Path, run: dict[str, Any], resume: bool) -> None:
        self._destination = destination.absolute()
        self._run = json.loads(json.dumps(run))  # as it will be read
        self._resume = resume
        self._folder = folder_of(destination)
        self._lock: IO[bytes] | None = None
        self._complete: dict[str, Any] | None = None
        self._journal = Journal()
        self._count = 0

    def __enter__(self) -> Work:
        try:
            self._lock = locked(self._folder, self._destination)
            shutil.rmtree(self.folder_of_files, ignore_errors=True)  # of a run that was killed
            found = noted_in(self._folder)
            if self._resume and found is not None:
                noted = check_same(found, self._run, self._destination)
                self._complete = noted if found.name == COMPLETE else None
                self._journal = self._noted_files()
            else:
                self._start()
            self._count = len(parts_in(self._folder))
        except BaseException as error:
            if self._lock is None:
                remove_unused(self._folder)
            elif isinstance(error, WorkError):  # of a run that can be continued as it was begun
                self._end(keep=True)
            else:
                self._leave(None if isinstance(error, Exception) else error)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._end(keep=False)
        elif isinstance(error, WorkError):  # it says what to do with what is there
            self._end(keep=True)
        elif isinstance(error, SourceChangedError):  # no other run has the same source
            self._end(keep=False)
        else:
            self._leave(error)
            name_file(error, self._folder)

    @property
    def is_complete(self) -> bool:
        """Whether the output is complete, and only has to get its place."""
        return self._complete is not None

    @property
    def totals(self) -> dict[str, Any]:
        """What was said of the complete output."""
        assert self._complete is not None
        totals: dict[str, Any] = self._complete["totals"]
        return totals

    @property
    def kept_in(self) -> str:
        """Where what is done stays."""
        return str(self._folder)

    @property
    def output(self) -> Path:
        """The path of the output; more files of it may lie beside that."""
        return output_in(self._folder) / self._destination.name

    @property
    def folder_of_files(self) -> Path:
        """Where files are made that get their places in the output when they are whole."""
        return self._folder / "files"

    @property
    def files(self) -> dict[str, Stamp]:
        """The files of the output that were made as a whole, by their names."""
        return self._journal.files

    @property
    def done_in_files(self) -> Done | None:
        """How far the run is with these."""
        return self._journal.done

    def note_file(self, name: str, stamp: Stamp, done: Done) -> None:
        """Note that a file is whole, and how far the run is with it."""
        self._journal.files[name] = stamp
        self._journal.done = done
        self._write_journal()

    def new_output(self) -> Path:
        """Return the path of the output, of which nothing is there."""
        if self._forgotten(journal_file(self._folder)):
            self._journal = Journal()
        return self.output_of_files()

    def output_of_files(self) -> Path:
        """Return the path of the output, of which files that were made as a whole are there."""
        self._forgotten(done_file(self._folder))
        folder = output_in(self._folder)
        if not self._journal.files:
            remove(folder)  # of a run that was interrupted while it wrote
        folder.mkdir(exist_ok=True)
        whole = {self.output, *map(self._whole, self._journal.files)}
        inside = self.output.iterdir() if self.output.is_dir() else ()
        for each in {*folder.iterdir(), *inside} - whole:
            remove(each)
        return self.output

    def _forgotten(self, note: Path) -> bool:
        """Remove a note of an output before that goes; False if there is none."""
        if not note.exists():
            return False
        note.unlink()
        sync(self._folder)
        return True

    def _whole(self, name: str) -> Path:
        """Return where a file lies that was made as a whole."""
        return self.output / name if self.output.is_dir() else self.output.with_name(name)

    def _noted_files(self) -> Journal:
        """Read which files an interrupted run has made as a whole, and make sure that they are."""
        found = journal_in(self._folder)
        for name, stamp in found.files.items() if self._complete is None else ():
            try:
                is_same = is_plain(self._whole(name)) and stamp_of(self._whole(name)) == stamp
            except FileNotFoundError:
                is_same = False
            if not is_same:
                raise not_as_left(f"'{self._destination}'", name)
        return found

    def fitted(self) -> tuple[Recipe, list[LayerError]] | None:
        """Return the recipe that was fitted before the run was interrupted, and what failed."""
        file = self._folder / RECIPE
        if not file.exists():
            return None
        refuse_others(file)
        try:
            with naming_file(file):
                found = parse_any(checked(file.read_bytes()))
            recipe = Recipe.from_dict(found["recipe"])
            return recipe, [LayerError(**error) for error in found["failed"]]
        except DAMAGES as error:
            raise damaged(file, error) from error

    def keep_fitted(self, recipe: Recipe, failed: Sequence[LayerError]) -> None:
        errors = [asdict(error) for error in failed]
        self._write(RECIPE, json.dumps({"recipe": recipe.to_dict(), "failed": errors}))

    def done_in_parts(self) -> Done | None:
        """Return how far the parts are, if there are any."""
        return last_part(self._folder)

    def done_in_output(self) -> Done | None:
        """Return how far the output is, if results were placed in it."""
        return last_placed(self._folder)

    def results(self) -> pa.Table:
        """Read the results of all parts, in the order of the source."""
        return results_of(self._folder)

    def add(self, results: pa.RecordBatch, done: Done) -> None:
        """Keep results on the disk as a part."""
        self._count += 1
        with placed(self._folder / part_file(self._count)) as temporary:
            write_part(temporary, results, done)
        self._noted(self._folder / part_file(self._count))

    def note_done(self, done: Done) -> None:
        """Note how far the run is, of which all results are on the disk in their places."""
        self._write(done_file(self._folder).name, done.to_note())

    def complete(self, totals: dict[str, Any]) -> None:
        """Note on the disk that the output is whole; from now on it only has to get its place."""
        output = output_in(self._folder)
        remove_all(output)
        sync_tree(output)
        sync(self._folder)
        self._note(
            {
                "run": self._run,
                "totals": totals,
                "output": {file.name: contents(file) for file in output.iterdir()},
                "aside": f".{self._destination.name}.{secrets.token_hex(4)}.replaced",
                "obsolete": [],
                "mode": None,
                "replaces": None,
            }
        )

    def _note(self, complete: dict[str, Any]) -> None:
        self._write(COMPLETE, json.dumps(complete))
        self._complete = complete

    def publish(
        self,
        overwrite: bool,
        check: Callable[[Path], object],
        data_of: Callable[[Path], set[str]],
    ) -> None:
        """Give the output its place, unless it has it.

        Parameters are those of `Publishing.publish`.
        """
        assert self._complete is not None
        folder = output_in(self._folder)
        publishing = Publishing(self._destination, folder, self._complete, self._note)
        publishing.publish(overwrite, check, data_of)

    def _leave(self, error: BaseException | None) -> None:
        """Keep what is done where a run failed or was interrupted, and say so; then close."""
        with unhindered(), suppress(UserWarning):  # as an exception it would hide the error
            keep = self._is_of_use()
            self._end(keep)
            if keep and error is not None:
                warn(
                    f"What is done stays in '{self.kept_in}'. resume=True continues it; a run "
                    "without it begins anew"
                )

    def _end(self, keep: bool) -> None:
        """Close the folder. That what is not needed any more stays does no harm."""
        assert self._lock is not None
        with unhindered(), closing(self._lock):
            try:
                if not keep:
                    remove_folder(self._folder, self._lock)
            except OSError as error:
                warn(f"'{self._folder}' could not be removed: {error.strerror}")

    def _is_of_use(self) -> bool:
        """Whether another run can go on from what is there."""
        noted = self._folder / COMPLETE, done_file(self._folder), journal_file(self._folder)
        return any(file.exists() for file in noted) or bool(parts_in(self._folder))

    def _start(self) -> None:
        before = noted_at_end(self._folder)
        if before is not None:
            remove_placed_data(self._destination, before)
        remove_all_but(self._folder, LOCK)
        self._write(RUN, json.dumps(self._run))

    def _write_journal(self) -> None:
        self._write(journal_file(self._folder).name, self._journal.to_json())

    def _write(self, name: str, text: str) -> None:
        with placed(self._folder / name) as temporary:
            temporary.write_bytes(with_checksum(text))
        self._noted(self._folder / name)

    def _noted(self, file: Path) -> None:
        """Keep a file of the folder elsewhere, too, where that is where a run goes on from."""


def not_as_left(place: str, name: str) -> WorkError:
    """Make the error of a file that an interrupted run has noted as whole."""
    return WorkError(
        f"{place}: '{name}' was complete, and is not there any more or has changed since. Without "
        "resume=True, a new run begins"
    )


def warn(message: str) -> None:
    """Warn of what a user may want to do something about."""
    warnings.warn(message, UserWarning, stacklevel=users_level())
