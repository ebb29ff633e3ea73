"""The source of a conversion, opened for its format, and the destination, which must be free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pyarrowquant._core.file_names import refuse_impossible
from pyarrowquant.conversion.destination import check_destination
from pyarrowquant.conversion.heads import check_head
from pyarrowquant.conversion.lacking_tensors import check_tensors
from pyarrowquant.conversion.options import Options
from pyarrowquant.conversion.request import Request
from pyarrowquant.conversion.source import files_of, local_path
from pyarrowquant.conversion.splitting import parts_for
from pyarrowquant.conversion.stores.stored_destination import check_stored
from pyarrowquant.conversion.viewing import View, Viewed
from pyarrowquant.conversion.whole import check_loads, check_whole
from pyarrowquant.formats._model_class import check_class
from pyarrowquant.formats._model_type import warn_of_no_model_type
from pyarrowquant.reading.location import path_text
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.uris import shown_uri
from pyarrowquant.recipes.named import file_of


@dataclass(frozen=True)
class Opened:
    """A source that is opened for a format.

    Attributes
    ----------
    view : View
    source : Viewed
    files : list of Path
        What is read, and so must not be replaced.
    """

    view: View
    source: Viewed
    files: list[Path]

    @property
    def model(self) -> Model:
        """The source, with the names and rows of the format."""
        return self.source.model


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
    refuse_impossible(options.place)
    source, destination = local_path(path_text("source", request.source)), options.landing.path
    view = View(source, target, request.rescale, request.pre_tokenizer)
    model = view.open()
    files = [*files_of(model), *file_of(request.recipe), *file_of(request.importance)]
    if not is_to_be_placed(options.place):
        written = partial(target.files_beside, model)
        for path in [destination] if split is None else parts_for(destination, split):
            check_destination(path, request.overwrite, options.folder, files, written)
        if options.landing.store is not None:
            check_stored(
                options.landing.store, request.overwrite, options.folder, split, model, written
            )
    target.check_destination(destination)
    check_whole(model, target)
    if target.loads_by_class:
        warn_of_no_model_type(model)
    if target.is_of_models and not request.tensors_only:
        check_class(model)
        check_head(model)
        if not target.knows_architectures:
            check_tensors(model)
    model.check_names(need_names=not request.continue_on_error)  # else each is a layer that fails
    viewed = view.of(model)
    check_loads(viewed.model, target, request.tensors_only)
    if split is not None and target.default_mix(viewed.model) is None:
        raise ValueError(
            f"'{shown_uri(view.source)}': split= is for GGUF models and Hugging Face folders, as "
            "it takes a model to load parts. Leave it out"
        )
    return Opened(view, viewed, files)
