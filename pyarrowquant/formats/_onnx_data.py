"""The files of external data of ONNX models, which are named by what they have."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from pyarrowquant.reading.location import locate

_DIGITS = 16  # of a hash
_BEGINNING = b"\x08"  # of an ONNX model: the key of its ir_version


def data_name(model: Path, digest: str) -> str:
    """Return the name of the data of a model, by the hash of what it has."""
    return f"{model.name}.{digest[:_DIGITS]}.data"


def data_files(model: Path) -> list[Path]:
    """Return the files of data beside a model that are named after it."""
    name = re.compile(re.escape(model.name) + rf"\.[0-9a-f]{{{_DIGITS}}}\.data")
    return sorted(file for file in model.parent.iterdir() if name.fullmatch(file.name))


def data_of(model: Path, sources: Collection[str]) -> set[str]:
    """Return the names of the data that was written with a model, without what is a source."""
    files = [file for file in data_files(model) if os.path.realpath(file) not in sources]
    return _named_in(model, {file.name for file in files})


def remove_unused_data(model: Path, names: set[str]) -> None:
    """Remove files of data beside a model that neither it nor another model there refers to.

    Others may be what was renamed or copied, under whatever name.
    """
    for other in model.parent.iterdir() if names else ():
        names = names - _named_in(other, names)
    for name in names:
        model.with_name(name).unlink(missing_ok=True)


def _named_in(model: Path, names: set[str]) -> set[str]:
    """Return those of some names that are in a model; all, if it cannot be read."""
    if not names or not model.is_file():
        return set()
    pattern = re.compile(b"|".join(re.escape(os.fsencode(name)) for name in names))
    try:
        with model.open("rb") as file:
            if file.read(1) != _BEGINNING:
                return set()
        with locate(os.fspath(model), None).open() as opened:
            content = opened.buffer(0, opened.size)
            return {os.fsdecode(name) for name in pattern.findall(content)}
    except OSError:
        return names
