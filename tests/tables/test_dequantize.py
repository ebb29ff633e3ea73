"""Decoding: (q - z) * s in float32, to the byte, for tables of any origin."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reference
from conftest import INPUT_SCHEMA, RESULT_SCHEMA
from reference import BIT_WIDTHS, ZERO_POINTS, Array, Quantized, layer_table, stored

from pyarrowquant import QuantizationError, dequantize_batch_arrow, quantize_batch_arrow

SHAPES = [
    (),
    (1,),
    (7,),
    (8,),
    (9,),
    (129,),
    (300,),
    (5, 1),
    (3, 7),
    (2, 8),
    (4, 15),
    (3, 64),
    (3, 65),
    (7, 100),
    (2, 129),
    (2, 1000),
    (2, 4099),
    (4, 3, 43),
    (2, 5, 3, 10),
    (0,),
    (0, 5),
    (3, 0),
    (2, 0, 4),
]
LARGE = pa.schema(
    [
        ("layer_name", pa.large_string()),
        ("quantized_data", pa.large_binary()),
        ("scales", pa.large_list(pa.float32())),
        ("zero_points", pa.large_list(pa.float32())),
        ("shape", pa.large_list(pa.int64())),
        ("bit_width", pa.uint8()),
        ("group_size", pa.int32()),
    ]
)


def random_layers() -> dict[str, Array]:
    rng = np.random.default_rng(3)
    return {f"layer {shape}": rng.standard_normal(shape, np.float32) for shape in SHAPES}


def random_rows(bit_width: int, group_size: int) -> dict[str, tuple[tuple[int, ...], Quantized]]:
    """Any codes with any scales and zero-points, more than a quantizer would choose."""
    rng = np.random.default_rng([bit_width, group_size + 1])
    rows = {}
    for shape in SHAPES:
        n, k = reference.matrix_shape(shape)
        groups = n * len(reference.group_starts(k, group_size)) if n * k else 0
        codes = rng.integers(0, 2**bit_width, (n, k), np.uint8)
        scales = rng.standard_normal(groups) * 10 ** rng.uniform(-20, 20, groups)
        zeros = rng.standard_normal(groups) * 10 ** rng.uniform(-3, 9, groups)
        packed = reference.pack(codes, bit_width) if n * k else b""
        quantized = Quantized(packed, scales.astype(np.float32), zeros.astype(np.float32))
        rows[f"layer {shape}"] = shape, quantized
    return rows


def quantized_table(
    rows: Mapping[str, tuple[tuple[int, ...], Quantized]], bit_width: int, group_size: int
) -> pa.Table:
    """A quantized table that no quantizer wrote."""
    columns = [
        list(rows),
        [quantized.data for _, quantized in rows.values()],
        [quantized.scales for _, quantized in rows.values()],
        [quantized.zero_points for _, quantized in rows.values()],
        [shape for shape, _ in rows.values()],
        [bit_width] * len(rows),
        [group_size] * len(rows),
    ]
    return pa.table(columns, schema=RESULT_SCHEMA)


def assert_decoded(result: pa.Table, table: pa.Table) -> None:
    """`result` is, to the byte, the oracle's decoding of the quantized `table`."""
    assert result["layer_name"].to_pylist() == table["layer_name"].to_pylist()
    assert result["shape"].to_pylist() == table["shape"].to_pylist()
    for row in range(table.num_rows):
        expected = reference.dequantize(
            stored(table, row),
            tuple(table["shape"][row].as_py()),
            table["bit_width"][row].as_py(),
            table["group_size"][row].as_py(),
        )
        values = result["weights"][row].values.to_numpy(zero_copy_only=False)
        assert values.tobytes() == expected.tobytes(), table["layer_name"][row]


@pytest.fixture(scope="module")
def quantized() -> pa.Table:
    """Layers of several ranks, in no order of names."""
    layers = dict(reversed(random_layers().items()))
    return quantize_batch_arrow(layer_table(layers), group_size=64, sort=False)


# Values


@pytest.mark.parametrize("group_size", [8, 32, 64, 128, -1, 4096])
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_any_codes_scales_and_zero_points(bit_width: int, group_size: int) -> None:
    table = quantized_table(random_rows(bit_width, group_size), bit_width, group_size)
    assert_decoded(dequantize_batch_arrow(table), table)


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_what_the_quantizer_wrote(bit_width: int, zero_point: str) -> None:
    for group_size in (8, 64, 128, -1):
        table = quantize_batch_arrow(
            layer_table(random_layers()), bit_width, group_size=group_size, zero_point=zero_point
        )
        assert_decoded(dequantize_batch_arrow(table), table)


