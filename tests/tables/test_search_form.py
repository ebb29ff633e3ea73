"""Methods "mse" and "hqq": as strict in form, determinism and errors as round-to-nearest."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
import reference
from methods import by_kernel, decode, decoded, quantized
from reference import BIT_WIDTHS, SCALE_DTYPES, ZERO_POINTS, Array, layer_table, stored
from search_oracle import families, group_errors

from pyarrowquant import (
    QuantizationError,
    SkippedLayerWarning,
    quantize_batch,
    quantize_batch_arrow,
    quantize_stream,
)
from tables.searching import GROUP_SIZES, assert_form, assert_never_worse, fitting

# Form


def chosen_codes(result: pa.Table, row: int, weights: Array) -> Array:
    """The codes that the row's own scales and zero-points give, by the README's formula."""
    quantity = stored(result, row)
    rows, columns = reference.matrix_shape(weights.shape)
    group_size, bit_width = result["group_size"][row].as_py(), result["bit_width"][row].as_py()
    inverses = reference.spread(np.float32(1) / quantity.scales, rows, columns, group_size)
    zeros = reference.spread(quantity.zero_points, rows, columns, group_size)
    steps = weights.reshape(rows, columns) * inverses + zeros
    assert steps.dtype == np.float32
    return np.clip(np.rint(steps), 0, 2**bit_width - 1).astype(np.uint8)


@pytest.mark.parametrize("method", ["mse", "hqq"])
@pytest.mark.parametrize("scale_dtype", SCALE_DTYPES)
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("bit_width", BIT_WIDTHS)
def test_form(bit_width: int, zero_point: str, scale_dtype: str, method: str) -> None:
    if method == "hqq" and zero_point == "symmetric":
        zero_point = "integer"
    families_of_layers = dict(families(3, 203, seed=bit_width))
    for extreme in ("huge", "some largest", "all magnitudes", "subnormal", "partly subnormal"):
        del families_of_layers[extreme]  # whose codes are not those of the formula
    for group_size in GROUP_SIZES:
        result = fitting(
            families_of_layers,
            bit_width=bit_width,
            group_size=group_size,
            zero_point=zero_point,
            scale_dtype=scale_dtype,
            method=method,
        )
        names = result["layer_name"].to_pylist()
        layers = {name: families_of_layers[name] for name in names}
        assert_form(result, layers, zero_point, scale_dtype)
        for row, weights in enumerate(layers.values()):
            expected = reference.pack(chosen_codes(result, row, weights), bit_width)
            assert stored(result, row).data == expected
        if zero_point == "integer":
            for name, values in decode(result).items():
                zeros = values[layers[name] == 0]
                assert zeros.tobytes() == np.zeros_like(zeros).tobytes()


def test_symmetric_scales_of_either_sign() -> None:
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((200, 32), np.float32)
    for bit_width in (2, 3):
        result = quantized(
            {"a": weights}, bit_width=bit_width, zero_point="symmetric", method="mse"
        )
        nearest = quantized({"a": weights}, bit_width=bit_width, zero_point="symmetric")
        signs = np.sign(stored(result, 0).scales)
        assert 40 < (signs > 0).sum() < 160
        # not always that of the weight of largest magnitude, which is round-to-nearest's
        assert 0 < (signs != np.sign(stored(nearest, 0).scales)).sum() < 100


# Determinism


@pytest.fixture(scope="module")
def mixed() -> pa.Table:
    """Small and large layers, rows longer than a tile, groups longer than a work unit."""
    rng = np.random.default_rng(8)
    layers = {f"{name}, {n}": a for n in (1, 17, 203) for name, a in families(3, n, seed=n)}
    layers["large"] = rng.standard_normal((5, 40_001), np.float32)
    layers["a row"] = rng.standard_t(3, 200_003).astype(np.float32)
    layers["empty"] = np.empty((0, 5), np.float32)
    return layer_table(layers)


SETTINGS: list[dict[str, Any]] = [
    {"bit_width": bit_width, "group_size": group_size, "zero_point": zero_point, "method": method}
    for method in ("mse", "hqq")
    for zero_point in ZERO_POINTS
    for bit_width, group_size in ((3, 8), (4, 128), (8, -1))
    if (method, zero_point) != ("hqq", "symmetric")
]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_threads_chunks_and_kernels_change_nothing(
    mixed: pa.Table, options: dict[str, Any]
) -> None:
    expected = quantize_batch_arrow(mixed, **options)
    for threads in (1, 2, 7):
        assert quantize_batch_arrow(mixed, threads=threads, **options).equals(expected)
    rows = mixed.num_rows
    chunked = pa.concat_tables([mixed.slice(i, 1) for i in range(rows)])
    shifted = pa.concat_tables([mixed, mixed]).combine_chunks()[rows:]
    assert chunked["weights"].num_chunks == rows
    for table in (chunked, shifted):
        assert quantize_batch_arrow(table, **options).equals(expected)
    for result in by_kernel(mixed, **options):
        assert result.equals(expected)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_input_types_change_nothing(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(9)
    values = rng.standard_normal((9, 301)).astype(ml_dtypes.bfloat16).astype(np.float16)
    exact = {"a": np.where(abs(values) < 2.0**-10, 0, values).astype(np.float32)}
    assert (exact["a"].astype(np.float16) == exact["a"]).all()
    assert (exact["a"].astype(ml_dtypes.bfloat16) == exact["a"]).all()
    plain = layer_table(exact)
    expected = quantize_batch_arrow(plain, **options)
    for dtype, list_type in ((np.float16, pa.float16()), (np.float64, pa.float64())):
        table = layer_table({"a": exact["a"].astype(dtype)}, pa.list_(list_type))
        assert quantize_batch_arrow(table, **options).equals(expected)
    for kind, dtype in (("F32", np.float32), ("F16", np.float16), ("BF16", ml_dtypes.bfloat16)):
        raw = pa.array([exact["a"].astype(dtype).tobytes()], pa.binary())
        table = plain.set_column(1, "weights", raw).append_column("dtype", pa.array([kind]))
        assert quantize_batch_arrow(table, **options).equals(expected)


@pytest.mark.parametrize("method", ["mse", "hqq"])
@pytest.mark.parametrize("zero_point", ["integer", "float"])
def test_a_group_ignores_its_neighbours(zero_point: str, method: str) -> None:
    # whole groups, ragged ones, constants and extremes, alone and in batches of any length
    matrix = np.concatenate([array for _, array in families(1, 75, seed=6)])
    options: dict[str, Any] = {"zero_point": zero_point, "method": method, "bit_width": 3}
    whole = stored(quantized({"a": matrix}, group_size=32, **options), 0)
    alone = quantized(
        {
            f"{i}, {j}": matrix[i : i + 1, j : j + 32]
            for i in range(len(matrix))
            for j in (0, 32, 64)
        },
        group_size=32,
        **options,
    )
    parts = [stored(alone, row) for row in range(alone.num_rows)]
    assert whole.scales.tobytes() == np.concatenate([p.scales for p in parts]).tobytes()
    assert whole.zero_points.tobytes() == np.concatenate([p.zero_points for p in parts]).tobytes()


# Long rows and long groups


@pytest.mark.parametrize("method", ["mse", "hqq"])
@pytest.mark.parametrize("zero_point", ["integer", "float"])
def test_rows_and_groups_of_many_tiles(zero_point: str, method: str) -> None:
    rng = np.random.default_rng(10)
    layers = {
        "tiles": rng.standard_normal((3, 5003), np.float32),
        "more than a unit": rng.standard_normal((2, 70_001), np.float32),
        "one row": rng.standard_normal(300_001, np.float32),
    }
    options: dict[str, Any] = {"zero_point": zero_point, "bit_width": 3}
    for group_size in (4096, 65_544, -1):
        searched = quantized(layers, group_size=group_size, method=method, **options)
        nearest = decoded(layers, group_size=group_size, **options)
        assert_form(searched, layers, zero_point, "float32")
        assert_never_worse(decode(searched), nearest, layers, group_size, method == "hqq")
        if method == "mse":  # long groups reach far beyond most of their weights
            for name, values in decode(searched).items():
                ratio = group_errors(layers[name], values, group_size).mean()
                assert ratio < 0.75 * group_errors(layers[name], nearest[name], group_size).mean()


# The rest of the package


@pytest.mark.parametrize("method", ["mse", "hqq"])
@pytest.mark.parametrize("zero_point", ["integer", "float"])
def test_metrics_are_those_of_the_decoded_weights(zero_point: str, method: str) -> None:
    layers = dict(families(4, 203, seed=1)) | {"empty": np.empty((0, 3), np.float32)}
    del layers["subnormal"], layers["partly subnormal"]  # whose squares are 0
    result = quantized(layers, zero_point=zero_point, method=method, metrics=True)
    values = decode(result)
    for row, (name, weights) in enumerate(layers.items()):
        expected = reference.metrics(weights, values[name])
        for metric, value in expected._asdict().items():
            actual = result[metric][row].as_py()
            if metric == "cosine":
                assert actual == pytest.approx(value, rel=0, abs=1e-12), name
            else:
                assert actual == pytest.approx(value, rel=1e-12, abs=0), (name, metric)


@pytest.mark.parametrize("method", ["mse", "hqq"])
def test_streams_numpy_and_sorting(method: str) -> None:
    layers = dict(reversed(list(families(3, 100, seed=2))))
    table = layer_table(layers)
    in_order = quantize_batch_arrow(table, method=method, sort=False)
    by_name = quantize_batch_arrow(table, method=method)
    assert in_order["layer_name"].to_pylist() == list(layers)
    assert by_name.equals(in_order.sort_by("layer_name"))
    with quantize_stream(table.to_reader(max_chunksize=7), method=method) as reader:
        assert reader.read_all().equals(in_order)
    for row, (name, fields) in enumerate(quantize_batch(layers, method=method, sort=False).items()):
        assert name == in_order["layer_name"][row].as_py()
        assert fields["quantized_data"] == stored(in_order, row).data
        assert fields["scales"].tobytes() == stored(in_order, row).scales.tobytes()
        assert fields["zero_points"].tobytes() == stored(in_order, row).zero_points.tobytes()
    assert b'"method":"%s"' % method.encode() in in_order.schema.metadata[b"pyarrowquant"]


# Errors


def bad_layers() -> dict[str, Array]:
    """Layers with one fault or two, in whole groups and in ragged ones; the last is good."""
    rng = np.random.default_rng(5)
    layers = {str(i): rng.standard_normal((20, 75), np.float32) for i in range(7)}
    layers["0"][0, 0] = np.nan
    layers["1"][3, 74] = np.inf
    layers["2"][19, 64] = -np.inf
    layers["3"][4, 40] = 1e30
    layers["4"][2, 70], layers["4"][5, 3] = 1e30, np.nan
    layers["5"][2, 70], layers["5"][5, 3] = np.nan, 1e30
    return layers


def failures(**options: Any) -> list[tuple[Any, ...]]:
    with pytest.raises(QuantizationError) as caught:
        quantized(bad_layers(), group_size=32, **options)
    return [(e.layer_name, e.row, e.index, e.kind, e.message) for e in caught.value.errors]


@pytest.mark.parametrize("method", ["mse", "hqq"])
@pytest.mark.parametrize("scale_dtype", ["float32", "float16"])
def test_errors_are_those_of_round_to_nearest(scale_dtype: str, method: str) -> None:
    expected = failures(scale_dtype=scale_dtype)
    kinds = [kind for *_, kind, _ in expected]
    if scale_dtype == "float16":
        assert kinds == ["non_finite"] * 3 + ["scale_range"] * 2 + ["non_finite"]
    else:
        assert kinds == ["non_finite"] * 5
    assert failures(scale_dtype=scale_dtype, method=method) == expected
    assert expected[0][-1] == (
        "Layer '0' contains NaN or Inf at index 0 (NaN). "
        "Replace such values first, for example with np.nan_to_num()"
    )


@pytest.mark.parametrize("method", ["mse", "hqq"])
def test_failing_layers_are_left_out(method: str) -> None:
    layers = bad_layers()
    good = {"6": layers["6"]}
    options: dict[str, Any] = {"method": method, "scale_dtype": "float16"}
    with pytest.warns(SkippedLayerWarning) as caught:
        result = quantized(layers, continue_on_error=True, **options)
    assert len(caught) == 6
    assert result.equals(quantized(good, **options))


def test_unknown_method() -> None:
    with pytest.raises(ValueError, match="method") as caught:
        quantized({}, method="awq")
    assert str(caught.value) == "Invalid method: 'awq'. Must be 'rtn', 'mse', 'hqq'"
