"""The order of rows: by name, or that of the input."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import plain

from pyarrowquant import quantize_batch_arrow

pytestmark = pytest.mark.usefixtures("nothing_leaked")


def test_sorted_by_bytes() -> None:
    # UTF-16 order would put the emoji before U+FFFF, a locale would mix cases
    names = ["😀", "é", "b", "B", "", "\uffff", "a", "ab", "a.b", "Z"]
    result = quantize_batch_arrow(plain(names, [[1.0]] * len(names)))
    assert result["layer_name"].to_pylist() == sorted(names, key=str.encode)
    assert result["layer_name"].to_pylist()[:4] == ["", "B", "Z", "a"]


@pytest.mark.parametrize("rows_a_chunk", [1, 3, 1000])
def test_duplicate_names_keep_the_input_order(rows_a_chunk: int) -> None:
    names = ["b", "a", "b", "a", "c", "a"] * 20
    arrays = [np.ones(size + 1) for size in range(len(names))]
    table = plain(names, arrays)
    reader = table.to_reader(max_chunksize=rows_a_chunk)
    result = quantize_batch_arrow(reader, threads=2)
    order = sorted(range(len(names)), key=lambda row: names[row])
    assert result["layer_name"].to_pylist() == [names[row] for row in order]
    assert result["shape"].to_pylist() == [[row + 1] for row in order]


def test_sort_false_keeps_the_input_order() -> None:
    names = ["b", "a", "C", "a"]
    table = plain(names, [[1.0] * size for size in (1, 2, 3, 4)])
    result = quantize_batch_arrow(table, sort=False)
    assert result["layer_name"].to_pylist() == names
    assert result["shape"].to_pylist() == [[1], [2], [3], [4]]
