"""The settings of each layer of a table: by a recipe, and wider where a floor demands it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from pyarrowquant._core import arguments
from pyarrowquant._core.bounds import BIT_WIDTHS
from pyarrowquant._core.encodings import ENCODINGS, INTEGER
from pyarrowquant._core.measure import SKIP, measure
from pyarrowquant._core.options import Options
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.rows import layers
from pyarrowquant._core.settings import Settings
from pyarrowquant._core.source import check_data
from pyarrowquant.errors import users_level
from pyarrowquant.recipes.floor import missed_bound
from pyarrowquant.recipes.recipe import recipe_of

Fitting = Callable[[Settings, Sequence[int]], Settings | None]
LayerScale = Callable[[str], float]


@dataclass(frozen=True)
class _Measured:
    """What settings of a layer come to that misses the floor.

    Attributes
    ----------
    layer_name : str
    settings : Settings
    relative_error : float
        Weighted by importance.
    """

    layer_name: str
    settings: Settings
    relative_error: float


class Plan:
    """Go's quant.Options for tables, of which one call may have many.

    Parameters
    ----------
    options : Options
        What is the same for all tables.
    recipe : Recipe or None, or what means one
    quality_floor : float or mapping or None
    widths_with : callable
        Returns the bit widths that a floor may choose with zero-points of a kind, the narrowest
        first.
    fitting : callable
        Returns what a floor takes for a layer of a shape in place of wider settings that do not
        fit; None for settings that cannot be had.
    layer_scale : callable, optional
        Returns the least scale of a layer whose encoding has such; 0 for its own.

    Attributes
    ----------
    missed : list of str or None
        Gets what is to be said of layers that miss the floor; by default a warning says it.
    """

    def __init__(
        self,
        options: Options,
        recipe: object,
        quality_floor: object,
        widths_with: Callable[[str], Sequence[int]] = lambda _: BIT_WIDTHS,
        fitting: Fitting = lambda settings, _: settings,
        layer_scale: LayerScale | None = None,
    ) -> None:
        self.missed: list[str] | None = None
        self._options = options
        chosen = recipe_of(recipe)
        self._recipe = chosen
        self._widths_with = widths_with
        self._fitting = fitting
        self._layer_scale = layer_scale
        self._floor = arguments.quality_floor(quality_floor)
        if chosen is not None:
            # All that the recipe can say, so that every table of a stream has the same metadata.
            choices = chosen.decisions.choices(options.settings) or [options.settings]
            self._options = replace(options, choices=choices)
        if self._floor is not None:
            # Likewise the encodings that the floor can choose.
            settings = list(self._options.choices or [options.settings])
            more = [each for one in settings for each in self._wider_encodings(one)]
            if more:
                self._options = replace(self._options, choices=[*settings, *more])

    @property
    def options(self) -> bytes:
        """Encoded options to check schemas with, before there is a table."""
        return self._options.encoded()

    def options_for(self, table: pa.Table, first_row: int = 0) -> bytes:
        """Encode the options for a table whose first row is this one of the whole input."""
        given = self._options
        if self._layer_scale is not None:
            least = [0.0 if name is None else self._layer_scale(name) for name, _ in layers(table)]
            given = replace(given, layer_scales=least)
        if self._recipe is None and self._floor is None:
            return replace(given, first_row=first_row).encoded()
        choices = _Choices(self._options.choices or [self._options.settings])
        rows = [
            SKIP if settings is None else choices.add(settings)
            for settings in self._settings_of(table)
        ]
        if self._floor is not None:
            self._raise_widths(table, given, choices, rows)
        options = replace(given, choices=choices.settings, rows=rows, first_row=first_row)
        return options.encoded()

    def _settings_of(self, table: pa.Table) -> Iterator[Settings | None]:
        """Give each row's settings. Rows that Go will refuse may have any."""
        settings = self._options.settings
        if self._recipe is None:
            yield from [settings] * table.num_rows
            return
        check_data(table, full=True)
        for name, shape in layers(table):
            if name is None or None in shape:
                yield settings
            else:
                yield self._recipe.decisions.applied(settings, name, shape)[1]

    def _miss(self, text: str) -> None:
        if self.missed is None:
            warnings.warn(text, UserWarning, stacklevel=users_level())
        else:
            self.missed.append(text)

    def _raise_widths(
        self, table: pa.Table, options: Options, choices: _Choices, rows: list[int]
    ) -> None:
        """Give layers below the floor the next width, until they pass."""
        below = [row for row, choice in enumerate(rows) if choice != SKIP]
        before: dict[int, _Measured] = {}
        wanted: dict[int, Settings] = {}  # the step of the family, whatever fits the rows
        shapes: list[tuple[int, ...]] = []
        while below:
            measured, result = measure(table, options, choices.settings, rows, below)
            shapes = shapes or [tuple(size or 0 for size in shape) for _, shape in layers(table)]
            too_small = {layer.layer_name for layer in result.underflows}
            for row in before.keys() & (set(below) - measured.keys()):
                self._fall_back(before[row], row, choices, rows, "beyond")
            below = []
            for row, errors in measured.items():
                missed = missed_bound(errors, self._floor or {})
                if not missed:
                    continue
                name, settings = errors["layer_name"], choices.settings[rows[row]]
                narrower = before.get(row)
                error = errors["weighted_relative_error"]
                worse = narrower is not None and error > narrower.relative_error
                if narrower is not None and worse and name in too_small:
                    self._fall_back(narrower, row, choices, rows, "too small for")
                    continue
                wanted_next = wider(wanted.get(row, settings), self._widths_with)
                fitting = None if wanted_next is None else self._fitting(wanted_next, shapes[row])
                if wanted_next is not None and fitting is not None:
                    wanted[row] = wanted_next
                    rows[row] = choices.add(fitting)
                    below.append(row)
                    before[row] = _Measured(name, settings, error)
                else:
                    self._miss(
                        f"Layer {quoted(name)} has {missed} with {_described(settings)}, the most "
                        "there are"
                    )

    def _fall_back(
        self, narrower: _Measured, row: int, choices: _Choices, rows: list[int], why: str
    ) -> None:
        """Give a layer the settings before those that its scales do not fit."""
        failing = choices.settings[rows[row]]
        rows[row] = choices.add(narrower.settings)
        self._miss(
            f"Layer {quoted(narrower.layer_name)} misses the quality_floor with "
            f"{_described(narrower.settings)}, and its scales are {why} {_scales_of(failing)} with "
            "more"
        )

    def _wider_encodings(self, settings: Settings | None) -> Iterator[Settings]:
        while settings is not None and settings.encoding != INTEGER:
            settings = wider(settings, self._widths_with)
            if settings is not None:
                yield settings
                if (fitting := self._fitting(settings, (1, 1))) is not None:
                    yield fitting


def wider(settings: Settings, widths_with: Callable[[str], Sequence[int]]) -> Settings | None:
    """Return the settings of the next bit width, or of the next encoding of the family."""
    encoding = ENCODINGS.get(settings.encoding)
    if encoding is None:
        more = [width for width in widths_with(settings.zero_point) if width > settings.bit_width]
        return replace(settings, bit_width=more[0]) if more else None
    if encoding.wider is None:
        return None
    return settings.with_overrides({"encoding": encoding.wider})


def _described(settings: Settings) -> str:
    bits = f"{settings.bit_width} bits"
    return bits if settings.encoding == INTEGER else f"{bits} of encoding '{settings.encoding}'"


def _scales_of(settings: Settings) -> str:
    """Say what holds scales."""
    return settings.scale_dtype if settings.encoding == INTEGER else "what is stored"


class _Choices:
    """Different settings, each once."""

    def __init__(self, settings: Sequence[Settings]) -> None:
        self.settings = list(settings)
        self._positions: dict[Settings, int] = {}
        for position, each in enumerate(settings):
            self._positions.setdefault(each, position)

    def add(self, settings: Settings) -> int:
        position = self._positions.setdefault(settings, len(self.settings))
        if position == len(self.settings):
            self.settings.append(settings)
        return position