@pytest.mark.parametrize(
    ("packed", "bit_width", "scale", "zero_point", "weights"),
    [
        ("e4", 2, 1.0, 1.0, [-1, 0, 1, 2]),
        ("e4", 2, -0.5, 2.0, [1, 0.5, -0.0, -0.5]),
        ("c878", 3, 0.25, 3.5, [-0.875, -0.625, -0.125, 0.125, 0.875]),
        ("20f2", 4, 2.0, 0.0, [0, 4, 4, 30]),
        ("e00708", 5, 1.0, 16.0, [-16, 15, -15, 0]),
        ("3f0002", 6, 1.0, 0.0, [63, 0, 32]),
        ("00ff80", 8, 1.0, 128.0, [-128, 127, 0]),
    ],
)
def test_worked_by_hand(
    packed: str, bit_width: int, scale: float, zero_point: float, weights: list[float]
) -> None:
    row = Quantized(
        bytes.fromhex(packed), np.array([scale], np.float32), np.array([zero_point], np.float32)
    )
    table = quantized_table({"a": ((len(weights),), row)}, bit_width, 128)
    result = dequantize_batch_arrow(table)
    expected = np.array(weights, np.float32)
    assert result["weights"][0].values.to_numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("bit_width", [3, 4, 8])
@pytest.mark.parametrize("group_size", [64, -1])
def test_layers_of_many_work_units(bit_width: int, group_size: int) -> None:
    rng = np.random.default_rng(4)
    shapes = {"rows": (64, 40001), "long rows": (3, 300_000), "one row": (1_000_003,)}
    layers = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    table = quantize_batch_arrow(layer_table(layers), bit_width, group_size=group_size)
    result = dequantize_batch_arrow(table, threads=1)
    assert_decoded(result, table)
    for threads in (2, 3, 8):
        assert dequantize_batch_arrow(table, threads=threads).equals(result)


# Where the table has been


def test_filtered(quantized: pa.Table) -> None:
    keep = [row % 3 == 1 for row in range(quantized.num_rows)]
    table = quantized.filter(pa.array(keep))
    assert table.num_rows == sum(keep)
    assert_decoded(dequantize_batch_arrow(table), table)


def test_taken_in_another_order(quantized: pa.Table) -> None:
    table = quantized.take([5, 0, 9, 9, 2])
    assert_decoded(dequantize_batch_arrow(table), table)


def test_sliced(quantized: pa.Table) -> None:
    for start in range(quantized.num_rows):
        table = quantized[start:][:3]
        assert_decoded(dequantize_batch_arrow(table), table)


def test_layers_of_different_settings_in_one_table() -> None:
    layers = layer_table(random_layers())
    tables = [
        quantize_batch_arrow(layers, bit_width, group_size=group_size, zero_point=zero_point)
        for bit_width, group_size, zero_point in zip(
            BIT_WIDTHS, (8, 32, 64, 128, -1, 4096), ZERO_POINTS * 2, strict=True
        )
    ]
    table = pa.concat_tables(tables)
    assert_decoded(dequantize_batch_arrow(table), table)
    shuffled = table.combine_chunks().take(np.random.default_rng(1).permutation(table.num_rows))
    assert_decoded(dequantize_batch_arrow(shuffled), shuffled)
    row_by_row = [dequantize_batch_arrow(table.slice(i, 1)) for i in range(table.num_rows)]
    assert dequantize_batch_arrow(table).equals(pa.concat_tables(row_by_row))


def through_parquet(table: pa.Table) -> pa.Table:
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=4)
    return pq.read_table(file)


def through_ipc_stream(table: pa.Table) -> pa.Table:
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return pa.ipc.open_stream(file.getvalue()).read_all()


def large_types(table: pa.Table) -> pa.Table:
    return table.cast(LARGE)


