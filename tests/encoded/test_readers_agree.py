"""Whatever a row says, it is refused where it is decoded if it is where its parts are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import attempt, plain

from encoded.fixed import FIXED
from pyarrowquant import dequantize_batch_arrow, quantize_batch_arrow
from pyarrowquant._core.results import batches_of
from pyarrowquant._core.source import RESULT_COLUMNS, Source

SHAPES = [(3, 300), (70,), (2, 16), (1, 256)]
LISTS = ("scales", "zero_points", "super_scales", "super_minimums", "levels")
NUMBERS = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 2.0**-127, 3e38, 0.3)


def changed(value: float, rng: np.random.Generator) -> float:
    close = np.float32(value) * np.float32(1 + 2.0**-23)
    return float(rng.choice([*NUMBERS, value * 2, value / 2, -value, close]))


def mutate(row: dict[str, Any], rng: np.random.Generator) -> None:
    column = str(rng.choice([*LISTS, *LISTS, "encoding", "group_size", "bit_width", "shape"]))
    values = row[column]
    if column == "encoding":
        row[column] = str(rng.choice([*FIXED]))
    elif column == "group_size":
        row[column] = int(rng.choice([-1, 8, 16, 32, 64, 256]))
    elif column == "bit_width":
        row[column] = int(rng.choice([2, 4, 8]))
    elif column == "shape":
        row[column] = values[::-1]
    elif values is None:
        row[column] = [1.0] * int(rng.integers(5))
    else:
        how = rng.random()
        place = int(rng.integers(max(len(values), 1)))
        if how < 0.1:
            row[column] = None
        elif how < 0.2:
            row[column] = values[:-1]
        elif values:
            row[column] = [*values[:place], changed(values[place], rng), *values[place + 1 :]]


@pytest.mark.filterwarnings("ignore:.* rounds to 0")
@pytest.mark.parametrize("name", FIXED)
def test_both_refuse_the_same(name: str) -> None:
    rng = np.random.default_rng(len(name))
    refused = 0
    for _ in range(60):
        shape = SHAPES[rng.integers(len(SHAPES))]
        weights = rng.standard_normal(shape) * 10 ** rng.uniform(-8, 2)
        method = str(rng.choice(["rtn", "mse"]))
        result = quantize_batch_arrow(plain(["w"], [weights]), encoding=name, method=method)
        row = result.to_pylist()[0]
        for _ in range(rng.integers(1, 3)):
            mutate(row, rng)
        table = pa.Table.from_pylist([row], schema=result.schema)
        decoded = attempt(dequantize_batch_arrow, table)
        read = attempt(lambda table: list(batches_of(Source(table, RESULT_COLUMNS))), table)
        assert isinstance(decoded, ValueError) == isinstance(read, ValueError), (decoded, read)
        refused += isinstance(read, ValueError)
    assert 10 < refused < 60
