"""Functions for batches on clusters: what they give, and what they refuse, without an engine."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from conftest import plain, plain_layers

from pyarrowquant import (
    QuantizationError,
    Recipe,
    Rule,
    SkippedLayerWarning,
    compare,
    dequantize_batch_arrow,
    quantize_batch_arrow,
)
from pyarrowquant.distributed import (
    BatchFunction,
    batch_function,
    compare_batches,
    dequantize_batches,
    quantize_batches,
    schemas,
    spark_schema,
)

MIXED = Recipe([Rule("model.*", encoding="q4_k"), Rule("Norm", encoding="nf4")])
SETTINGS: list[dict[str, Any]] = [
    {},
    {"bit_width": 3, "group_size": 8, "method": "hqq", "metrics": True},
    {"encoding": "nvfp4"},
    {"recipe": MIXED, "metrics": True},
    {"recipe": {"rules": [{"match": "*", "skip": True}]}},
    {"encoding": "q2_k", "quality_floor": {"relative_error": 0.05}},
]
# Spark has no unsigned integers.
SPARK_BITS = pa.int16()


def unsorted(table: pa.Table, **settings: Any) -> pa.Table:
    return quantize_batch_arrow(table, sort=False, **settings)


def batched(function: BatchFunction, table: pa.Table, rows: int) -> list[pa.Table]:
    return [function(table.slice(at, rows)) for at in range(0, table.num_rows, rows)]


def passed(function: BatchFunction) -> BatchFunction:
    """The function as a worker gets it."""
    copy: BatchFunction = pickle.loads(pickle.dumps(function))
    return copy


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_batches_are_those_of_one_call(
    settings: dict[str, Any], layers: dict[str, np.ndarray]
) -> None:
    table = plain_layers(layers)
    wanted = unsorted(table, **settings)
    function = passed(quantize_batches(**settings))
    for rows in (1, 4, 6):
        results = batched(function, table, rows)
        assert all(each.schema.equals(function.schema, check_metadata=True) for each in results)
        joined = pa.concat_tables(results)
        assert joined.cast(wanted.schema).equals(wanted)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_iterators_are_those_of_one_call(
    settings: dict[str, Any], layers: dict[str, np.ndarray]
) -> None:
    table = plain_layers(layers)
    wanted = unsorted(table, **settings)
    given = iter([*table.to_batches(max_chunksize=2), *table.slice(0, 0).to_batches()])
    results = list(passed(quantize_batches(**settings))(given))
    described = ", ".join(f"{field.name} {spark_type(field.type)}" for field in wanted.schema)
    assert spark_schema(**settings) == described
    if wanted.num_rows == 0:
        assert not sum(batch.num_rows for batch in results)
        return
    joined = pa.Table.from_batches(results)
    assert joined.schema.field("bit_width").type == SPARK_BITS
    assert joined.cast(wanted.schema).equals(wanted)


def spark_type(of: pa.DataType) -> str:
    names = {"uint8": "smallint", "int32": "int", "int64": "bigint"}
    if pa.types.is_list(of):
        return f"array<{spark_type(of.value_type)}>"
    return names.get(str(of), str(of))


def test_long_columns_have_large_types() -> None:
    """An engine joins batches, which may be over 2 GiB together."""
    schema = quantize_batches(encoding="q4_k").schema
    for name in ("scales", "zero_points"):
        assert pa.types.is_large_list(schema.field(name).type)
    assert schema.field("quantized_data").type == pa.large_binary()
    assert pa.types.is_large_list(dequantize_batches().schema.field("weights").type)


def test_batches_without_rows() -> None:
    """Engines give blocks that have lost even their columns."""
    for function in (quantize_batches(metrics=True), dequantize_batches(), compare_batches()):
        assert function(pa.table({})).equals(function.schema.empty_table())
        assert list(function(iter([pa.record_batch({})]))) == []


def test_layers_come_back(layers: dict[str, np.ndarray]) -> None:
    table = plain_layers(layers)
    result = unsorted(table, recipe=MIXED)
    weights = dequantize_batch_arrow(result)
    for rows in (1, 6):
        decoded = pa.concat_tables(batched(passed(dequantize_batches()), result, rows))
        assert decoded.cast(weights.schema).equals(weights)
    assert list(dequantize_batches()(iter(result.to_batches()))) == weights.to_batches()
    half = dequantize_batches(dtype="float16")
    assert half(result)["weights"].type.value_type == pa.float16()
    with pytest.raises(ValueError, match=r"column 'weights'.*float16.*dtype='float32'"):
        _ = half.spark_schema


def test_results_are_compared_with_weights_of_their_row(layers: dict[str, np.ndarray]) -> None:
    table = plain_layers(layers)
    result = unsorted(table, recipe=MIXED)
    joined = result.append_column("weights", table["weights"])
    wanted = compare(table, result)
    function = passed(compare_batches())
    assert pa.concat_tables(batched(function, joined, 1)).equals(wanted)
    assert pa.Table.from_batches(function(iter(joined.to_batches(max_chunksize=4)))).equals(wanted)
    assert "mse double" in function.spark_schema


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"bit_width": 7}, "bit_width"),
        ({"bit_width": "4"}, "bit_width must be an int"),
        ({"encoding": "q4_k", "group_size": 8}, "group_size"),
        ({"recipe": "missing.yaml"}, "missing.yaml"),
        ({"recipe": Recipe([Rule("*", bit_width=5)]), "encoding": "q4_k"}, "rule 1"),
        ({"recipe": "Q4_K_M"}, "Q4_K_M"),
        ({"quality_floor": 2}, "quality_floor"),
        ({"threads": 0}, "threads"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_where_the_function_is_made(
    settings: dict[str, Any], error: str
) -> None:
    for make in (quantize_batches, spark_schema):
        with pytest.raises(ValueError, match=error):
            make(**settings)


def test_a_recipe_is_read_where_the_function_is_made(
    tmp_path: Path, layers: dict[str, np.ndarray]
) -> None:
    path = tmp_path / "recipe.json"
    Recipe(default={"bit_width": 8}).save(path)
    function = quantize_batches(recipe=path)
    path.unlink()
    assert set(passed(function)(plain_layers(layers))["bit_width"].to_pylist()) == {8}


def test_a_recipe_that_was_used_goes_to_workers(layers: dict[str, np.ndarray]) -> None:
    table = plain_layers(layers)
    recipe = Recipe([Rule("model.?", bit_width=8), Rule(regex="N.rm", bit_width=2)])
    function = quantize_batches(recipe=recipe)
    wanted = function(table)
    assert passed(function)(table).equals(wanted)


def test_a_failing_layer_is_named() -> None:
    table = plain(["good", "bad.layer"], [[1.0], [float("nan")]])
    for given in (table, iter(table.to_batches())):
        with pytest.raises(QuantizationError, match=r"'bad\.layer'") as caught:
            list(passed(quantize_batches())(given))
        again = pickle.loads(pickle.dumps(caught.value))  # as it goes back to the driver
        assert again.errors == caught.value.errors
    with pytest.warns(SkippedLayerWarning, match=r"bad\.layer"):
        result = quantize_batches(continue_on_error=True)(table)
    assert result["layer_name"].to_pylist() == ["good"]


@pytest.mark.parametrize("given", [None, {"layer_name": ["a"]}, [1], np.zeros(1)], ids=str)
def test_what_is_no_table(given: object) -> None:
    with pytest.raises(TypeError, match=r"batch_format='pyarrow'.*mapInArrow"):
        quantize_batches()(given)


def test_workers_with_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    function = quantize_batches()
    monkeypatch.setattr(batch_function, "__version__", "9.8.7")
    with pytest.raises(RuntimeError, match=r"9\.8\.7.*Install pyarrowquant .* on the workers"):
        function(plain(["a"], [[1.0]]))


def test_what_spark_cannot_hold_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    table = plain(["small", "large"], [np.ones(8), np.ones(4096)])

    def quantized() -> Iterator[pa.RecordBatch]:
        result: Iterator[pa.RecordBatch] = quantize_batches(bit_width=8)(iter(table.to_batches()))
        return result

    most = pc.max(pc.binary_length(unsorted(table, bit_width=8)["quantized_data"])).as_py()
    monkeypatch.setattr(schemas, "_SPARK_BYTES", most)
    assert sum(batch.num_rows for batch in quantized()) == 2
    monkeypatch.setattr(schemas, "_SPARK_BYTES", most - 1)
    with pytest.raises(ValueError, match="Layer 'large' has 4096 bytes of quantized_data"):
        list(quantized())
