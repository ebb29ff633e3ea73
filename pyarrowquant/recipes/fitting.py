"""Recipes for a budget of bits: every candidate measured on every layer, the best choice of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pyarrow as pa

from pyarrowquant._core import library
from pyarrowquant._core.arguments import Progress, boolean, check_progress, text, wrong_type
from pyarrowquant._core.bounds import BIT_WIDTHS, SETTINGS, one_of
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.options import quantize_options
from pyarrowquant._core.progress import Reporter
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.rows import layers
from pyarrowquant._core.settings import SettingOverrides, Settings
from pyarrowquant._core.source import INPUT_COLUMNS, Source, weights_bytes
from pyarrowquant.recipes.budget import Budget
from pyarrowquant.recipes.by_name import rule_by_name
from pyarrowquant.recipes.choosing import (
    MeasuredLayer,
    allocated,
    bits_of_all,
    keep_passing,
    least_bits,
    units_of,
)
from pyarrowquant.recipes.expected import Expected
from pyarrowquant.recipes.measuring import Costs, measured, rounds_of
from pyarrowquant.recipes.rule import (
    Rule,
    check_dict,
    check_fields,
    check_known,
    with_bit_width,
)

USUAL = Settings(method="mse")
OBJECTIVES = ("squared_error", "relative_error")

# What formats have in their own way. None takes more bits with it than tables with what is usual.
_OPEN = ("zero_point", "scale_dtype")


def candidate_settings(candidates: Sequence[Mapping[str, Any]] | None) -> list[SettingOverrides]:
    """Return what candidates say; by default every width."""
    if candidates is None:
        return [{"bit_width": width} for width in BIT_WIDTHS]
    said_by_each: list[SettingOverrides] = []
    if isinstance(candidates, (str, Mapping)) or not isinstance(candidates, Sequence):
        raise wrong_type("candidates must be a list of dicts", candidates)
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
    said : frozenset of str
        The names of settings that any of them says.
    """

    settings: list[Settings]
    of_layer: Callable[[Sequence[int], Settings], Mapping[Settings, int]]
    said: frozenset[str]


def said_candidates(
    candidates: Sequence[Mapping[str, Any]] | None,
    usual: Settings,
    bits_of: Callable[[Sequence[int], Settings], int],
) -> Candidates:
    """Return candidates that are the same for all layers.

    By default every width, or an encoding that the recipe says, which has one.
    """
    said = candidate_settings(candidates)
    if not callable(bits_of):
        raise wrong_type("bits_of must be a function of a shape and Settings", bits_of)

    def of_layer(shape: Sequence[int], base: Settings) -> dict[Settings, int]:
        fixed = candidates is None and base.encoding != INTEGER
        found = dict.fromkeys([base] if fixed else map(base.with_overrides, said))
        return {settings: bits_of(shape, settings) for settings in found}

    settings = [usual.with_overrides(each) for each in said]
    return Candidates(settings, of_layer, frozenset().union(*said))


@dataclass(frozen=True)
class Fit:
    """What was chosen.

    Attributes
    ----------
    chosen : list of (list of str, Settings)
        Names of layers, and what they are quantized with.
    expected : Expected
    left_open : mapping of str to collection of str
        Names of settings that a format may have otherwise, by names of layers.
    """

    chosen: list[tuple[list[str], Settings]]
    expected: Expected
    left_open: Mapping[str, Collection[str]] = field(default_factory=dict)

    @property
    def rules(self) -> list[Rule]:
        """The rules that say what was chosen, of recipes that skip all other layers."""
        rules = []
        for names, settings in self.chosen:
            alike: dict[frozenset[str], list[str]] = {}
            for name in names:
                alike.setdefault(frozenset(self.left_open.get(name, ())), []).append(name)
            rules += [rule_by_name(each, settings, unsaid) for unsaid, each in alike.items()]
        return rules


def fit(
    table: Any,
    budget: Budget,
    candidates: Candidates,
    recipe: Any,
    objective: str,
    weight_column: str | None,
    continue_on_error: bool,
    threads: int | None,
    progress: Progress,
) -> Fit:
    """Choose the settings of layers; see `Recipe.fit`."""
    one_of("objective", objective, OBJECTIVES)
    boolean("continue_on_error", continue_on_error)
    check_progress(progress)
    if weight_column is not None:
        text("weight_column", weight_column)
    columns = INPUT_COLUMNS if weight_column is None else INPUT_COLUMNS | {weight_column}
    source = Source(table, columns)
    data = source.read_all()
    options = replace(
        quantize_options(threads=threads),
        choices=candidates.settings,
        type_names=tuple(source.type_names.items()),
    )
    library.validate(source.schema, options.encoded())
    weights = _weights(data, weight_column)
    found = to_measure(layers(data), candidates.of_layer, USUAL, recipe)
    names = (name or "" for name, _ in layers(data))
    for name, weight in zip(names, weights, strict=True):
        if name in found:
            found[name].weight = weight
    check_budget(found, budget)
    choices = {name: layer.choices for name, layer in found.items()}
    with Reporter(progress, weights_bytes(data) * rounds_of(choices)) as reporter:
        costs, _ = measured(data, options, choices, {}, continue_on_error, reporter)
    best = chosen(found, costs, budget, objective)
    return replace(best, left_open=_left_open(best, found, candidates.said, recipe))


