"""The settings of each layer of a table: by a recipe, and wider where a floor demands it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pyarrowquant import _arguments, _lib
from pyarrowquant._binary import is_binary, lengths
from pyarrowquant._progress import Reporter
from pyarrowquant._source import check_data
from pyarrowquant.errors import ArgumentTypeError, LayerError, users_level
from pyarrowquant.recipe import Recipe
from pyarrowquant.rule import BIT_WIDTHS, SETTINGS

SKIP = -1  # quant.Skip

_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


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
        self._floor = _arguments.quality_floor(quality_floor)
        self._settings = {field: options[field] for field in SETTINGS}
        if recipe is not None:
            # All that the recipe can say, so that every table of a stream has the same metadata.
            said = [{**self._settings, **said} for said in recipe.outcomes() if said is not None]
            self._options = {**options, "choices": said or [self._settings]}

    @property
    def options(self) -> bytes:
        """Encoded options to check schemas with, before there is a table."""
        return _lib.encode(self._options)

    def options_for(self, table: pa.Table, first_row: int = 0) -> bytes:
        """Encode the options for a table whose first row is this one of the whole input."""
        if self._recipe is None and self._floor is None:
            return _lib.encode({**self._options, "first_row": first_row})
        choices = _Choices(self._options.get("choices", [self._settings]))
        rows = [SKIP if said is None else choices.add(said) for said in self._said(table)]
        if self._floor is not None:
            self._raise_widths(table, choices, rows)
        options = {**self._options, "choices": choices.settings, "rows": rows}
        return _lib.encode({**options, "first_row": first_row})

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


def measure(
    table: pa.Table,
    options: dict[str, Any],
    choices: list[dict[str, Any]],
    rows: list[int],
    wanted: list[int],
    reporter: Reporter | None = None,
) -> tuple[dict[int, dict[str, Any]], list[LayerError]]:
    """Return the errors of the wanted rows with their choices, and those rows that fail."""
    some = [SKIP] * len(rows)
    for row in wanted:
        some[row] = rows[row]
    measuring = {
        **options,
        "choices": choices,
        "rows": some,
        "measure_only": True,
        "continue_on_error": True,
        "sort": False,
        "first_row": 0,
    }
    layer_done = reporter.layer_done if reporter else None
    result, failed = _lib.quantize(table, _lib.encode(measuring), layer_done)
    failing = {error.row for error in failed}
    measured = [row for row in wanted if row not in failing]
    return dict(zip(measured, result.to_pylist(), strict=True)), failed


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


def layers(table: pa.Table) -> Iterator[tuple[str | None, list[int]]]:
    """Give each row's name, or None where it cannot be read, and its shape.

    A row without a shape has one dimension. Shapes that Go will refuse come as they are.
    """
    if "shape" in table.column_names:
        shapes = table["shape"].to_pylist()
    else:
        shapes = [None] * table.num_rows
    counts = _counts(table) if None in shapes else None
    for row, (name, shape) in enumerate(zip(_names(table["layer_name"]), shapes, strict=True)):
        yield name, [counts[row]] if counts is not None and shape is None else shape


def _names(column: pa.ChunkedArray) -> list[str | None]:
    try:
        names: list[str | None] = column.to_pylist()
    except UnicodeDecodeError:
        return [_name(scalar) for scalar in column]
    return names


def _name(scalar: pa.Scalar) -> str | None:
    try:
        name: str | None = scalar.as_py()
    except UnicodeDecodeError:
        return None
    return name


def _counts(table: pa.Table) -> list[int]:
    """Return the number of weights of each row; 0 for a null."""
    raw = "dtype" in table.column_names
    dtypes = table["dtype"].to_pylist() if raw else [None] * table.num_rows
    weights = table["weights"]
    if is_binary(weights.type):
        sizes = [size for chunk in weights.chunks for size in lengths(chunk)]
        return [
            size // _ITEM_BYTES.get(dtype or "", 1)
            for size, dtype in zip(sizes, dtypes, strict=True)
        ]
    return [len(values) if values.is_valid else 0 for values in weights]