def without_metadata(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata(None)


def columns_in_another_order(table: pa.Table) -> pa.Table:
    return table.select(table.column_names[::-1]).append_column("note", pa.nulls(table.num_rows))


@pytest.mark.parametrize(
    "change",
    [
        through_parquet,
        through_ipc_stream,
        large_types,
        without_metadata,
        columns_in_another_order,
        pa.Table.combine_chunks,
        pa.Table.to_reader,
    ],
)
def test_changed_or_stored_between(
    quantized: pa.Table, change: Callable[[pa.Table], pa.Table]
) -> None:
    assert_decoded(dequantize_batch_arrow(change(quantized)), quantized)


def test_memory_mapped_ipc_file(quantized: pa.Table, tmp_path: Path) -> None:
    path = str(tmp_path / "layers.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, quantized.schema) as writer:
        writer.write_table(quantized)
    with pa.memory_map(path) as source:
        assert_decoded(dequantize_batch_arrow(pa.ipc.open_file(source).read_all()), quantized)


def test_a_result_with_metrics(quantized: pa.Table) -> None:
    layers = layer_table(dict(reversed(random_layers().items())))
    table = quantize_batch_arrow(layers, group_size=64, sort=False, metrics=True)
    assert dequantize_batch_arrow(table).equals(dequantize_batch_arrow(quantized))


# Columns, types, order


def test_columns_and_types(quantized: pa.Table) -> None:
    assert dequantize_batch_arrow(quantized).schema.equals(INPUT_SCHEMA)
    halves = INPUT_SCHEMA.set(1, pa.field("weights", pa.list_(pa.float16())))
    assert dequantize_batch_arrow(quantized, dtype="float16").schema.equals(halves)


def test_order_is_that_of_the_input(quantized: pa.Table) -> None:
    names = quantized["layer_name"].to_pylist()
    assert names != sorted(names)
    for threads in (1, 2, 8):
        result = dequantize_batch_arrow(quantized, threads=threads)
        assert result["layer_name"].to_pylist() == names


def test_float32_is_the_default(quantized: pa.Table) -> None:
    explicit = dequantize_batch_arrow(quantized, dtype="float32")
    assert explicit.equals(dequantize_batch_arrow(quantized))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "int8", "Float32", ""])
def test_other_dtypes_are_refused(quantized: pa.Table, dtype: str) -> None:
    with pytest.raises(ValueError, match="dtype"):
        dequantize_batch_arrow(quantized, dtype=dtype)


def test_an_empty_table_gives_an_empty_table() -> None:
    quantized = quantize_batch_arrow(layer_table({}))
    assert quantized.num_rows == 0
    result = dequantize_batch_arrow(quantized)
    assert result.num_rows == 0
    assert result.schema.equals(INPUT_SCHEMA)
    assert dequantize_batch_arrow(RESULT_SCHEMA.empty_table()).schema.equals(INPUT_SCHEMA)
    halves = dequantize_batch_arrow(quantized, dtype="float16")
    assert halves.schema.field("weights").type == pa.list_(pa.float16())


# float16


def kept_exactly(values: Array) -> pa.Table:
    """A quantized table that decodes to just these float32 values: each is its own group."""
    ones, codes = np.ones(values.size, np.float32), bytes(values.size)
    row: Any = Quantized(codes, ones, np.float32(0) - values)
    return quantized_table({"a": ((values.size, 1), row)}, 4, 8)


def test_float16_rounds_to_nearest_even() -> None:
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (halves[:-1] + halves[1:]) / 2  # exact in float32
    values = np.concatenate(
        [
            halves,
            ties,
            np.nextafter(ties, np.float32(0)),
            np.nextafter(ties, np.float32(np.inf)),
            np.array([2.0**-25, 2.0**-26, 2.0**-149, 65519.996], np.float32),
        ]
    )
    values = np.concatenate([values, -values])
    result = dequantize_batch_arrow(kept_exactly(values), dtype="float16")
    weights = result["weights"][0].values.to_numpy()
    with np.errstate(under="ignore"):
        # 0.0 minus a zero-point of 0.0 has no sign.
        expected = (values + np.float32(0)).astype(np.float16)
    assert weights.dtype == np.float16
    assert weights.tobytes() == expected.tobytes()


@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_float16_rounds_the_float32_values(bit_width: int) -> None:
    table = quantize_batch_arrow(layer_table(random_layers()), bit_width, group_size=64)
    wide = dequantize_batch_arrow(table)
    narrow = dequantize_batch_arrow(table, dtype="float16")
    for row in range(table.num_rows):
        values = narrow["weights"][row].values.to_numpy()
        expected = wide["weights"][row].values.to_numpy().astype(np.float16)
        assert values.tobytes() == expected.tobytes()


@pytest.mark.parametrize("value", [65520.0, -65520.0, 1e5, -3e38])
def test_values_beyond_float16(value: float) -> None:
    beyond = kept_exactly(np.array([1, value, 2], np.float32))
    fine = kept_exactly(np.array([65519.996, -65504], np.float32))
    table = pa.concat_tables([fine, beyond, fine])
    with pytest.raises(QuantizationError) as caught:
        dequantize_batch_arrow(table, dtype="float16")
    assert [(e.layer_name, e.row, e.kind) for e in caught.value.errors] == [("a", 1, "scale_range")]
    assert dequantize_batch_arrow(table)["weights"][1].as_py() == [1, np.float32(value), 2]
