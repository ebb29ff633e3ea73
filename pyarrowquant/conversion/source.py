"""A model of this machine or elsewhere, by its name."""

from __future__ import annotations

import os
from pathlib import Path

from pyarrow import fs

from pyarrowquant.conversion.result_files import is_table, schema_of, tables_in
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.models import open_model


def local_path(source: str) -> str:
    """Return the path of a source of this machine, also of a URI; of another the URI."""
    location = locate(source, None)
    return location.path if isinstance(location.filesystem, fs.LocalFileSystem) else source


def model_folder(path: str) -> Path | None:
    """Return the folder of a Hugging Face model, if the path is one, or its index."""
    place = Path(path)
    folder = place.parent if place.name.endswith(".index.json") else place
    return folder if (folder / "config.json").is_file() else None


def local_files(source: str | Path) -> list[Path]:
    """Return a source of this machine, and all files that belong to it."""
    source = Path(source)
    if source.is_dir() and (tables := tables_in(source)) and is_result(str(source)):
        return [source, *tables]
    if not source.exists() or is_result(str(source)):
        return [source]
    return files_of(open_model(locate(source, None)))


def is_local(model: Model) -> bool:
    """Whether a model lies on this machine."""
    return isinstance(model.location.filesystem, fs.LocalFileSystem)


def files_of(model: Model) -> list[Path]:
    """Return a model of this machine, and all files that belong to it."""
    if not is_local(model):
        return []
    source = Path(model.location.path)
    files = [Path(file.path) for file in model.files]
    folder = source if source.is_dir() else source.parent
    return [source, *files, *folder.glob("*.index.json"), folder / "config.json"]


def source_bytes(model: Model) -> int | None:
    """Return the size of a local source; None where it is elsewhere."""
    if not is_local(model):
        return None
    return sum(os.stat(file.path).st_size for file in model.files)


def is_result(path: str) -> bool:
    """Whether a local file, or a folder of them, has packed codes rather than weights.

    The folder of a model has weights, whatever has been written into it.
    """
    place = Path(path)
    if model_folder(path) == place:
        return False
    tables = [place] if place.is_file() else tables_in(place) if place.is_dir() else []
    return (
        bool(tables)
        and is_table(tables[0])
        and any("quantized_data" in schema_of(table).names for table in tables)
    )
