"""Names of the rows of tables: layers go by them, so each is to be there once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from pyarrowquant._core.quoting import enumerated, quoted
from pyarrowquant.reading.location import Location

NAMES = "layer_name"
_MOST = 3  # rows that are named


def check_names(rows: Iterable[tuple[Location, pa.RecordBatch]], need_names: bool) -> None:
    """Raise where rows have the same name.

    Parameters
    ----------
    rows : iterable of (Location, pyarrow.RecordBatch)
        Names of rows, and the file that has them, one file after the other.
    need_names : bool
        Whether a row without a name is an error, too.
    """
    places: dict[str, list[tuple[Location, int]]] = {}
    for file, row, name in _numbered(rows):
        if name is not None:
            places.setdefault(name, []).append((file, row))
        elif need_names:
            raise ValueError(f"'{file}': Layer in row {row}: layer_name is null. Give it a name")
    repeated = {name: found for name, found in places.items() if len(found) > 1}
    if not repeated:
        return
    name, found = next(iter(repeated.items()))
    count = len(repeated) - 1
    others = f", and {count} other name{'' if count == 1 else 's'} likewise" if count else ""
    raise ValueError(
        f"{_places(found, quoted(name))}{others}. Layers go by their names: give each row one of "
        "its own, or keep one of these rows"
    )


def _numbered(
    rows: Iterable[tuple[Location, pa.RecordBatch]],
) -> Iterator[tuple[Location, int, str | None]]:
    """Give the names with their files, and the numbers of their rows there."""
    last: Location | None = None
    row = 0
    for file, batch in rows:
        row = row if file is last else 0
        last = file
        for name in batch[NAMES].to_pylist():
            yield file, row, name
            row += 1


def _places(found: list[tuple[Location, int]], name: str) -> str:
    """Say in which rows a name is."""
    first = found[0][0]
    more = [f"{len(found) - _MOST} more"] if len(found) > _MOST else []
    if all(file is first for file, _ in found):
        rows = enumerated([*(str(row) for _, row in found[:_MOST]), *more])
        return f"'{first}': Layer {name} is in rows {rows}"
    rows = enumerated([*(f"row {row} of '{file}'" for file, row in found[:_MOST]), *more])
    return f"Layer {name} is in {rows}"
