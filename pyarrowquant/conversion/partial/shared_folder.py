"""The folder of a run, which workers see, too: they make files in it, or write into those there."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from pyarrowquant._core.placing import sync
from pyarrowquant._core.system_errors import naming_file
from pyarrowquant.conversion.partial.journal import Stamp, stamp_of
from pyarrowquant.conversion.partial.work import Work
from pyarrowquant.formats._outline import Outline, OutlinedFile, opened_shared


@dataclass(frozen=True)
class SharedFolder:
    """A folder that files are made in. Its name is made up, so who finds it sees the driver's.

    Attributes
    ----------
    path : str
    """

    path: str

    def is_reached(self) -> bool:
        trial = self._new()
        try:
            trial.touch(exist_ok=False)
            trial.unlink()
        except OSError:  # it is not here, or others may not write in it
            return False
        return True

    @contextmanager
    def room(self, file: OutlinedFile) -> Iterator[tuple[OutlinedFile, Path]]:
        """Give a name that no other task has, which may do the same, held to be lost.

        The folder is never made here: one that is gone is of a run that has ended.
        """
        made = self._new()
        try:
            yield replace(file, name=made.name, is_beside=True), made
        except BaseException:
            with suppress(OSError):
                made.unlink()
            raise

    def deliver(self, name: str, path: Path) -> Stamp:
        sync(path)
        stamp = stamp_of(path)
        os.replace(path, Path(self.path, name))
        return stamp

    def _new(self) -> Path:
        return Path(self.path, f"{secrets.token_hex(8)}.tmp")


@dataclass(frozen=True)
class SharedOutput:
    """An output that has begun, as it is to workers that write results to their places in it.

    Attributes
    ----------
    folder : SharedFolder
        That this run alone has.
    path : str
        Of the output.
    """

    folder: SharedFolder
    path: str

    @contextmanager
    def opened(self, paths: Iterable[Path]) -> Iterator[dict[Path, IO[bytes]] | None]:
        """Open some of its files; None where they are not here, or others may not write to them.

        What is written is on the disk at the end of the context.
        """
        with naming_file(self.path), ExitStack() as stack:
            try:
                files = {path: stack.enter_context(opened_shared(path)) for path in paths}
            except OSError:
                files = {}
            # Asked last: those of a later run have the same names, but not this folder.
            if not files or not self.folder.is_reached():
                yield None
                return
            yield files
        for path in files:
            sync(path)


class FilesInFolder:
    """Has files made in a folder within that of the run, and gives them their places.

    Parameters
    ----------
    work : Work
    outline : Outline
        Of the output.
    is_folder : bool
        Whether the output is a folder.
    folder : Path
        That files are made in.
    """

    def __init__(self, work: Work, outline: Outline, is_folder: bool, folder: Path) -> None:
        self.done = work.done_in_files
        self._output = work.output_of_files()
        if is_folder:
            self._output.mkdir(exist_ok=True)
        self._folder = folder
        self._files = {file.name: file for file in outline.files if file.name not in work.files}
        self.depot = SharedFolder(str(folder))

    @property
    def left(self) -> Sequence[str]:
        return list(self._files)

    def take(self, name: str, stamp: Stamp) -> bool:
        made, target = self._folder / name, self._files[name].path(self._output)
        try:
            if stamp_of(made) != stamp:
                return False
        except OSError:  # it is on a disk of the worker, which looks as the driver's
            return False
        os.replace(made, target)
        sync(target.parent)
        return True


@contextmanager
def folder_for_files(work: Work) -> Iterator[Path]:
    """Give a folder of a name that nothing has had, for as long as workers write."""
    folder = work.folder_of_files / secrets.token_hex(8)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:  # what a task that is held to be lost still writes goes with it
        shutil.rmtree(work.folder_of_files, ignore_errors=True)
