"""What of a request is checked before the source is opened."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyarrowquant._core import arguments
from pyarrowquant._core.bounds import listed
from pyarrowquant._core.encodings import ENCODING_NAMES, INTEGER
from pyarrowquant._core.quoting import enumerated, meant
from pyarrowquant._core.settings import SettingOverrides, Settings
from pyarrowquant.conversion.destination import format_of
from pyarrowquant.conversion.memory import batch_bytes
from pyarrowquant.conversion.overriding import with_said
from pyarrowquant.conversion.request import Request
from pyarrowquant.conversion.rescaling import check_choice
from pyarrowquant.conversion.size import check_size
from pyarrowquant.conversion.splitting import check_split
from pyarrowquant.conversion.stores.landing import Landing
from pyarrowquant.errors import UsageError
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._origin import Split
from pyarrowquant.formats.registry import FOLDERS, FORMATS, SUFFIXES
from pyarrowquant.reading.tensors import SCHEMA
from pyarrowquant.recipes.budget import BitsPerWeight
from pyarrowquant.recipes.mixes import mix_named
from pyarrowquant.recipes.named import is_named
from pyarrowquant.recipes.recipe import Recipe, recipe_of
from pyarrowquant.stream import quantize_stream


@dataclass(frozen=True)
class Options:
    """What is asked for, as far as it says itself what it means.

    Attributes
    ----------
    landing : Landing
        Of the destination.
    target : Format
    said : SettingOverrides
        What is said of layers, with what the format alone has.
    place : Path
        Where the output will lie, as links lead.
    folder : bool
        Whether that is a folder.
    split : Split or None
    size : int or None
        The most bytes of the output.
    budget : BitsPerWeight or None
    quality_floor : dict or None
    batch_bytes : int
    """

    landing: Landing
    target: Format
    said: SettingOverrides
    place: Path
    folder: bool
    split: Split | None
    size: int | None
    budget: BitsPerWeight | None
    quality_floor: dict[str, float] | None
    batch_bytes: int


def checked_options(request: Request, landing: Landing) -> Options:
    """Check what a request says; raise where it contradicts itself or the format."""
    destination = landing.path
    target = _target(request, landing)
    said = request.said
    if target.usual.encoding != INTEGER:  # the only one that it has
        said = {"encoding": target.usual.encoding, **said}
    place = Path(os.path.realpath(destination))  # what is written lies where links lead
    split = size = None
    if request.split is not None:
        others = {"size": request.size is not None}
        split = check_split(request.split, destination, target, others)
        place = Path(os.path.realpath(destination.absolute().parent), destination.name)
    budget = None
    if request.bits_per_weight is not None:
        budget = BitsPerWeight(request.bits_per_weight)
    if request.size is not None:
        others = {
            "bits_per_weight": request.bits_per_weight is not None,
            "continue_on_error": request.continue_on_error,
        }
        excluded = [name for name, is_said in others.items() if is_said]
        size = check_size(request.size, target, excluded)
    if request.budget is not None and "bit_width" in said:
        raise UsageError(f"bit_width= and {request.budget}= exclude each other")
    check_choice(request.rescale)
    bound = batch_bytes(request.max_memory)
    _check_encoding(said, target, request.budget)
    given = recipe_of(request.recipe)
    if given is not None:
        _check_mix(given.extends, said, target, request.budget)
    floor = arguments.quality_floor(request.quality_floor)
    settings = target.usual.with_overrides(said)
    _check_settings(settings, request.threads)
    if given is None or is_named(request.recipe):  # others may say more of all layers
        _check_held(_of_all(settings, given, said, target, request.budget), target)
    folder = target.is_folder(destination)
    return Options(landing, target, said, place, folder, split, size, budget, floor, bound)


def _target(request: Request, landing: Landing) -> Format:
    kind = format_of(landing.path, request.to, SUFFIXES, FOLDERS, str(landing))
    if kind not in FORMATS:
        raise UsageError(f"to={kind!r} must be one of {', '.join(FORMATS)}")
    return FORMATS[kind].doubled() if request.double else FORMATS[kind]


def _check_settings(settings: Settings, threads: int | None) -> None:
    """Raise where settings cannot be, whatever they are for."""
    quantize_stream(SCHEMA.empty_table(), **asdict(settings), threads=threads)


def _of_all(
    settings: Settings,
    given: Recipe | None,
    said: SettingOverrides,
    target: Format,
    budget: str | None,
) -> Settings:
    """Return the settings of layers that no rule is for, with the default of a recipe."""
    chosen = with_said(given, said, target, comes_along=True)
    if chosen is None or chosen.default.skip or budget is not None:  # which replaces bits
        return settings
    overrides: Any = chosen.default.said
    return settings.with_overrides(overrides)


def _check_held(settings: Settings, target: Format) -> None:
    """Raise where a format holds no layer of these settings."""
    if problem := target.settings_problem(settings):
        raise UsageError(f"to={target.name!r} holds no such layer: {problem}")


def _check_mix(mix: str | None, said: SettingOverrides, target: Format, budget: str | None) -> None:
    """Raise where a mix or scheme is said for a format that has none, or with other settings."""
    if mix is None:
        return
    if mix not in target.mixes:
        kinds = enumerated(name for name, each in FORMATS.items() if mix in each.mixes)
        raise UsageError(f"recipe={mix!r} is none of to={target.name!r}: {mix} is of {kinds}")
    others = [f"{name}=" for name in said if name != "method"]
    if budget is not None:
        others.append(f"{budget}=")
    if others:
        raise UsageError(f"recipe={mix!r} says the types of all tensors: leave out {others[0]}")


def _check_encoding(said: SettingOverrides, target: Format, budget: str | None) -> None:
    """Raise where a format does not hold the encoding, or nothing is left to fit to a budget."""
    encoding = said.get("encoding", INTEGER)
    if encoding not in ENCODING_NAMES:
        hint = meant(encoding.lower(), ENCODING_NAMES)
        if mix := mix_named(encoding):
            hint += f" The mix of llama.cpp is recipe={mix!r}"
        raise UsageError(f"encoding {encoding!r} must be one of {listed(ENCODING_NAMES)}.{hint}")
    if encoding not in target.encodings:
        others = enumerated(name for name, each in FORMATS.items() if encoding in each.encodings)
        raise UsageError(
            f"to={target.name!r} holds encoding {listed(target.encodings)}, and not {encoding!r}, "
            f"which {others} hold"
        )
    if encoding != INTEGER and budget is not None:
        raise UsageError(
            f"{budget}= fits bit widths, and encoding={encoding!r} has one. Leave "
            "out one of the two; in Python, Recipe.fit() takes encodings as candidates"
        )