def _left_open(
    best: Fit, found: Mapping[str, MeasuredLayer], said: Collection[str], recipe: Any
) -> dict[str, list[str]]:
    """Return which of the settings nobody has said that formats have in their own way."""
    left: dict[str, list[str]] = {}
    for names, settings in best.chosen:
        # hqq was measured with zero-points that it can choose
        able = [each for each in _OPEN if each == "scale_dtype" or settings.method != "hqq"]
        for name in names:
            by_recipe = recipe.settings_of(name, found[name].shape) if recipe and name else None
            left[name] = [
                each for each in able if each not in said and each not in (by_recipe or {})
            ]
    return left


def to_measure(
    rows: Iterable[tuple[str | None, Sequence[int]]],
    candidates: Callable[[Sequence[int], Settings], Mapping[Settings, int]],
    usual: Settings,
    recipe: Any,
) -> dict[str, MeasuredLayer]:
    """Return the layers that a recipe does not skip, each with what may be chosen for it.

    Parameters
    ----------
    rows : iterable of (str or None, shape)
        The names and shapes of all layers.
    candidates : callable
        As `Candidates.of_layer`.
    usual : Settings
        What the recipe does not say.
    recipe : Recipe or None

    Returns
    -------
    dict of str to MeasuredLayer
        By names, "" for a layer without.
    """
    found: dict[str, MeasuredLayer] = {}
    for name, shape in rows:
        base = usual
        if name is not None and recipe is not None and None not in shape:
            _, base = recipe.decisions.applied(usual, name, shape)
            if base is None:
                continue
        if (name or "") in found:
            raise ValueError(f"Layer {quoted(name)} is there twice; a recipe goes by names")
        sizes = candidates(shape, base)
        found[name or ""] = MeasuredLayer(name or "", shape, 1.0, list(sizes), list(sizes.values()))
    if not found:
        raise ValueError("There is no layer to fit: the table is empty, or the recipe skips all")
    return found


def check_budget(
    found: Mapping[str, MeasuredLayer],
    budget: Budget | None,
    together: Callable[[str], str | None] = lambda _: None,
) -> None:
    """Raise before any work where a budget cannot be met."""
    bits_of_all(units_of(list(found.values()), together), budget)


def chosen(
    found: Mapping[str, MeasuredLayer],
    costs: Mapping[str, Costs],
    budget: Budget | None,
    objective: str,
    floor: Mapping[str, float] | None = None,
    together: Callable[[str], str | None] = lambda _: None,
) -> Fit:
    """Choose the settings of layers that were measured.

    Parameters
    ----------
    found : mapping
    costs : mapping
        By the same names; layers that have none are left out.
    budget : Budget or None
        None for the least bits that pass the floor.
    objective : {"squared_error", "relative_error"}
    floor : mapping, optional
        The bounds of `arguments.quality_floor`. Of a layer that passes with none of its candidates,
        the one of most bits is taken.
    together : callable, optional
        Returns a name of the layers that get the same settings as this one; None for its own.
    """
    every = list(dict.fromkeys(each for layer in found.values() for each in layer.choices))
    left = [layer for name, layer in found.items() if name in costs]
    for layer in left:
        cost = costs[layer.name]
        layer.squared_errors, layer.weighted_errors = cost.squared_errors, cost.weighted_errors
        layer.norm, layer.passes = cost.norm, cost.passes
    units = units_of(left, together)
    if floor:
        keep_passing(units)
    bits = bits_of_all(units, budget, floor)
    of_units = least_bits(units) if bits is None else allocated(units, bits, objective)
    picked = [(layer, k) for unit, k in zip(units, of_units, strict=True) for layer in unit.layers]
    names: dict[Settings, list[str]] = {settings: [] for settings in every}
    for layer, k in picked:
        names[layer.choices[k]].append(layer.name)
    return Fit([(each, settings) for settings, each in names.items() if each], _expected(picked))


def _weights(data: pa.Table, column: str | None) -> list[float]:
    if column is None:
        return [1.0] * data.num_rows
    if column not in data.column_names:
        raise ValueError(f"Missing column {quoted(column)}, which weight_column names")
    weights = data[column].to_pylist()
    for row, weight in enumerate(weights):
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not 0 <= weight < math.inf:
            raise ValueError(
                f"Column '{column}' has {weight!r} in row {row}. Weights of layers must be "
                "finite and not negative"
            )
    return [float(weight) for weight in weights]


def _expected(pairs: list[tuple[MeasuredLayer, int]]) -> Expected:
    elements = sum(math.prod(layer.shape) for layer, _ in pairs)
    squared_error = math.fsum(layer.squared_errors[k] for layer, k in pairs)
    norm = math.fsum(layer.norm for layer, _ in pairs)
    return Expected(
        bits_per_weight=sum(layer.bits[k] for layer, k in pairs) / max(elements, 1),
        squared_error=squared_error,
        relative_error=math.sqrt(squared_error / norm) if norm else 0.0,
    )
