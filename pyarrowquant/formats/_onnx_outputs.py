"""Models and their external data, which get their names together.

A model refers to its data by name. New data gets a name of its own first, then the model its name,
and then the old data goes: so at no moment does a model meet data that is not its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pyarrowquant._core.placing import sync, take_over_mode
from pyarrowquant.formats._onnx_data import data_files, data_name, data_of
from pyarrowquant.formats._outputs import Outputs


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
        name = data_name(self._model, self._digest.hexdigest())
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
    with Outputs([path], overwrite) as outputs:
        temporary = outputs.temporary(path)
        model = temporary.with_name("model") / real.name
        model.parent.mkdir()
        yield model
        (file,) = data_files(model)
        sync(file)
        data = real.with_name(file.name)
        os.replace(model, temporary)
        if real.exists():
            take_over_mode(file, real)
        outputs.note_data(() if data.exists() else {data.name}, replaced)
        os.replace(file, data)


def refuse_link(path: Path) -> None:
    """Raise where a model's name leads to another folder, where its data would be."""
    real = os.path.realpath(path)
    if path.is_symlink() and os.path.dirname(real) != os.path.realpath(path.parent):
        raise ValueError(
            f"'{path}' is a link into another folder, and ONNX Runtime takes data only from the "
            f"folder of a model's name. Give '{real}'"
        )
