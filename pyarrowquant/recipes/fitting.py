"""Recipes for a budget of bits: every candidate measured on every layer, the best choice of all."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import pyarrow as pa

from pyarrowquant._core import library
from pyarrowquant._core.arguments import Progress
from pyarrowquant._core.encodings import ENCODINGS
from pyarrowquant._core.group_sizes import groups_in_row
from pyarrowquant._core.measure import SKIP, measure
from pyarrowquant._core.options import Options, quantize_options
from pyarrowquant._core.progress import EachPart, Reporter
from pyarrowquant._core.rows import layers
from pyarrowquant._core.settings import (
    BIT_WIDTHS,
    SETTINGS,
    SettingOverrides,
    Settings,
    one_of,
)
from pyarrowquant._core.source import INPUT_COLUMNS, Source, weights_bytes
from pyarrowquant.errors import (
    ArgumentTypeError,
    LayerError,
    QuantizationError,
    SkippedLayerWarning,
    users_level,
)
from pyarrowquant.recipes.budget import Budget
from pyarrowquant.recipes.choosing import (
    MeasuredLayer,
    allocated,
    bits_of_all,
    keep_passing,
    least_bits,
    units_of,
)
from pyarrowquant.recipes.expected import Expected
from pyarrowquant.recipes.floor import missed_bound
from pyarrowquant.recipes.rule import check_dict, check_fields, check_known, with_bit_width

USUAL = Settings(method="mse")
OBJECTIVES = ("squared_error", "relative_error")

# As exports store them: a float zero-point takes as much as a scale, an integer one the bits of a
# code, a symmetric one nothing.
_SCALE_BITS = {"float32": 32, "float16": 16, "bfloat16": 16}


def stored_bits(shape: Sequence[int], settings: Settings) -> int:
    """Return the bits that a layer takes: codes, scales and zero-points.

    Rows of codes are padded to bytes. Scales count 32 bits, or 16 with a scale_dtype of 16;
    zero-points the same if they are float, bit_width if integer, nothing if symmetric. Other
    encodings than "int" store what they store.
    """
    elements = math.prod(shape)
    if elements == 0:
        return 0
    rows = shape[0] if len(shape) > 1 else 1
    columns = elements // rows
    width, group_size = settings.bit_width, settings.group_size
    scale = _SCALE_BITS[settings.scale_dtype]
    encoding = ENCODINGS.get(settings.encoding)
    if encoding is not None:
        return encoding.stored_bits(rows, columns, group_size, scale)
    groups = groups_in_row(group_size, columns)
    zero_point = {"integer": width, "float": scale, "symmetric": 0}[settings.zero_point]
    row_bits: int = -(-columns * width // 8) * 8 + groups * (scale + zero_point)
    return rows * row_bits


def candidate_settings(candidates: Sequence[Mapping[str, Any]] | None) -> list[SettingOverrides]:
    """Return what candidates say; by default every width."""
    if candidates is None:
        return [{"bit_width": width} for width in BIT_WIDTHS]
    said_by_each: list[SettingOverrides] = []
    if isinstance(candidates, (str, Mapping)) or not isinstance(candidates, Sequence):
        raise ArgumentTypeError(
            f"candidates must be a list of dicts, got {type(candidates).__name__}: {candidates!r}"
        )
    for number, said in enumerate(candidates, 1):
        where = f"Candidate {number}"
        check_dict(where, said)
        said = with_bit_width(where, said)
        check_known(where, said, SETTINGS)
        said_by_each.append(cast(SettingOverrides, check_fields(where, said)))
    if not said_by_each:
        raise ValueError("candidates must not be empty")
    return said_by_each


@dataclass(frozen=True)
class Candidates:
    """What may be chosen.

    Attributes
    ----------
    settings : list of Settings
        Examples that show whether settings can be used at all, before any work.
    of_layer : callable
        Returns what a layer of a shape may have, given its settings by the recipe, and the bits
        that it takes with each.
    """

    settings: list[Settings]
    of_layer: Callable[[Sequence[int], Settings], Mapping[Settings, int]]


def said_candidates(
    candidates: Sequence[Mapping[str, Any]] | None,
    usual: Settings,
    bits_of: Callable[[Sequence[int], Settings], int],
) -> Candidates:
    """Return candidates that are the same for all layers; by default every width."""
    said = candidate_settings(candidates)

    def of_layer(shape: Sequence[int], base: Settings) -> dict[Settings, int]:
        found = dict.fromkeys(base.with_overrides(each) for each in said)
        return {settings: bits_of(shape, settings) for settings in found}

    return Candidates([usual.with_overrides(each) for each in said], of_layer)


@dataclass(frozen=True)
class Fit:
    """What was chosen.

    Attributes
    ----------
    chosen : list of (list of str, Settings)
        Names of layers, and what they are quantized with.
    expected : Expected
    skipped : list of LayerError
        Of layers that failed.
    """

    chosen: list[tuple[list[str], Settings]]
    expected: Expected
    skipped: list[LayerError]


def fit(
    table: Any,
    budget: Budget | None,
    candidates: Candidates,
    recipe: Any,
    objective: str,
    weight_column: str | None,
    continue_on_error: bool,
    threads: int | None,
    progress: Progress | EachPart,
    usual: Settings = USUAL,
    floor: dict[str, float] | None = None,
    weigh: Callable[[str, Sequence[int]], float] | None = None,
    together: Callable[[str], str | None] = lambda _: None,
) -> Fit:
    """Choose the settings of layers; see `Recipe.fit`.

    Parameters
    ----------
    budget : Budget or None
        None for the least bits that pass the floor.
    usual : Settings
        What the recipe does not say.
    floor : dict, optional
        The bounds of `arguments.quality_floor`. Of a layer that passes with none of its candidates,
        the one of most bits is taken.
    weigh : callable, optional
        Returns the weight of a layer by its name and shape, in place of a column.
    together : callable, optional
        Returns a name of the layers that get the same settings as this one; None for its own.
    """
    one_of("objective", objective, OBJECTIVES)
    columns = INPUT_COLUMNS if weight_column is None else INPUT_COLUMNS | {weight_column}
    source = Source(table, columns)
    data = source.read_all()
    options = replace(
        quantize_options(threads=threads),
        choices=candidates.settings,
        type_names=tuple(source.type_names.items()),
    )
    library.validate(source.schema, options.encoded())
    found = _wanted(data, candidates, usual, recipe, weight_column)
    if weigh is not None:
        for layer in found:
            layer.weight = weigh(layer.name, layer.shape)
    units = units_of(found, together)
    bits_of_all(units, budget)  # what cannot be met is said before any work
    every = list(dict.fromkeys(settings for layer in found for settings in layer.choices))
    rounds = max(len(layer.choices) for layer in found)
    skipped: list[LayerError] = []
    with Reporter(progress, weights_bytes(data) * rounds) as reporter:
        for number in range(rounds):
            if reporter is not None:
                reporter.start(weights_bytes(data))
            failed = _measure(data, options, every, number, found, reporter, floor or {})
            if failed and not continue_on_error:
                raise _error(failed)
            for error in failed:
                warnings.warn(
                    f"Skipped: {error.message}", SkippedLayerWarning, stacklevel=users_level()
                )
            skipped += failed
    units = units_of(found, together)  # of what has not failed
    if floor:
        keep_passing(units)
    bits = bits_of_all(units, budget, floor)
    of_units = least_bits(units) if bits is None else allocated(units, bits, objective)
    picked = [(layer, k) for unit, k in zip(units, of_units, strict=True) for layer in unit.layers]
    names: dict[Settings, list[str]] = {settings: [] for settings in every}
    for layer, k in picked:
        names[layer.choices[k]].append(layer.name)
    chosen = [(each, settings) for settings, each in names.items() if each]
    return Fit(chosen, _expected(picked), skipped)


def _wanted(
    data: pa.Table,
    candidates: Candidates,
    usual: Settings,
    recipe: Any,
    weight_column: str | None,
) -> list[MeasuredLayer]:
    """Return the layers that a recipe does not skip, each with what may be chosen for it."""
    found: list[MeasuredLayer] = []
    names: set[str | None] = set()
    weights = _weights(data, weight_column)
    for row, (name, shape) in enumerate(layers(data)):
        base = usual
        if name is not None and recipe is not None and None not in shape:
            base = recipe.applied(usual, name, shape)
            if base is None:
                continue
        if name in names:
            raise ValueError(f"Layer '{name}' is there twice; a recipe goes by names")
        names.add(name)
        sizes = candidates.of_layer(shape, base)
        layer = MeasuredLayer(
            name or "", shape, row, weights[row], list(sizes), list(sizes.values()), []
        )
        found.append(layer)
    if not found:
        raise ValueError("There is no layer to fit: the table is empty, or the recipe skips all")
    return found


def _weights(data: pa.Table, column: str | None) -> list[float]:
    if column is None:
        return [1.0] * data.num_rows
    if column not in data.column_names:
        raise ValueError(f"Missing column '{column}', which weight_column names")
    weights = data[column].to_pylist()
    for row, weight in enumerate(weights):
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not 0 <= weight < math.inf:
            raise ValueError(
                f"Column '{column}' has {weight!r} in row {row}. Weights of layers must be "
                "finite and not negative"
            )
    return [float(weight) for weight in weights]


def _measure(
    data: pa.Table,
    options: Options,
    every: list[Settings],
    number: int,
    found: list[MeasuredLayer],
    reporter: Reporter | None,
    floor: dict[str, float],
) -> list[LayerError]:
    """Add what a choice of each layer leaves to it; those that fail are taken out."""
    positions = {settings: position for position, settings in enumerate(every)}
    rows = [SKIP] * data.num_rows
    wanted = [layer.row for layer in found if number < len(layer.choices)]
    for layer in found:
        if number < len(layer.choices):
            rows[layer.row] = positions[layer.choices[number]]
    measured, result = measure(data, options, every, rows, wanted, reporter)
    failing = {error.row for error in result.skipped}
    found[:] = [layer for layer in found if layer.row not in failing]
    for layer in found:
        if layer.row not in measured:
            continue
        errors = measured[layer.row]
        layer.passes.append(not missed_bound(errors, floor))
        squared_error = errors["mse"] * math.prod(layer.shape)
        layer.squared_errors.append(squared_error)
        layer.norm = errors["norm"] ** 2
    return result.skipped


def _error(failed: list[LayerError]) -> QuantizationError:
    lines = [error.message for error in failed]
    if len(failed) > 1:
        lines = [f"{len(failed)} layers failed:", *lines]
    return QuantizationError("\n".join(lines), failed)


def _expected(pairs: list[tuple[MeasuredLayer, int]]) -> Expected:
    elements = sum(math.prod(layer.shape) for layer, _ in pairs)
    squared_error = math.fsum(layer.squared_errors[k] for layer, k in pairs)
    norm = math.fsum(layer.norm for layer, _ in pairs)
    return Expected(
        bits_per_weight=sum(layer.bits[k] for layer, k in pairs) / max(elements, 1),
        squared_error=squared_error,
        relative_error=math.sqrt(squared_error / norm) if norm else 0.0,
    )
