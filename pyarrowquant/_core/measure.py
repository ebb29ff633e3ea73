"""Errors of layers with some settings, without results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pyarrowquant._core import library
from pyarrowquant._core.options import Options
from pyarrowquant._core.progress import Reporter
from pyarrowquant._core.settings import Settings

SKIP = -1  # quant.Skip


def measure(
    table: pa.Table,
    options: Options,
    choices: Sequence[Settings],
    rows: Sequence[int],
    wanted: Sequence[int],
    reporter: Reporter | None = None,
) -> tuple[dict[int, dict[str, Any]], library.Result]:
    """Return the errors of the wanted rows with their choices, and what else the result says."""
    some = [SKIP] * len(rows)
    for row in wanted:
        some[row] = rows[row]
    measuring = replace(
        options,
        choices=choices,
        rows=some,
        measure_only=True,
        continue_on_error=True,
        sort=False,
        first_row=0,
    )
    told = reporter.told if reporter else None
    result = library.quantize(table, measuring.encoded(), told)
    failing = {error.row for error in result.skipped}
    measured = [row for row in wanted if row not in failing]
    return dict(zip(measured, result.table.to_pylist(), strict=True)), result
