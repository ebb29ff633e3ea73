"""The hidden folder of a run: where it is, and what the run has noted in it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pyarrowquant._core.placing import (
    contents,
    remove,
    sync,
)
from pyarrowquant._core.system_errors import naming_file
from pyarrowquant.conversion.partial.checksums import checked
from pyarrowquant.conversion.partial.damage import DAMAGES, WorkError, damaged
from pyarrowquant.conversion.partial.identity import difference
from pyarrowquant.conversion.partial.lock import (
    COMPLETE,
    LOCK,
    RUN,
    refuse_others,
)
from pyarrowquant.conversion.totals import Totals
from pyarrowquant.formats._onnx_data import remove_unused_data
from pyarrowquant.reading.strict_json import parse_any


def noted_in(folder: Path) -> Path | None:
    """Return the file in which a run has noted what it is."""
    return next((file for file in (folder / COMPLETE, folder / RUN) if file.exists()), None)


def check_same(file: Path, run: dict[str, Any], destination: Path) -> dict[str, Any]:
    """Return what a run has noted, or raise where it was another one than this."""
    found = _read(file)
    try:
        before = found["run"] if file.name == COMPLETE else found
        same = before == run or difference(before, run)
    except DAMAGES as error:
        raise damaged(file, error) from error
    if same is True:
        return found
    raise WorkError(
        f"'{destination.name}' cannot be continued: {same}. Without resume=True, a new run begins"
    )


def noted_at_end(folder: Path) -> dict[str, Any] | None:
    """Return what a run has noted at its end, if it has and that can be read."""
    try:
        return _read(folder / COMPLETE)
    except (FileNotFoundError, WorkError):  # resuming says what is damaged
        return None


def last_name(destination: Path, complete: dict[str, Any]) -> str:
    """Return the name that the output gets last: that asked for, or of a split the first part's."""
    names = complete["output"]
    return destination.name if destination.name in names or not names else min(names)


def has_its_place(destination: Path, complete: dict[str, Any]) -> bool:
    last = last_name(destination, complete)
    expected = complete["output"].get(last)
    return expected is not None and contents(destination.with_name(last)) == expected


def _read(file: Path) -> dict[str, Any]:
    """Read what a run has noted of itself."""
    refuse_others(file)
    try:
        with naming_file(file):
            found: dict[str, Any] = parse_any(checked(file.read_bytes()))
        if file.name == COMPLETE:
            _check_complete(found)
    except DAMAGES as error:
        raise damaged(file, error) from error
    return found


def _check_complete(found: dict[str, Any]) -> None:
    _ = found["run"], found["output"].items()
    Totals.from_dict(found["totals"])
    if not (found["mode"] is None or isinstance(found["mode"], int)):
        raise ValueError("mode is no number")
    names = [found["aside"], *found["obsolete"], *found["output"], *(found.get("replaces") or ())]
    if not all(isinstance(name, str) and name == os.path.basename(name) for name in names):
        raise ValueError("names of files have folders")


@contextmanager
def placed(file: Path) -> Iterator[Path]:
    """Give a place to write a file of the folder, which gets its name when it is on the disk."""
    temporary = file.with_name("next.tmp")
    remove(temporary)  # of a run that was killed
    try:
        with naming_file(file):
            yield temporary
        sync(temporary)
        os.replace(temporary, file)
        sync(file.parent)
    finally:
        temporary.unlink(missing_ok=True)


def folder_of(destination: Path) -> Path:
    """Return the folder of the work for a destination."""
    path = destination.absolute()
    return path.with_name(f".{path.name}.partial")


def output_in(folder: Path) -> Path:
    """Return where the files of the output lie until they get their names."""
    return folder / "output"


def remove_folder(folder: Path, lock: IO[bytes]) -> None:
    """Remove the folder, so that no run takes what is half removed for something to resume."""
    (folder / RUN).unlink(missing_ok=True)
    remove_all_but(folder, COMPLETE, LOCK)
    if sys.platform == "win32":
        lock.close()  # files that are open cannot be removed
    (folder / LOCK).unlink(missing_ok=True)
    (folder / COMPLETE).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()


def remove_all_but(folder: Path, *names: str) -> None:
    for name in (COMPLETE, RUN):  # what is half removed is not to be resumed
        if name not in names:
            (folder / name).unlink(missing_ok=True)
    for file in folder.iterdir():
        if file.name not in names:
            remove(file)


def remove_placed_data(destination: Path, complete: dict[str, Any]) -> None:
    """Remove what an interrupted run has placed beside an output that did not get its place."""
    if not has_its_place(destination, complete):
        remove_unused_data(
            destination,
            {
                name
                for name, expected in complete["output"].items()
                if name != last_name(destination, complete)
                and contents(destination.with_name(name)) == expected
            },
        )
