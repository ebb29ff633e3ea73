"""The settings of each layer of a table: by a recipe, and wider where a floor demands it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from pyarrowquant._core import arguments
from pyarrowquant._core.encodings import ENCODINGS, INTEGER
from pyarrowquant._core.measure import SKIP, measure
from pyarrowquant._core.options import Options
from pyarrowquant._core.rows import layers
from pyarrowquant._core.settings import BIT_WIDTHS, Settings
from pyarrowquant._core.source import check_data
from pyarrowquant.errors import ArgumentTypeError, users_level
from pyarrowquant.recipes.floor import missed_bound
from pyarrowquant.recipes.recipe import Recipe


class Plan:
    """Go's quant.Options for tables, of which one call may have many.

    Parameters
    ----------
    options : Options
        What is the same for all tables.
    recipe : Recipe or None
    quality_floor : float or mapping or None
    widths_with : callable
        Returns the bit widths that a floor may choose with zero-points of a kind, the narrowest
        first.

    Attributes
    ----------
    missed : list of str
        What was said of layers that miss the floor.
    """

    def __init__(
        self,
        options: Options,
        recipe: object,
        quality_floor: object,
        widths_with: Callable[[str], Sequence[int]] = lambda _: BIT_WIDTHS,
    ) -> None:
        if recipe is not None and not isinstance(recipe, Recipe):
            raise ArgumentTypeError(
                f"recipe must be a Recipe, got {type(recipe).__name__}: {recipe!r}"
            )
        self.missed: list[str] = []
        self._options = options
        self._recipe = recipe
        self._widths_with = widths_with
        self._floor = arguments.quality_floor(quality_floor)
        if recipe is not None:
            # All that the recipe can say, so that every table of a stream has the same metadata.
            choices = recipe.choices(options.settings) or [options.settings]
            self._options = replace(options, choices=choices)
        if self._floor is not None:
            # Likewise the encodings that the floor can choose.
            settings = list(self._options.choices or [options.settings])
            wider = [each for one in settings for each in self._wider_encodings(one)]
            if wider:
                self._options = replace(self._options, choices=[*settings, *wider])

    @property
    def options(self) -> bytes:
        """Encoded options to check schemas with, before there is a table."""
        return self._options.encoded()

    def options_for(self, table: pa.Table, first_row: int = 0) -> bytes:
        """Encode the options for a table whose first row is this one of the whole input."""
        if self._recipe is None and self._floor is None:
            return replace(self._options, first_row=first_row).encoded()
        choices = _Choices(self._options.choices or [self._options.settings])
        rows = [
            SKIP if settings is None else choices.add(settings)
            for settings in self._settings_of(table)
        ]
        if self._floor is not None:
            self._raise_widths(table, choices, rows)
        options = replace(self._options, choices=choices.settings, rows=rows, first_row=first_row)
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
                yield self._recipe.applied(settings, name, shape)

    def _miss(self, text: str) -> None:
        self.missed.append(text)
        warnings.warn(text, UserWarning, stacklevel=users_level())

    def _raise_widths(self, table: pa.Table, choices: _Choices, rows: list[int]) -> None:
        """Give layers below the floor the next width, until they pass."""
        below = [row for row, choice in enumerate(rows) if choice != SKIP]
        before: dict[int, Settings] = {}  # settings that work
        names: dict[int, str] = {}
        while below:
            measured, _ = measure(table, self._options, choices.settings, rows, below)
            for row in set(below) - set(measured):
                if row in before:  # wider settings fail, as their scales are beyond their type
                    rows[row] = choices.add(before[row])
                    self._miss(
                        f"Layer '{names[row]}' misses the quality_floor with "
                        f"{_described(before[row])}, and {_beyond_of(before[row])} with more"
                    )
            below = []
            for row, errors in measured.items():
                missed = missed_bound(errors, self._floor or {})
                settings = choices.settings[rows[row]]
                wider = self._wider(settings) if missed else None
                if wider is not None:
                    rows[row] = choices.add(wider)
                    below.append(row)
                    before[row], names[row] = settings, errors["layer_name"]
                elif missed:
                    self._miss(
                        f"Layer '{errors['layer_name']}' has {missed} with {_described(settings)}, "
                        "the most there are"
                    )

    def _wider(self, settings: Settings) -> Settings | None:
        """Return the settings of the next bit width, or of the next encoding of the family."""
        encoding = ENCODINGS.get(settings.encoding)
        if encoding is None:
            wider = [
                width
                for width in self._widths_with(settings.zero_point)
                if width > settings.bit_width
            ]
            return replace(settings, bit_width=wider[0]) if wider else None
        if encoding.wider is None:
            return None
        return settings.with_overrides({"encoding": encoding.wider})

    def _wider_encodings(self, settings: Settings | None) -> Iterator[Settings]:
        while settings is not None and settings.encoding != INTEGER:
            settings = self._wider(settings)
            if settings is not None:
                yield settings


def _described(settings: Settings) -> str:
    bits = f"{settings.bit_width} bits"
    return bits if settings.encoding == INTEGER else f"{bits} of encoding '{settings.encoding}'"


def _beyond_of(settings: Settings) -> str:
    """Say what wider settings cannot hold."""
    if settings.encoding == INTEGER:
        return f"its scales are beyond {settings.scale_dtype}"
    return "its scales are beyond what is stored"


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
