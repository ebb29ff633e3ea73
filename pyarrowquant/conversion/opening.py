"""The source of a conversion, opened for its format, and the destination, which must be free."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pyarrowquant.conversion.destination import check_destination
from pyarrowquant.conversion.noted import check_length
from pyarrowquant.conversion.options import Options
from pyarrowquant.conversion.request import Request
from pyarrowquant.conversion.rescaling import rescaled
from pyarrowquant.conversion.source import convertible, files_of, is_local, local_path
from pyarrowquant.conversion.splitting import parts_for
from pyarrowquant.conversion.whole import check_whole
from pyarrowquant.reading.location import OpenFiles, locate
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.models import open_model
from pyarrowquant.recipes.named import file_of
from pyarrowquant.rescaling.view import RescaledModel


@dataclass(frozen=True)
class Opened:
    """A source that is opened for a format.

    Attributes
    ----------
    model : Model
        With the names and rows of the format.
    rescaled : RescaledModel or None
        What factors were moved in, under the names of the source.
    files : list of Path
        What is read, and so must not be replaced.
    """

    model: Model
    rescaled: RescaledModel | None
    files: list[Path]


def opened(request: Request, options: Options, is_to_be_placed: Callable[[Path], bool]) -> Opened:
    """Open the source; raise where it, or the destination, is none for the format.

    Parameters
    ----------
    request : Request
    options : Options
    is_to_be_placed : callable
        Whether an interrupted run has left a complete output for a destination, which this run
        only has to give its place.
    """
    target, split = options.target, options.split
    source, destination = local_path(os.fspath(request.source)), Path(request.destination)
    model = open_model(replace(locate(source, None), files=OpenFiles()))
    files = [*files_of(model), *file_of(request.recipe), *file_of(request.importance)]
    if not is_to_be_placed(options.place):
        written = partial(target.copied_files, model)
        for path in [destination] if split is None else parts_for(destination, split):
            check_destination(path, request.overwrite, options.folder, files, written)
    target.check_destination(destination)
    check_length(options.place)
    if target.copies_files and model.folder is not None and not is_local(model):
        raise ValueError(
            f"'{source}' lies elsewhere, and to={target.name!r} takes all files of its folder "
            "along. Download the folder first"
        )
    check_whole(model, target)
    moved = rescaled(convertible(model), target, request.rescale)
    viewed = target.viewed(moved, request.pre_tokenizer)
    if split is not None and target.default_mix(viewed) is None:
        raise ValueError(
            f"'{viewed.location}': split= is for GGUF models and Hugging Face folders, as it takes "
            "a model to load parts. Leave it out"
        )
    return Opened(viewed, moved if isinstance(moved, RescaledModel) else None, files)
