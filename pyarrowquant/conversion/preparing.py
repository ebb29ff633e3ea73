"""What is checked before any work; a run that passes fails only for weights or the machine."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path

from pyarrowquant._core import arguments
from pyarrowquant._core.encodings import ENCODING_NAMES, INTEGER
from pyarrowquant._core.quoting import enumerated, first_few, meant
from pyarrowquant._core.settings import SettingOverrides, Settings, listed, merged
from pyarrowquant.conversion.checks import (
    check_file_names,
    check_names,
    check_room,
    check_sizes,
    copied_files,
)
from pyarrowquant.conversion.destination import check_destination, format_of
from pyarrowquant.conversion.importance import importance_in, of_layers, with_factors
from pyarrowquant.conversion.job import Job
from pyarrowquant.conversion.memory import batch_bytes
from pyarrowquant.conversion.noted import check_length, folder_of
from pyarrowquant.conversion.planning import (
    planned,
    with_instead,
    with_largest,
    with_one_scheme,
    with_ragged_kept,
)
from pyarrowquant.conversion.rescaling import check_choice, rescaled
from pyarrowquant.conversion.results import are_placed
from pyarrowquant.conversion.size import check_size, file_size
from pyarrowquant.conversion.source import (
    convertible,
    decoded_from,
    files_of,
    is_local,
    local_path,
)
from pyarrowquant.conversion.splitting import check_split, parts_for
from pyarrowquant.conversion.unquantized import unquantized
from pyarrowquant.conversion.whole import check_whole
from pyarrowquant.errors import UsageError, users_level
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._origin import Origin
from pyarrowquant.formats.registry import FORMATS, SUFFIXES
from pyarrowquant.reading.config import CONFIG, warn_of_constants
from pyarrowquant.reading.location import OpenFiles, locate
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.models import open_model
from pyarrowquant.reading.tensors import SCHEMA
from pyarrowquant.recipes.budget import BitsPerWeight, Budget
from pyarrowquant.recipes.mixes import mix_named
from pyarrowquant.recipes.named import file_of, is_named, is_profile
from pyarrowquant.recipes.planned import PlannedLayer
from pyarrowquant.recipes.presets import PRESETS, SENSITIVE
from pyarrowquant.recipes.recipe import Recipe, SaidRecipe, recipe_of
from pyarrowquant.recipes.rule import rule_label
from pyarrowquant.rescaling.view import RescaledModel
from pyarrowquant.stream import quantize_stream

_Path = str | os.PathLike[str]
_OF_PRESETS = frozenset(chain(SENSITIVE, *PRESETS.values()))


def prepare(
    source_path: _Path,
    destination_path: _Path,
    to: str | None,
    said: SettingOverrides,
    recipe: SaidRecipe | None,
    bits_per_weight: float | None,
    size: int | None,
    split: int | None,
    quality_floor: float | Mapping[str, float] | None,
    double: bool,
    pre_tokenizer: str | None,
    importance_path: _Path | None,
    rescale: str,
    threads: int | None,
    max_memory: int,
    continue_on_error: bool,
    overwrite: bool,
    is_to_be_placed: Callable[[Path], bool],
) -> Job:
    """Check all that can be known before any work.

    Parameters
    ----------
    is_to_be_placed : callable
        Whether an interrupted run has left a complete output for a destination, which this run
        only has to give its place.
    """
    destination = Path(destination_path)
    kind = format_of(destination, to, SUFFIXES)
    if kind not in FORMATS:
        raise UsageError(f"to={kind!r} must be one of {', '.join(FORMATS)}")
    target = FORMATS[kind].doubled() if double else FORMATS[kind]
    if target.usual.encoding != INTEGER:  # the only one that it has
        said = {"encoding": target.usual.encoding, **said}
    folder = target.is_folder(destination)
    source = local_path(os.fspath(source_path))
    place = Path(os.path.realpath(destination))  # what is written lies where links lead
    said_split = None
    if split is not None:
        said_split = check_split(split, destination, target, {"size": size is not None})
        place = Path(os.path.realpath(destination.absolute().parent), destination.name)
    fitted_to: Budget | None = None
    if bits_per_weight is not None:
        fitted_to = BitsPerWeight(bits_per_weight)
    budget = _budget_name(bits_per_weight, size)
    if size is not None:
        others = {
            "bits_per_weight": bits_per_weight is not None,
            "continue_on_error": continue_on_error,
        }
        size = check_size(size, target, [name for name, is_said in others.items() if is_said])
    if budget is not None and "bit_width" in said:
        raise UsageError(f"bit_width= and {budget}= exclude each other")
    check_choice(rescale)
    most_bytes = batch_bytes(max_memory)
    _check_encoding(said, target, budget)
    given = recipe_of(recipe)
    if given is not None:
        _check_mix(given.extends, said, target, budget)
    floor = arguments.quality_floor(quality_floor)
    _check_settings(target.usual.with_overrides(said), threads)
    model = open_model(replace(locate(source, None), files=OpenFiles()))
    files = [*files_of(model), *file_of(recipe), *file_of(importance_path)]
    if not is_to_be_placed(place):
        written = partial(target.copied_files, model)
        for path in [destination] if said_split is None else parts_for(destination, said_split):
            check_destination(path, overwrite, folder, files, written)
    target.check_destination(destination)
    check_length(place)
    if target.copies_files and model.folder is not None and not is_local(model):
        raise ValueError(
            f"'{source}' lies elsewhere, and to={kind!r} takes all files of its folder along. "
            "Download the folder first"
        )
    check_whole(model, target)
    model = rescaled(convertible(model), target, rescale)
    moved = model if isinstance(model, RescaledModel) else None
    model = target.viewed(model, pre_tokenizer)
    if said_split is not None and target.default_mix(model) is None:
        raise ValueError(
            f"'{model.location}': split= is for GGUF models and Hugging Face folders, as it takes "
            "a model to load parts. Leave it out"
        )
    if given is None and budget is None and said.keys() <= {"method"}:
        mix = target.default_mix(model)
    else:
        mix = None if given is None else given.extends
    importance = importance_in(importance_path, model, said)
    settings = target.defaults(model).with_overrides(said)
    is_changed = quality_floor is not None or (
        given is not None and bool(given.rules or given.default.said.keys() - {"method"})
    )
    if mix is not None:
        rest = target.mix(mix, model, importance is not None)
        given = (Recipe(name=mix) if given is None else given).extending(rest)
    chosen = _with_said(given, said, target, is_named(recipe))
    if chosen is not None and is_profile(recipe):
        usual = (target.default_recipe if budget is None else target.budget_recipe)(model)
        if usual is not None:
            chosen = Recipe(usual.rules, chosen.default.said, chosen.name)
    rules = target.recipe(model, chosen, budget is not None)
    if not is_named(recipe):
        _warn_of_unused(recipe_of(recipe), model)
    # This checks the schema, and arguments with the model's defaults.
    quantize_stream(model.reader(), **asdict(settings), recipe=rules, quality_floor=quality_floor)
    layers = planned(model, settings, rules)
    if "group_size" not in said and "encoding" not in said and target.group_sizes:
        group_size = target.fitting_group_size(layers)
        if group_size != settings.group_size:
            settings = replace(settings, group_size=group_size)
            layers = planned(model, settings, rules)
    rules, layers, instead = with_instead(target, layers, rules)
    _warn_of_instead(instead)
    rules, layers, ragged = with_ragged_kept(target, layers, rules)
    _warn_of_ragged(ragged, model, target)
    rules, layers, joined = with_one_scheme(target, layers, rules)
    _warn_of_joined([layer for layer in layers if layer.name in joined], target)
    if budget is not None:  # which replaces the bits
        layers = [_with_fitting_bits(layer, target) for layer in layers]
    target.check_plan(layers, model, settings)
    target.warn_of_mix(mix, layers)
    _check_any(model, target, layers, rules, settings)
    if target.copies_files and model.config is not None:
        warn_of_constants(model.config, f"{model.folder}/{CONFIG}")
    mixed = budget is not None or quality_floor is not None
    if mixed and (problem := target.mixed_problem(layers, model)):
        raise UsageError(problem)
    if importance is not None:
        importance = of_layers(importance, layers, model)
        if moved is not None:
            importance = with_factors(importance, model, moved)
    _warn_of_decoded(decoded_from(model, layers))
    left = unquantized(model, target, layers, rules)
    check_file_names(target.file_names(model) if folder else ())
    check_names(target, layers, left)
    check_sizes(layers)
    copied = copied_files(target, model)
    origin = Origin(mix, mix is not None and is_changed, importance, moved is not None, said_split)
    if size is not None:
        fitted_to = file_size(size, target, model, layers, left, origin)
    if fitted_to is not None and model.tensors is not None:
        largest = with_largest(target, fitted_to, layers, rules)
        if largest is not None:
            rules, fitted_to = largest, None  # nothing is left to choose, nor to measure
    placed = are_placed(target, model, continue_on_error, quality_floor is not None)
    check_room(target, layers, left, model, copied, fitted_to, placed, place, folder_of(place))
    job = Job(
        model,
        files,
        place,
        target,
        folder,
        settings,
        rules,
        origin,
        layers,
        fitted_to,
        floor,
        continue_on_error,
        threads,
        most_bytes,
        overwrite,
    )
    if fitted_to is None:
        job.split_files(layers)  # which raises where a tensor does not fit into a file
    return job


def _check_settings(settings: Settings, threads: int | None) -> None:
    """Raise where settings cannot be, whatever they are for."""
    quantize_stream(SCHEMA.empty_table(), **asdict(settings), threads=threads)


def _budget_name(bits_per_weight: float | None, size: int | None) -> str | None:
    """Return the argument that bits are fitted to."""
    if size is not None:
        return "size"
    return None if bits_per_weight is None else "bits_per_weight"


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


def _with_fitting_bits(layer: PlannedLayer, target: Format) -> PlannedLayer:
    """Return a layer with bits that a budget may choose for it."""
    if layer.settings is None:
        return layer
    return replace(layer, settings=target.candidates(layer.settings, layer.shape)[-1])


def _with_said(
    chosen: Recipe | None, said: SettingOverrides, target: Format, comes_along: bool
) -> Recipe | None:
    """Return the recipe, with what the caller says in place of its default.

    The group size of a profile or a scheme, which comes with the package, gives way where the
    format has usual ones of its own, of which one fits the model.
    """
    if chosen is None or chosen.default.skip:
        return chosen
    default = merged(chosen.default.said, said)
    group_size = default.get("group_size")
    is_number = isinstance(group_size, int) and group_size > 0
    if comes_along and "group_size" not in said and target.group_sizes and is_number:
        del default["group_size"]
    if default == chosen.default.said:
        return chosen
    try:
        return Recipe(chosen.rules, default, chosen.name)
    except ValueError as error:  # each was right without the other
        raise UsageError(str(error)) from None


def _check_any(
    model: Model,
    target: Format,
    layers: Sequence[PlannedLayer],
    recipe: Recipe | None,
    settings: Settings,
) -> None:
    """Raise where none of the tensors would be quantized."""
    if any(layer.settings is not None for layer in layers):
        return
    if model.tensors is None and not model.all_tensors:  # what is wrong with rows is said later
        return
    reasons = Counter(tensor.reason for tensor in unquantized(model, target, layers, recipe))
    told = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    way_out = (
        "recipe='all' leaves out only what the format cannot quantize"
        if _are_some_left_out(model, target, settings)
        else "The format can quantize none of them: take another"
    )
    raise ValueError(
        f"No layer would be quantized to {target.name}. '{model.location}' has "
        f"{len(model.all_tensors)} tensors: {told or 'none'}. {way_out}"
    )


def _are_some_left_out(model: Model, target: Format, settings: Settings) -> bool:
    """Whether the format can quantize something of a model."""
    rules = target.recipe(model, recipe_of("all"), False)
    rules, layers, _ = with_instead(target, planned(model, settings, rules), rules)
    _, layers, _ = with_ragged_kept(target, layers, rules)
    return any(layer.settings is not None for layer in layers)


def _warn_of_unused(recipe: Recipe | None, model: Model) -> None:
    """Warn of rules that match no tensor; those of presets are for many models."""
    unused = [
        rule_label(rule.said, number)
        for number, rule in enumerate(() if recipe is None else recipe.rules, 1)
        if rule not in _OF_PRESETS
        and not any(
            rule.matches(name, tensor.shape)
            for tensor in model.all_tensors
            for name in (tensor.name, *model.also_called(tensor))
        )
    ]
    if unused:
        warnings.warn(
            f"No layer matches: {first_few(unused, separator='; ')}",
            UserWarning,
            stacklevel=users_level(),
        )


def _warn_of_instead(names: Mapping[Settings, Sequence[str]]) -> None:
    """Say which layers get other settings than they were to have, for their columns."""
    for settings, layers in names.items():
        what = settings.encoding if settings.encoding != INTEGER else f"{settings.bit_width} bits"
        warnings.warn(
            f"Their rows are no whole blocks or groups, so these get {what} in groups of "
            f"{settings.group_size} instead: {first_few(layers)}",
            UserWarning,
            stacklevel=users_level(),
        )


def _warn_of_ragged(names: Sequence[str], model: Model, target: Format) -> None:
    tensors = {tensor.name: tensor for tensor in model.all_tensors}
    kept = [name for name in names if name in tensors and target.keeps(tensors[name], model)]
    lost = [name for name in names if name not in kept]
    for what, found in (("Kept", kept), ("Left out", lost)):
        if found:
            warnings.warn(
                f"{what}, as the format does not take their shape: {first_few(found)}",
                UserWarning,
                stacklevel=users_level(),
            )


def _warn_of_joined(layers: Sequence[PlannedLayer], target: Format) -> None:
    """Say which layers get other settings than they were to have, for the engine joins them."""
    same = [str(layer.name) for layer in layers if layer.settings is not None]
    kept = [str(layer.name) for layer in layers if layer.settings is None]
    for names, what in (
        (same, "layers with other settings, so they get the same"),
        (kept, "layers that are not quantized, so they are not, either"),
    ):
        if names:
            warnings.warn(
                f"Engines of {target.name} join these to {what}: {first_few(names)}",
                UserWarning,
                stacklevel=users_level(),
            )


def _warn_of_decoded(decoded: Mapping[str, int]) -> None:
    if decoded:
        listed_counts = ", ".join(f"{count} of {coding}" for coding, count in decoded.items())
        warnings.warn(
            f"Quantized already, and decoded first: {listed_counts}. Errors are those against the "
            "decoded weights; quantize float weights where you have them",
            UserWarning,
            stacklevel=users_level(),
        )
