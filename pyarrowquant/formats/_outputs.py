"""Files and folders that get their names only when they are complete."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from pyarrowquant._core.file_names import lies_in, refuse_impossible
from pyarrowquant._core.placing import (
    exchange,
    is_empty_folder,
    keeping_modes,
    place,
    refuse_irreplaceable,
    sync,
    sync_tree,
)
from pyarrowquant._core.scratch import Scratch, clear, is_abandoned
from pyarrowquant._core.system_errors import name_file
from pyarrowquant.errors import MissingFolderError, UsageError
from pyarrowquant.formats._onnx_data import remove_unused_data
from pyarrowquant.reading.location import is_companion

_OF_MODELS = ("config.json", ".index.json")
_DS_STORE = ".DS_Store"  # what macOS knows of a folder's window
_BEGUN = "begun"  # a file that says that all files are whole, and are getting their names
_PLACED, _REPLACED = ".placed", ".replaced"  # notes of data that lies beside


class Outputs:
    """Files that get their names together, at the end of the context, if nothing failed.

    Until then each is written under a hidden name beside its own.

    Parameters
    ----------
    paths : sequence of Path
        In the order in which the files get their names. The last one is what makes the others
        usable: it is not there while they are replaced.
    overwrite : bool
        Whether existing files may be replaced. Their permissions stay.

    Raises
    ------
    FileExistsError
        One of the files exists.
    """

    def __init__(self, paths: Sequence[Path], overwrite: bool) -> None:
        for path in paths:
            refuse_impossible(path)
        self._overwrite = overwrite
        self._real = {path: Path(os.path.realpath(path)) for path in paths}
        self._last = self._real[paths[-1]]
        for path, real in self._real.items():
            if real.parent != self._last.parent:
                raise ValueError(f"'{path}' is a link into another folder; remove it")
        clear_abandoned(self._last)
        self._check()
        self._scratch = Scratch(self._last, _settle)

    def __enter__(self) -> Outputs:
        folder = self._scratch.open()
        self._temporary = {
            path: _inside(folder, real, ".tmp", number)
            for number, (path, real) in enumerate(self._real.items())
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._check()  # another process may have been faster
                self._put_in_place()
            name_file(error, self._last)
        except OSError as failure:
            name_file(failure, self._last)
            raise
        finally:
            self._scratch.close()

    def temporary(self, path: Path) -> Path:
        """Name under which the file is to be written; the folder has room for others."""
        return self._temporary[path]

    def note_data(self, placed: Collection[str], replaced: Collection[str]) -> None:
        """Note names of data of an ONNX model that is to go if the model gets its name, or not.

        Data that a model refers to stays.
        """
        for suffix, names in ((_PLACED, placed), (_REPLACED, replaced)):
            for name in names:
                (self._scratch.folder / f"{name}{suffix}").touch()

    def _check(self) -> None:
        for path, real in self._real.items():
            if real.is_dir():
                raise wrong_kind_error(path, folder=False)
            refuse_irreplaceable(real)
            if real.exists() and not self._overwrite:
                raise exists_error(path)

    def _put_in_place(self) -> None:
        files = [(self._temporary[path], real) for path, real in self._real.items()]
        with ExitStack() as modes:
            for temporary, real in files:
                sync(temporary)
                modes.enter_context(keeping_modes(temporary, real))
            if len(files) > 1:
                _put_all(files)
            elif self._overwrite:
                os.replace(*files[0])
            else:
                _put(*files[0])
        sync(self._last.parent)


def _put(temporary: Path, path: Path) -> None:
    try:
        place(temporary, path)
    except FileExistsError:
        raise exists_error(path) from None


def _put_all(files: list[tuple[Path, Path]]) -> None:
    """Let files have their names, the last one's being free while others change; or none.

    From its beginning on, a writer that dies leaves it to the next one to end it.
    """
    begun = files[0][0].with_name(_BEGUN)
    try:
        begun.touch()
        sync(begun.parent)
        for temporary, path in reversed(files):
            if path.exists():
                os.rename(path, temporary.with_suffix(".old"))
        for temporary, path in files:
            _put(temporary, path)
    except BaseException:
        for temporary, path in reversed(files):
            if not temporary.exists():
                os.rename(path, temporary)
        begun.unlink(missing_ok=True)
        raise


def clear_abandoned(output: Path) -> None:
    """Remove what writers of an output that were killed have left beside it.

    What they had taken away is put back, and several files that were getting their names get
    them.
    """
    clear(output, _settle)


def _settle(scratch: Path) -> None:
    """Put back what had the names of outputs, where nothing has them; or end what has begun."""
    unused = _PLACED if any(scratch.glob("*.tmp")) else _REPLACED
    names = {path.name.removesuffix(unused) for path in scratch.glob(f"*{unused}")}
    remove_unused_data(scratch, names)
    suffix = ".tmp" if (scratch / _BEGUN).exists() and _are_free(scratch) else ".old"
    for path in sorted(scratch.glob(f"*{suffix}")):
        with suppress(FileExistsError):
            place(path, _output_of(path, suffix))


def _are_free(scratch: Path) -> bool:
    """Whether all that had the names of outputs was taken away, before the first got its name."""
    return all(
        path.with_suffix(".old").exists() or not os.path.lexists(_output_of(path, ".tmp"))
        for path in scratch.glob("*.tmp")
    )


def _output_of(path: Path, suffix: str) -> Path:
    """Return the output that a file in a hidden folder beside it is for."""
    _, _, name = path.name.removesuffix(suffix).partition("-")
    return path.parent.with_name(name)


def _inside(scratch: Path, output: Path, suffix: str, number: int = 0) -> Path:
    """Name for an output within a hidden folder beside it."""
    return scratch / f"{number}-{output.name}{suffix}"


class OutputFolder:
    """A folder of a model that appears at the end of the context, if nothing failed.

    Until then it has a hidden name beside its own.

    Parameters
    ----------
    folder : Path
    overwrite : bool
        Whether a folder of a model may be replaced, with all that it holds. Permissions stay.
    source : Path, optional
        A folder that must not be replaced.
    written : collection of Path
        Files that are written beside weights and config.json, relative to the folder.

    Raises
    ------
    FileExistsError
        There is something of this name that may not be replaced.
    ValueError
        The folder is the source, or the source lies in it.
    """

    def __init__(
        self,
        folder: Path,
        overwrite: bool,
        source: Path | None = None,
        written: Collection[Path] = (),
    ) -> None:
        refuse_impossible(folder)
        self._folder = Path(os.path.realpath(folder))
        self._overwrite = overwrite
        self._written = written
        if source is not None and lies_in(Path(os.path.realpath(source)), self._folder):
            raise ValueError(
                f"'{folder}' is the folder of the source model, or has it inside. Give another name"
            )
        if not self._folder.parent.is_dir():
            raise MissingFolderError(self._folder.parent)
        clear_abandoned(self._folder)
        self._check()
        self._scratch = Scratch(self._folder, _settle)

    def __enter__(self) -> OutputFolder:
        self.temporary = _inside(self._scratch.open(), self._folder, ".tmp")
        try:
            self.temporary.mkdir()
        except BaseException:
            self._scratch.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                sync_tree(self.temporary)
                self._check()  # another process may have been faster
                self._put_in_place()
                sync(self._folder.parent)
            name_file(error, self._folder)
        except OSError as failure:
            name_file(failure, self._folder)
            raise
        finally:
            self._scratch.close()

    def _put_in_place(self) -> None:
        folder = self._folder
        with keeping_modes(self.temporary, folder):
            if folder.exists() and not is_empty_folder(folder):
                aside = _inside(self._scratch.folder, folder, ".old")
                exchange(self.temporary, folder, aside)
            else:
                _put(self.temporary, folder)

    def _check(self) -> None:
        folder = self._folder
        refuse_irreplaceable(folder)
        if not folder.exists():
            return
        if not folder.is_dir():
            raise wrong_kind_error(folder, folder=True)
        if is_empty_folder(folder):
            return
        if not self._overwrite:
            raise exists_error(folder)
        check_replaceable(folder, self._written, (".safetensors",))


def wrong_kind_error(path: object, folder: bool) -> UsageError:
    """Make the error of a destination that is a file where a folder is wanted, or a folder."""
    found, wanted = ("file", "folder") if folder else ("folder", "file")
    return UsageError(f"'{path}' is a {found}; give the name of a {wanted}")


def exists_error(path: object) -> FileExistsError:
    """Make the error of a destination that is there and must not be replaced."""
    return FileExistsError(f"'{path}' exists. Use overwrite=True to replace it")


def check_replaceable(folder: Path, written: Collection[Path], suffixes: Sequence[str]) -> None:
    """Raise where replacing a folder as a whole would lose what is not of a model.

    Parameters
    ----------
    folder : Path
        Is there already.
    written : collection of Path
        Files that are written anew beside weights and config.json, relative to the folder.
    suffixes : sequence of str
        Of files of weights, one of which must be there.
    """
    paths = list(folder.iterdir())
    check_any_of_model(str(folder), [path.name for path in paths], suffixes)
    for path in paths:
        if path.is_dir():
            replaced = path.name != ".git" and (
                is_abandoned(path) or _is_written(path, folder, written)
            )
        else:
            replaced = is_replaceable(path.name, written, suffixes)
        if not replaced:
            kind = "the folder " if path.is_dir() else ""
            raise would_be_lost(str(folder), f"{kind}'{path.name}'")


def check_any_of_model(folder: str, names: Iterable[str], suffixes: Sequence[str]) -> None:
    """Raise where none of the files of a folder are of a model."""
    if not any(name == "config.json" or Path(name).suffix in suffixes for name in names):
        files = ", ".join(f"*{suffix}" for suffix in suffixes)
        raise FileExistsError(
            f"'{folder}' has no model, neither config.json nor {files}, so it is not replaced. "
            "Give another name, or remove it"
        )


def is_replaceable(name: str, written: Collection[Path], suffixes: Sequence[str]) -> bool:
    """Whether a file in a folder is of a model, or written anew, or nothing that is missed."""
    replaced = name.endswith((*_OF_MODELS, *suffixes)) or Path(name) in written
    return replaced or name == _DS_STORE or is_companion(name)


def would_be_lost(folder: str, what: str) -> FileExistsError:
    return FileExistsError(
        f"'{folder}' has {what}, which would be lost, so it is not replaced. Give another name, or "
        "remove it"
    )


def _is_written(subfolder: Path, folder: Path, written: Collection[Path]) -> bool:
    """Whether all that a subfolder has is written anew."""
    paths = [Path(place, name) for place, _, names in os.walk(subfolder) for name in names]
    return bool(paths) and all(path.relative_to(folder) in written for path in paths)
