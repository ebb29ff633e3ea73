"""The settings of each layer of a table: by a recipe, and wider where a floor demands it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pyarrowquant._core import arguments
from pyarrowquant._core.measure import SKIP, measure
from pyarrowquant._core.options import Options
from pyarrowquant._core.rows import layers
from pyarrowquant._core.settings import BIT_WIDTHS, Settings
from pyarrowquant._core.source import check_data
from pyarrowquant.errors import users_level
from pyarrowquant.recipes.recipe import recipe_of


class Plan:
    """Go's quant.Options for tables, of which one call may have many.

    Parameters
    ----------
    options : Options
        What is the same for all tables.
    recipe : Recipe or None, or what means one
    quality_floor : float or mapping or None
    widths : sequence of int
        Bit widths that a floor may choose, the narrowest first.

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
        widths: Sequence[int] = BIT_WIDTHS,
    ) -> None:
        self.missed: list[str] = []
        self._options = options
        chosen = recipe_of(recipe)
        self._recipe = chosen
        self._widths = widths
        self._floor = arguments.quality_floor(quality_floor)
        if chosen is not None:
            # All that the recipe can say, so that every table of a stream has the same metadata.
            choices = chosen.choices(options.settings) or [options.settings]
            self._options = replace(options, choices=choices)

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
        before: dict[int, tuple[float, Settings]] = {}  # relative error, and what it comes from
        while below:
            measured, result = measure(table, self._options, choices.settings, rows, below)
            too_small = {layer.layer_name for layer in result.underflows}
            below = []
            for row, errors in measured.items():
                missed = _missed(errors, self._floor or {})
                if not missed:
                    continue
                name, settings = errors["layer_name"], choices.settings[rows[row]]
                least, narrower = before.get(row, (math.inf, settings))
                if name in too_small and errors["relative_error"] > least:
                    rows[row] = choices.add(narrower)
                    self._miss(
                        f"Layer '{name}' misses the quality_floor with {narrower.bit_width} bits, "
                        f"and its scales are too small for {settings.scale_dtype} with more"
                    )
                    continue
                wider = [width for width in self._widths if width > settings.bit_width]
                if wider:
                    rows[row] = choices.add(replace(settings, bit_width=wider[0]))
                    below.append(row)
                    before[row] = errors["relative_error"], settings
                else:
                    self._miss(
                        f"Layer '{name}' has {missed} with {settings.bit_width} bits, the most "
                        "there are"
                    )


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


def _missed(errors: dict[str, Any], floor: dict[str, float]) -> str:
    """Say which bound the errors of a layer miss, or nothing."""
    exact = errors["relative_error"] == 0  # where the cosine may be rounded below 1
    if not exact and errors["cosine"] < floor.get("cosine", -1):
        return f"cosine {errors['cosine']:.6g}, below the quality_floor of {floor['cosine']:g},"
    if errors["relative_error"] > floor.get("relative_error", float("inf")):
        return (
            f"relative_error {errors['relative_error']:.6g}, above the quality_floor of "
            f"{floor['relative_error']:g},"
        )
    return ""
