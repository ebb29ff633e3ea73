"""The source and the destination of a conversion, which are checked first."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.settings import SettingOverrides
from pyarrowquant.conversion.destination import check_destination, format_of
from pyarrowquant.conversion.noted import check_length
from pyarrowquant.conversion.request import Request
from pyarrowquant.conversion.source import files_of, is_local, local_path
from pyarrowquant.conversion.splitting import check_split, parts_for
from pyarrowquant.conversion.viewing import View, Viewed
from pyarrowquant.errors import UsageError
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._origin import Split
from pyarrowquant.formats.registry import FORMATS, SUFFIXES
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.named import file_of


@dataclass(frozen=True)
class Opened:
    """A source that is opened for a format, and where the output will be.

    Attributes
    ----------
    target : Format
    view : View
    source : Viewed
    files : list of Path
        What is read, and so must not be replaced.
    place : Path
        Where the output will lie, as links lead.
    folder : bool
        Whether that is a folder.
    split : Split or None
    said : SettingOverrides
        What is said of layers, with what the format alone has.
    """

    target: Format
    view: View
    source: Viewed
    files: list[Path]
    place: Path
    folder: bool
    split: Split | None
    said: SettingOverrides

    @property
    def model(self) -> Model:
        """The source, with the names and rows of the format."""
        return self.source.model


def opened(request: Request, is_to_be_placed: Callable[[Path], bool]) -> Opened:
    """Open the source; raise where it, or the destination, is none for the format.

    Parameters
    ----------
    request : Request
    is_to_be_placed : callable
        Whether an interrupted run has left a complete output for a destination, which this run
        only has to give its place.
    """
    destination = Path(request.destination)
    target = _target(request, destination)
    folder = target.is_folder(destination)
    source = local_path(os.fspath(request.source))
    place = Path(os.path.realpath(destination))  # what is written lies where links lead
    split = None
    if request.split is not None:
        others = {"size": request.size is not None}
        split = check_split(request.split, destination, target, others)
        place = Path(os.path.realpath(destination.absolute().parent), destination.name)
    view = View(source, target, request.rescale, request.pre_tokenizer)
    model = view.open()
    files = [*files_of(model), *file_of(request.recipe), *file_of(request.importance)]
    if not is_to_be_placed(place):
        written = partial(target.copied_files, model)
        for path in [destination] if split is None else parts_for(destination, split):
            check_destination(path, request.overwrite, folder, files, written)
    target.check_destination(destination)
    check_length(place)
    if target.copies_files and model.folder is not None and not is_local(model):
        raise ValueError(
            f"'{source}' lies elsewhere, and to={target.name!r} takes all files of its folder "
            "along. Download the folder first"
        )
    viewed = view.of(model)
    if split is not None and target.default_mix(viewed.model) is None:
        raise ValueError(
            f"'{view.source}': split= is for GGUF models and Hugging Face folders, as it takes a "
            "model to load parts. Leave it out"
        )
    said = request.said
    if target.usual.encoding != INTEGER:  # the only one that it has
        said = {"encoding": target.usual.encoding, **said}
    return Opened(target, view, viewed, files, place, folder, split, said)


def _target(request: Request, destination: Path) -> Format:
    kind = format_of(destination, request.to, SUFFIXES)
    if kind not in FORMATS:
        raise UsageError(f"to={kind!r} must be one of {', '.join(FORMATS)}")
    return FORMATS[kind].doubled() if request.double else FORMATS[kind]
