"""Models and their external data, which get their names together.

A model refers to its data by name. New data gets a name of its own first, then the model its name,
and then the old data goes: so at no moment does a model meet data that is not its own.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrowquant._core.digest import digest_of
from pyarrowquant._core.placing import sync, take_over_mode
from pyarrowquant.formats._onnx_data import data_files, data_name, data_of
from pyarrowquant.formats._outputs import Outputs


def named_data(path: Path, model: Path) -> str:
    """Give the file of a model's data its name; return that."""
    name = data_name(model, digest_of(path))
    path.rename(path.with_name(name))
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
