"""Where results may go."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from pyarrowquant._core.file_names import is_same, lies_in, refuse_impossible
from pyarrowquant._core.placing import is_empty_folder, refuse_irreplaceable, refuse_root
from pyarrowquant._core.quoting import enumerated
from pyarrowquant.errors import MissingFolderError, UsageError
from pyarrowquant.formats._outputs import check_replaceable, exists_error, wrong_kind_error
from pyarrowquant.formats.registry import IN_FOLDERS, SUFFIXES
from pyarrowquant.reading.location import check_name

# What is written into a model's folder, and replaced there; all else may be the model's.
_WRITTEN = {*SUFFIXES, *IN_FOLDERS, ".html"}  # of reports


def _refuse_stream(path: Path) -> None:
    """Refuse the name by which other programs mean standard output."""
    if str(path) == "-":
        raise UsageError("'-' as a destination is not standard output; give the name of a file")


def format_of(
    path: Path,
    chosen: str | None,
    suffixes: Mapping[str, str],
    folders: Sequence[str] = (),
    shown: str | None = None,
) -> str:
    """Return the format by its name, or by the path's suffix.

    Parameters
    ----------
    path : Path
    chosen : str or None
        Its name, if that is said.
    suffixes : mapping of str to str
        Those that say a format.
    folders : sequence of str
        Formats that are folders, which no suffix says.
    shown : str, optional
        What messages call the path.
    """
    _refuse_stream(path)
    if chosen is not None:
        return chosen
    if path.suffix.lower() in suffixes:
        return suffixes[path.suffix.lower()]
    known = enumerated(suffixes, "or")
    of_folders = enumerated((f"to={name!r}" for name in folders), "or") if folders else ""
    raise UsageError(
        f"'{shown or path}' has no suffix that says its format. End it with {known}, or use to="
        + (f"; {of_folders} makes a folder of safetensors" if folders else "")
    )


def check_destination(
    path: Path,
    overwrite: bool,
    folder: bool = False,
    sources: Sequence[Path] = (),
    written: Callable[[], Collection[Path]] = tuple,
) -> None:
    """Refuse what cannot be written, before any work.

    Parameters
    ----------
    path : Path
    overwrite : bool
        Whether what is there may be replaced.
    folder : bool
        Whether the destination is a folder.
    sources : sequence of Path
        What is read, which must not be replaced.
    written : callable
        Returns the files that are written beside weights and config.json, relative to the
        destination.
    """
    _refuse_stream(path)
    check_name(str(path))
    refuse_impossible(path)
    real = Path(os.path.realpath(path))
    refuse_irreplaceable(real)
    refuse_root(path)
    if folder and _is_around(real):
        raise UsageError(f"'{path}' is the current folder; give the name of a new one")
    parent = path.absolute().parent
    if parent.exists() and not parent.is_dir():
        raise UsageError(f"'{parent}' is a file; give a name in a folder")
    if not parent.is_dir():
        raise MissingFolderError(parent)
    if path.is_file() if folder else path.is_dir():
        raise wrong_kind_error(path, folder)
    if not path.exists():
        return
    if folder and is_empty_folder(path):
        return
    if not overwrite:
        raise exists_error(path)
    if any(_is_within(source, path) for source in sources):
        raise source_error(path, folder)
    is_written = folder or real.suffix.lower() in _WRITTEN
    if not is_written and any(is_same(real.parent, model) for model in _models(sources)):
        raise ValueError(
            f"'{path}' lies in the folder of the source model, and may belong to it; give another "
            "name"
        )
    if folder:
        check_replaceable(path, written(), IN_FOLDERS)


def source_error(destination: object, folder: bool) -> ValueError:
    """Make the error of a destination by which the source would be replaced."""
    has = "has the source in it" if folder else "is the source, or a file of it"
    return ValueError(f"'{destination}' {has}; give another name")


def _is_around(folder: Path) -> bool:
    """Whether a folder is the current one, or has it inside."""
    try:
        return lies_in(Path.cwd(), folder)
    except FileNotFoundError:  # it was removed
        return False


def _models(sources: Sequence[Path]) -> set[Path]:
    """Return the folders of models that sources are, or lie in."""
    real = {Path(os.path.realpath(source)) for source in sources}
    folders = {path if path.is_dir() else path.parent for path in real}
    return {folder for folder in folders if (folder / "config.json").exists()}


def _is_within(source: Path, path: Path) -> bool:
    """Whether a source is, or lies in, a path: as links lead there, or as it is given."""
    return any(lies_in(each, place) for each in _names_of(source) for place in _names_of(path))


def _names_of(path: Path) -> set[Path]:
    return {Path(os.path.abspath(path)), Path(os.path.realpath(path))}
