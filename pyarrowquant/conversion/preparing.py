"""What is checked before any work; a run that passes fails only for weights or the machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pyarrowquant._core.settings import Settings
from pyarrowquant.conversion.checks import (
    check_file_names,
    check_names,
    check_room,
    check_room_on_the_way,
    check_sizes,
    copied_bytes,
)
from pyarrowquant.conversion.choosing import Choice, choice
from pyarrowquant.conversion.engines import engine_named
from pyarrowquant.conversion.importance import of_layers
from pyarrowquant.conversion.job import Job
from pyarrowquant.conversion.opening import opened
from pyarrowquant.conversion.options import Options, checked_options
from pyarrowquant.conversion.partial.noted import folder_of
from pyarrowquant.conversion.partial.results import are_placed
from pyarrowquant.conversion.planning import (
    planned,
    with_instead,
    with_largest,
    with_one_scheme,
    with_ragged_kept,
)
from pyarrowquant.conversion.planning_warnings import (
    warn_of_decoded,
    warn_of_instead,
    warn_of_joined,
    warn_of_lacking,
    warn_of_ragged,
    warn_of_uncounted,
    warn_of_unused,
)
from pyarrowquant.conversion.request import Request
from pyarrowquant.conversion.size import file_size
from pyarrowquant.conversion.source import decoded_from
from pyarrowquant.conversion.splitting import choices_of
from pyarrowquant.conversion.stores.landing import Landing
from pyarrowquant.conversion.unquantized import unquantized
from pyarrowquant.errors import UsageError
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._origin import Origin
from pyarrowquant.reading.config import CONFIG, warn_of_constants
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.budget import Budget
from pyarrowquant.recipes.named import is_named
from pyarrowquant.recipes.planned import PlannedLayer
from pyarrowquant.recipes.recipe import recipe_of
from pyarrowquant.stream import quantize_stream


def prepare(request: Request, landing: Landing, is_to_be_placed: Callable[[Path], bool]) -> Job:
    """Check all that can be known before any work.

    Parameters
    ----------
    request : Request
    landing : Landing
        Of the destination.
    is_to_be_placed : callable
        As of `opened`.
    """
    engine = engine_named(request.engine, request.address, request.threads)
    options = checked_options(request, landing)
    source = opened(request, options, is_to_be_placed)
    target, model = options.target, source.model
    chosen = choice(request, options, model)
    if not is_named(request.recipe):
        warn_of_unused(recipe_of(request.recipe), model)
    # This checks the schema, and arguments with the model's defaults.
    quantize_stream(
        model.reader(),
        **asdict(chosen.settings),
        recipe=chosen.recipe,
        quality_floor=request.quality_floor,
    )
    chosen, layers = _layers(chosen, options, model)
    if request.budget is not None:  # which replaces the bits
        choices = choices_of(
            target, model, Origin(importance=chosen.importance, split=options.split)
        )
        layers = [_with_fitting_bits(layer, choices) for layer in layers]
    _check_layers(request, target, model, chosen, layers)
    importance = chosen.importance
    if importance is not None:
        importance = of_layers(importance, layers, model)
    warn_of_decoded(decoded_from(model, layers))
    left = unquantized(model, target, layers, chosen.recipe)
    warn_of_lacking(model, target, left)
    if request.bits_per_weight is not None:
        warn_of_uncounted(request.bits_per_weight, layers, left)
    check_file_names(target.file_names(model) if options.folder else ())
    check_names(target, layers, left)
    check_sizes(layers)
    copied = copied_bytes(target, model)
    is_rescaled = source.source.rescaled is not None
    origin = Origin(chosen.mix, chosen.mix_is_changed, importance, is_rescaled, options.split)
    budget: Budget | None = options.budget
    if options.size is not None:
        budget = file_size(options.size, target, model, layers, left, origin)
    if budget is not None and model.tensors is not None:
        largest = with_largest(target, budget, layers, chosen.recipe)
        if largest is not None:  # nothing is left to choose, nor to measure
            chosen, budget = replace(chosen, recipe=largest), None
    placed = are_placed(target, model, request.continue_on_error, request.quality_floor is not None)
    place = options.place
    leaves = placed and landing.store is not None and (options.folder or options.split)
    if not leaves:
        check_room(target, layers, left, model, copied, budget, placed, place, folder_of(place))
    job = Job(
        viewed=source.source,
        view=source.view,
        files=source.files,
        landing=landing.at(place),
        folder=options.folder,
        settings=chosen.settings,
        recipe=chosen.recipe,
        origin=origin,
        layers=layers,
        budget=budget,
        quality_floor=options.quality_floor,
        continue_on_error=request.continue_on_error,
        threads=request.threads,
        engine=engine,
        batch_bytes=options.batch_bytes,
        overwrite=request.overwrite,
    )
    job.check_split()
    if leaves and budget is None and request.engine == "local":  # which makes one after the other
        check_room_on_the_way([max(job.files_of(layers), key=lambda file: file.size)], place)
    return job


def _layers(chosen: Choice, options: Options, model: Model) -> tuple[Choice, list[PlannedLayer]]:
    """List what becomes of layers, and what is chosen by that."""
    target, said, settings, rules = options.target, options.said, chosen.settings, chosen.recipe
    layers = planned(model, settings, rules)
    if "group_size" not in said and "encoding" not in said and target.group_sizes:
        group_size = target.fitting_group_size(layers)
        if group_size != settings.group_size:
            settings = replace(settings, group_size=group_size)
            layers = planned(model, settings, rules)
    rules, layers, instead = with_instead(target, layers, rules)
    warn_of_instead(instead)
    rules, layers, ragged = with_ragged_kept(target, layers, rules)
    warn_of_ragged(ragged, model, target)
    rules, layers, joined = with_one_scheme(target, layers, rules)
    warn_of_joined([layer for layer in layers if layer.name in joined], target)
    return replace(chosen, settings=settings, recipe=rules), layers


def _check_layers(
    request: Request,
    target: Format,
    model: Model,
    chosen: Choice,
    layers: Sequence[PlannedLayer],
) -> None:
    """Raise where the format cannot have these layers, or has none of them."""
    target.check_plan(layers, model, chosen.settings)
    target.warn_of_mix(chosen.mix, layers)
    _check_any(model, target, layers, chosen)
    if target.copies_files and model.config is not None:
        warn_of_constants(model.config, f"{model.folder}/{CONFIG}")
    if request.is_mixed and (problem := target.mixed_problem(layers, model)):
        raise UsageError(problem)


def _with_fitting_bits(
    layer: PlannedLayer, choices: Callable[[Settings, Sequence[int]], Sequence[Settings]]
) -> PlannedLayer:
    """Return a layer with the most bits that a budget may choose for it."""
    if layer.settings is None:
        return layer
    return replace(layer, settings=choices(layer.settings, layer.shape)[-1])


def _check_any(
    model: Model,
    target: Format,
    layers: Sequence[PlannedLayer],
    chosen: Choice,
) -> None:
    """Raise where none of the tensors would be quantized."""
    if any(layer.settings is not None for layer in layers):
        return
    if model.tensors is None and not model.all_tensors:  # what is wrong with rows is said later
        return
    reasons = Counter(tensor.reason for tensor in unquantized(model, target, layers, chosen.recipe))
    told = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    way_out = (
        "recipe='all' leaves out only what the format cannot quantize"
        if _are_some_left_out(model, target, chosen.settings)
        else "The format can quantize none of them: take another"
    )
    raise ValueError(
        f"No layer would be quantized to {target.name}. '{model.location}' has "
        f"{len(model.all_tensors)} tensors: {told or 'none'}. {way_out}"
    )


def _are_some_left_out(model: Model, target: Format, settings: Settings) -> bool:
    """Whether the format can quantize something of a model."""
    rules = target.recipe(model, recipe_of("all"), target.default_recipe(model))
    rules, layers, _ = with_instead(target, planned(model, settings, rules), rules)
    _, layers, _ = with_ragged_kept(target, layers, rules)
    return any(layer.settings is not None for layer in layers)
