"""What a run has done so far, so that another one can continue it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import click
import pyarrow as pa

from pyarrowquant.formats._files import Outputs, sync_folder
from pyarrowquant.recipe import Recipe

_RUN, _COMPLETE, _RECIPE, _LOCK, _OUTPUT = (
    "run.json",
    "complete.json",
    "recipe.json",
    "lock",
    "output",
)


_LONGEST_NAME = 200  # hidden names are longer, and 255 is the most
_OPTIONS = {"batch_bytes": "the bound by --max-memory (bytes)", "kind": "the format"}


@dataclass(frozen=True)
class Part:
    """Results of some batches of the source.

    Attributes
    ----------
    results : pyarrow.RecordBatch
        Mapped from its file.
    batches : int
        How many batches of the source are done with it, from the first one on.
    read : int
        How many bytes of weights these are.
    skipped : list of str
        What was said of layers left out since the part before.
    """

    results: pa.RecordBatch
    batches: int
    read: int
    skipped: list[str]

    @classmethod
    def nothing(cls) -> Part:
        """What is done before the first part."""
        return cls(pa.record_batch({}), 0, 0, [])


class Work:
    """The hidden folder beside a destination where results lie until the destination is complete.

    It is locked while it is open. At the end of the context it is removed; it stays if the run
    failed or was interrupted after a part was done.

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
        if len(os.fsencode(destination.name)) > _LONGEST_NAME:
            raise click.ClickException(f"'{destination.name}' is too long a name")
        self._run = json.loads(json.dumps(run))  # as it will be read
        self._resume = resume
        self._folder = folder_of(destination)
        self._lock: IO[bytes] | None = None
        self._count = 0

    def __enter__(self) -> Work:
        self._lock = self._open_lock()
        try:
            known = [self._folder / name for name in (_RUN, _COMPLETE)]
            if self._resume and any(file.exists() for file in known):
                self._check_run(next(file for file in known if file.exists()))
            else:
                self._start()
            self._count = len(self._files())
        except BaseException:
            if not self._files():
                self._remove()
            self._lock.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._lock is not None
        if kind is None or not self._files():
            self._remove()
        else:
            click.echo(
                f"What is done stays in '{self._folder}'; --resume continues it, any other run "
                "removes it",
                err=True,
            )
        self._lock.close()

    @property
    def is_complete(self) -> bool:
        """Whether the output is complete, and only has to get its place."""
        return (self._folder / _COMPLETE).exists()

    def new_output(self) -> Path:
        """Return the path to write the output to; more files of it may come beside that."""
        folder = self._folder / _OUTPUT
        if folder.exists():  # of a run that was interrupted while it wrote
            shutil.rmtree(folder)
        folder.mkdir()
        return folder / self._destination.name

    def fitted(self) -> Recipe | None:
        """Return the recipe that was fitted before the run was interrupted."""
        file = self._folder / _RECIPE
        return Recipe.load(file) if file.exists() else None

    def keep_fitted(self, recipe: Recipe) -> None:
        self._write(_RECIPE, recipe.to_json())

    def parts(self) -> Iterator[Part]:
        """Read what is done, in the order of the source."""
        for file in self._files():
            try:
                reader = pa.ipc.open_file(pa.memory_map(str(file)))
                results, said = reader.get_batch_with_custom_metadata(0)
                part = Part(results, **json.loads(said[b"part"]))
            except (pa.ArrowException, ValueError, TypeError, KeyError) as error:
                raise _damaged(file, error) from error
            yield part

    def add(self, part: Part) -> None:
        """Keep a part on the disk."""
        self._count += 1
        file = self._folder / f"{self._count:08d}.arrow"
        said = {"batches": part.batches, "read": part.read, "skipped": part.skipped}
        with (
            Outputs([file], True) as outputs,
            pa.OSFile(str(outputs.temporary(file)), "wb") as sink,
            pa.ipc.new_file(sink, part.results.schema) as writer,
        ):
            writer.write_batch(part.results, custom_metadata={"part": json.dumps(said)})

    def publish(self, overwrite: bool) -> None:
        """Give the output its place; a folder replaces another as a whole."""
        if not self.is_complete:
            os.replace(self._folder / _RUN, self._folder / _COMPLETE)
        output = self._folder / _OUTPUT
        if not output.exists():  # it had its place when the run was killed
            return
        # Of several files the one with the name that was asked for comes last.
        files = sorted(output.iterdir(), key=lambda file: file.name == self._destination.name)
        targets = [self._destination.with_name(file.name) for file in files]
        for target in targets:
            if not overwrite and target.exists() and not _is_empty_folder(target):
                raise click.ClickException(
                    f"'{target}' was made while this ran. --resume --overwrite replaces it"
                )
        for file, target in zip(files, targets, strict=True):
            if target.is_dir():
                os.replace(target, self._folder / "replaced")
            os.replace(file, target)
        sync_folder(self._destination.parent)

    def _open_lock(self) -> IO[bytes]:
        """Lock the folder, which a run that ends may remove at any time."""
        lock = self._folder / _LOCK
        while True:
            if self._folder.exists() and not lock.exists() and not _is_empty_folder(self._folder):
                raise click.ClickException(
                    f"'{self._folder}' is in the way: it is not of this program. Rename it"
                )
            self._folder.mkdir(exist_ok=True)
            try:
                opened = lock.open("ab")
            except FileNotFoundError:
                continue
            if not _locked(opened):
                opened.close()
                raise click.ClickException(f"Another run is writing '{self._destination.name}'")
            if lock.exists() and os.path.samestat(os.fstat(opened.fileno()), lock.stat()):
                return opened
            opened.close()

    def _remove(self) -> None:
        """Remove the folder, so that no run takes what is half removed for something to resume."""
        (self._folder / _RUN).unlink(missing_ok=True)
        self._remove_all_but(_COMPLETE, _LOCK)
        (self._folder / _COMPLETE).unlink(missing_ok=True)
        if sys.platform == "win32" and self._lock is not None:
            self._lock.close()  # files that are open cannot be removed
        (self._folder / _LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another run is there already
            self._folder.rmdir()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.arrow"))

    def _start(self) -> None:
        self._remove_all_but(_LOCK)
        self._write(_RUN, json.dumps(self._run))

    def _remove_all_but(self, *names: str) -> None:
        for file in self._folder.iterdir():
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            elif file.name not in names:
                file.unlink()

    def _write(self, name: str, text: str) -> None:
        file = self._folder / name
        with Outputs([file], True) as outputs:
            outputs.temporary(file).write_text(text, encoding="utf-8")

    def _check_run(self, file: Path) -> None:
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
            same = before == self._run or _difference(before, self._run)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _damaged(file, error) from error
        if same is True:
            return
        raise click.ClickException(
            f"'{self._destination.name}' cannot be continued: {same}. "
            "Without --resume, a new run begins"
        )


def folder_of(destination: Path) -> Path:
    """Return the folder of the work for a destination."""
    path = destination.absolute()
    return path.with_name(f".{path.name}.partial")


def is_complete(destination: Path) -> bool:
    """Whether a run was interrupted when nothing was left but to give the output its place."""
    return (folder_of(destination) / _COMPLETE).exists()


def _locked(file: IO[bytes]) -> bool:
    """Lock a file until it is closed or the process ends; False if another process has."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Say what is not as it was."""
    files_before = {file["name"]: file for file in before["source"]}
    files_now = {file["name"]: file for file in now["source"]}
    for name in [*files_before, *files_now]:
        if name not in files_now:
            return f"the source lacks '{name}', which it had"
        if name not in files_before:
            return f"the source has '{name}', which it had not"
        if files_before[name] != files_now[name]:
            was, is_ = _described(files_before[name]), _described(files_now[name])
            return f"the source has changed: '{name}' had {was}, now has {is_}"
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(
        f"the {name} differs"
        if name in ("recipe", "quality_floor")
        else f"{_OPTIONS.get(name, name)} was {before.get(name)}, now is {now.get(name)}"
        for name in names
    )


def _damaged(file: Path, error: Exception) -> click.ClickException:
    return click.ClickException(
        f"'{file}' of an earlier run is damaged ({error}). Without --resume, a new run begins"
    )


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _described(file: dict[str, Any]) -> str:
    if file["modified"] is None:
        return f"{file['bytes']} bytes"
    modified = datetime.fromtimestamp(file["modified"] / 1e9, timezone.utc)
    return f"{file['bytes']} bytes of {modified:%Y-%m-%d %H:%M:%S.%f} UTC"
