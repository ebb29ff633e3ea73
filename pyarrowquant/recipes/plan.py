"""The settings of each layer of a table: by a recipe, and wider where a floor demands it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pyarrowquant._core import arguments, library
from pyarrowquant._core.measure import SKIP, measure
from pyarrowquant._core.rows import layers
from pyarrowquant._core.settings import BIT_WIDTHS, SETTINGS
from pyarrowquant._core.source import check_data
from pyarrowquant.errors import ArgumentTypeError, users_level
from pyarrowquant.recipes.recipe import Recipe


class Plan:
    """Go's quant.Options for tables, of which one call may have many.

    Parameters
    ----------
    options : dict
        The fields of quant.Options that are the same for all tables.
    recipe : Recipe or None
    quality_floor : float or mapping or None
    widths : sequence of int
        Bit widths that a floor may choose, the narrowest first.
    """

    def __init__(
        self,
        options: dict[str, Any],
        recipe: object,
        quality_floor: object,
        widths: Sequence[int] = BIT_WIDTHS,
    ) -> None:
        if recipe is not None and not isinstance(recipe, Recipe):
            raise ArgumentTypeError(
                f"recipe must be a Recipe, got {type(recipe).__name__}: {recipe!r}"
            )
        self._options = options
        self._recipe = recipe
        self._widths = widths
        self._floor = arguments.quality_floor(quality_floor)
        self._settings = {field: options[field] for field in SETTINGS}
        if recipe is not None:
            # All that the recipe can say, so that every table of a stream has the same metadata.
            said = [{**self._settings, **said} for said in recipe.outcomes() if said is not None]
            self._options = {**options, "choices": said or [self._settings]}

    @property
    def options(self) -> bytes:
        """Encoded options to check schemas with, before there is a table."""
        return library.encode(self._options)

    def options_for(self, table: pa.Table, first_row: int = 0) -> bytes:
        """Encode the options for a table whose first row is this one of the whole input."""
        if self._recipe is None and self._floor is None:
            return library.encode({**self._options, "first_row": first_row})
        choices = _Choices(self._options.get("choices", [self._settings]))
        rows = [SKIP if said is None else choices.add(said) for said in self._said(table)]
        if self._floor is not None:
            self._raise_widths(table, choices, rows)
        options = {**self._options, "choices": choices.settings, "rows": rows}
        return library.encode({**options, "first_row": first_row})

    def _said(self, table: pa.Table) -> Iterator[dict[str, Any] | None]:
        """Give each row's settings. Rows that Go will refuse may have any."""
        if self._recipe is None:
            yield from [self._settings] * table.num_rows
            return
        check_data(table, full=True)
        for name, shape in layers(table):
            if name is None or None in shape:
                yield self._settings
            else:
                said = self._recipe.settings_of(name, shape)
                yield None if said is None else {**self._settings, **said}

    def _raise_widths(self, table: pa.Table, choices: _Choices, rows: list[int]) -> None:
        """Give layers below the floor the next width, until they pass."""
        below = [row for row, choice in enumerate(rows) if choice != SKIP]
        before: dict[int, dict[str, Any]] = {}  # settings that work
        names: dict[int, str] = {}
        while below:
            measured, _ = measure(table, self._options, choices.settings, rows, below)
            for row in set(below) - set(measured):
                if row in before:  # a wider width fails, as its scales are beyond their type
                    settings = before[row]
                    rows[row] = choices.add(settings)
                    warnings.warn(
                        f"Layer '{names[row]}' misses the quality_floor with "
                        f"{settings['bit_width']} bits, and its scales are beyond "
                        f"{settings['scale_dtype']} with more",
                        UserWarning,
                        stacklevel=users_level(),
                    )
            below = []
            for row, errors in measured.items():
                missed = _missed(errors, self._floor or {})
                settings = choices.settings[rows[row]]
                wider = [width for width in self._widths if width > settings["bit_width"]]
                if missed and wider:
                    rows[row] = choices.add({**settings, "bit_width": wider[0]})
                    below.append(row)
                    before[row], names[row] = settings, errors["layer_name"]
                elif missed:
                    warnings.warn(
                        f"Layer '{errors['layer_name']}' has {missed} with {settings['bit_width']} "
                        "bits, the most there are",
                        UserWarning,
                        stacklevel=users_level(),
                    )


class _Choices:
    """Different settings, each once."""

    def __init__(self, settings: list[dict[str, Any]]) -> None:
        self.settings = list(settings)
        self._positions: dict[tuple[Any, ...], int] = {}
        for position, each in enumerate(settings):
            self._positions.setdefault(self._key(each), position)

    @staticmethod
    def _key(settings: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(settings[field] for field in SETTINGS)

    def add(self, settings: dict[str, Any]) -> int:
        position = self._positions.setdefault(self._key(settings), len(self.settings))
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
