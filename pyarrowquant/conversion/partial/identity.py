"""How a run is told from another one: by its settings, and by the files that it reads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from pyarrowquant._core.quoting import shortened
from pyarrowquant.reading.location import Location, infos
from pyarrowquant.reading.model import Model

_HASHED_BYTES = 1 << 16  # of each end of a file of the source
_OPTIONS = {"batch_bytes": "the bound by --max-memory (bytes)", "kind": "the format"}


def source_files(model: Model) -> list[dict[str, Any]]:
    """Describe the files that weights are read from, and others that decide about an output.

    Raises
    ------
    SourceChangedError
        One of them is not any more what it was when the model was opened: so its header may be of
        another file.
    """
    files = _files_of(model)
    found = described(files)
    for file in files:
        if file.files is not None and file.files.has_changed(file):
            raise _changed(f"'{model.location}'", f"'{file.name}' is not what it was")
    return found


def _files_of(model: Model) -> list[Location]:
    return [*model.files, *model.said_in]


def described(files: Sequence[Location]) -> list[dict[str, Any]]:
    """Describe files of one file system, so that another file of the name differs.

    Of this machine's files the inode and the time of the last change of any kind count, since
    copies may have the size and the time of modification of what they replace.
    """
    return [
        {
            "name": file.name,
            "bytes": info.bytes,
            "modified": info.modified_ns,
            "ends": digest_of_ends(file),
            **_identity(file),
        }
        for file, info in zip(files, infos(files), strict=True)
    ]


def _identity(file: Location) -> dict[str, int]:
    if not file.is_local:
        return {}
    status = os.stat(file.path)
    return {"inode": status.st_ino, "changed": status.st_ctime_ns}


def digest_of_ends(file: Location) -> str:
    """Hash the begin and the end of a file, where formats keep their headers."""
    with file.open_unmapped() as opened:
        size = min(opened.size, _HASHED_BYTES)
        ends = (opened.buffer(offset, size) for offset in (0, opened.size - size))
        return hashlib.sha256(b"".join(end.to_pybytes() for end in ends)).hexdigest()


class SourceChangedError(ValueError):
    """The source is not what it was when a run began to read it."""


def check_unchanged(model: Model, before: list[dict[str, Any]]) -> None:
    """Raise where files of a source were written to, or replaced, while a run has read them.

    Parameters
    ----------
    model : Model
    before : list of dict
        What `source_files` said of it.
    """
    check_files(f"'{model.location}'", _files_of(model), before)


def check_files(shown: str, files: Sequence[Location], before: list[dict[str, Any]]) -> None:
    """Raise where files are not any more what `described` said of them."""
    try:
        now = described(files)
        problem = difference({"source": before}, {"source": now}) if now != before else None
    except (FileNotFoundError, ValueError) as error:  # it is gone, or has another size
        problem = str(error)
    if problem is not None:
        raise _changed(shown, problem)


def _changed(shown: str, problem: str) -> SourceChangedError:
    return SourceChangedError(
        f"{shown} was changed while it was read: {problem}. Nothing was written; "
        "start anew when it stays as it is"
    )


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
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
            if was == is_:
                return (
                    f"the source has changed: '{name}' is another file, of the same size and time"
                )
            return f"the source has changed: '{name}' had {was}, now has {is_}"
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(
        f"the {name} differs"
        if name in ("recipe", "quality_floor", "importance")
        else f"{_OPTIONS.get(name, name)} was {shortened(str(before.get(name)))}, "
        f"now is {now.get(name)}"
        for name in names
    )


def _described(file: dict[str, Any]) -> str:
    if file["modified"] is None:
        return f"{file['bytes']} bytes"
    modified = datetime.fromtimestamp(file["modified"] / 1e9, timezone.utc)
    return f"{file['bytes']} bytes of {modified:%Y-%m-%d %H:%M:%S.%f} UTC"
