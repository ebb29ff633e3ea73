"""Layers of all encodings in one call, some of which fail, from and to other producers."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from conftest import plain

from encoded.fixed import FIXED
from pyarrowquant import (
    QuantizationError,
    Recipe,
    Rule,
    SkippedLayerWarning,
    dequantize_batch_arrow,
    quantize_batch_arrow,
)

# Some of their weights are so small that scales vanish, which is said.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.* rounds to 0"),
    pytest.mark.usefixtures("nothing_leaked"),
]

NAMES = ["int", *FIXED]
RECIPE = Recipe([Rule(f"{name}.*", encoding=name) for name in FIXED])
RNG = np.random.default_rng(0)
SHAPES = [(3, 300), (70,), (2, 5, 64), (0, 5)]
LAYERS = {
    f"{name}.{i}": RNG.standard_normal(shape, np.float32)
    for i, shape in enumerate(SHAPES)
    for name in NAMES
    if not (name == "nvfp4" and 0 in shape)
}


def rows(table: pa.Table) -> dict[str, str]:
    """All that rows have, by their names; NaN are the same."""
    return {row["layer_name"]: repr(row) for row in table.to_pylist()}


def alone(name: str, **options: Any) -> pa.Table:
    """A layer by itself, in a table that has all columns."""
    table = plain([name], [LAYERS[name]])
    return quantize_batch_arrow(table, recipe=RECIPE, **options)


@pytest.mark.parametrize("method", ["rtn", "mse"])
@pytest.mark.parametrize("sort", [True, False])
def test_each_row_is_what_it_is_alone(method: str, sort: bool) -> None:
    result = quantize_batch_arrow(
        plain(list(LAYERS), list(LAYERS.values())),
        recipe=RECIPE,
        method=method,
        sort=sort,
        metrics=True,
    )
    found = rows(result)
    assert list(found) == (sorted(LAYERS) if sort else list(LAYERS))
    for name in LAYERS:
        assert found[name] == rows(alone(name, method=method, metrics=True))[name]


@pytest.mark.parametrize("method", ["rtn", "mse"])
def test_layers_that_fail_leave_the_others_as_they_are(method: str) -> None:
    bad = {name: weights.copy() for name, weights in LAYERS.items() if weights.size}
    failing = [name for i, name in enumerate(bad) if i % 3 == 1]
    for name in failing:
        bad[name].ravel()[-1] = np.nan
    table = plain(list(bad), list(bad.values()))
    with pytest.raises(QuantizationError) as caught:
        quantize_batch_arrow(table, recipe=RECIPE, method=method)
    assert [error.layer_name for error in caught.value.errors] == failing
    with pytest.warns(SkippedLayerWarning):
        result = quantize_batch_arrow(table, recipe=RECIPE, method=method, continue_on_error=True)
    found = rows(result)
    assert sorted(found) == sorted(set(bad) - set(failing))
    for name, row in found.items():
        assert row == rows(alone(name, method=method))[name]


def test_other_producers_hand_results_on() -> None:
    table = plain(list(LAYERS), list(LAYERS.values()))
    result = quantize_batch_arrow(table, recipe=RECIPE)
    wanted = dequantize_batch_arrow(result)
    frame = pl.from_arrow(result)
    assert isinstance(frame, pl.DataFrame)
    assert dequantize_batch_arrow(frame)["weights"].equals(wanted["weights"])
    encoded = result["encoding"].combine_chunks().dictionary_encode()
    place = result.schema.get_field_index("encoding")
    by_dictionary = result.set_column(place, "encoding", encoded)
    assert dequantize_batch_arrow(by_dictionary).equals(wanted)
    sliced = pa.concat_tables([result.slice(5, 9), result.slice(20)])
    assert dequantize_batch_arrow(sliced).equals(
        pa.concat_tables([wanted.slice(5, 9), wanted.slice(20)])
    )
