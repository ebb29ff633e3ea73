"""Models and the files of their external data, which are named by what they have.

A model refers to its data by name. New data gets a name of its own first, then the model its name,
and then the old data goes: so at no moment does a model meet data that is not its own.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from pyarrowquant._core.placing import sync, take_over_mode
from pyarrowquant.formats._outputs import Outputs
from pyarrowquant.reading.location import locate

_DIGITS = 16
_BEGINNING = b"\x08"  # of an ONNX model: the key of its ir_version


class DataFile:
    """The file of a model's data, which gets its name when all is written.

    Parameters
    ----------
    model : Path
        The model's file, beside which the data comes to lie.
    """

    def __init__(self, model: Path) -> None:
        self._model = model
        self._path = model.with_name("data")
        self._file: IO[bytes] = self._path.open("xb")
        self._digest = hashlib.sha256()

    def __enter__(self) -> DataFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def rename(self) -> str:
        """Close the file, and return the name that it gets."""
        self._file.close()
        name = f"{self._model.name}.{self._digest.hexdigest()[:_DIGITS]}.data"
        self._path.rename(self._model.with_name(name))
        return name


@contextmanager
def model_outputs(path: Path, overwrite: bool, sources: Collection[str] = ()) -> Iterator[Path]:
    """Give a place to write a model, and its data beside it; both get theirs if nothing fails.

    Parameters
    ----------
    path : Path
        The model's file.
    overwrite : bool
        Whether the model may be replaced, and its data removed.
    sources : collection of str
        Files, where links lead, that must not be removed.
    """
    real = Path(os.path.realpath(path))
    refuse_link(path)
    replaced = data_of(real, sources) if overwrite else set()
    placed: set[str] = set()  # data that was not there before
    try:
        with (
            Outputs([path], overwrite) as outputs,
            TemporaryDirectory(prefix=f".{path.name}.", suffix=".tmp", dir=real.parent) as name,
        ):
            model = Path(name) / real.name
            yield model
            (file,) = data_files(model)
            sync(file)
            data = real.with_name(file.name)
            if not data.exists():
                placed.add(data.name)
            if real.exists():
                take_over_mode(file, real)
            os.replace(file, data)
            os.replace(model, outputs.temporary(path))
    except BaseException:
        remove_unused_data(real, placed)
        raise
    remove_unused_data(real, replaced)


def refuse_link(path: Path) -> None:
    """Raise where a model's name leads to another folder, where its data would be."""
    real = os.path.realpath(path)
    if path.is_symlink() and os.path.dirname(real) != os.path.realpath(path.parent):
        raise ValueError(
            f"'{path}' is a link into another folder, and ONNX Runtime takes data only from the "
            f"folder of a model's name. Give '{real}'"
        )


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
