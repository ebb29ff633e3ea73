"""Method "mse": never worse than round-to-nearest, near the optimum, and as strict in its form."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import by_kernel, decode, decoded, quantized
from reference import BIT_WIDTHS, SCALE_DTYPES, ZERO_POINTS, Array, layer_table, stored
from search_oracle import families, group_errors, group_rounding, least_error, partitions

from pyarrowquant import (
    QuantizationError,
    SkippedLayerWarning,
    quantize_batch,
    quantize_batch_arrow,
    quantize_stream,
)

GROUP_SIZES = (8, 32, 128, -1)
PROPERTY = settings(max_examples=500, deadline=None, derandomize=True)

Layers = Mapping[str, Array]


def assert_never_worse(
    better: Layers, worse: Layers, layers: Layers, group_size: int, rounding: bool = False
) -> None:
    """No group's error is larger; or, with `rounding`, by no more than what float32 rounds."""
    assert better.keys() == worse.keys()
    for name in better:
        weights = layers[name]
        errors = group_errors(weights, better[name], group_size)
        bounds = group_errors(weights, worse[name], group_size)
        if rounding:
            bounds = bounds * (1 + 1e-5) + group_rounding(weights, group_size)
        assert (errors <= bounds).all(), name


def fitting(layers: Layers, **options: Any) -> pa.Table:
    """The result for those layers whose scales their type can hold: most of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*the scale ", SkippedLayerWarning)
        result = quantized(layers, continue_on_error=True, **options)
    assert result.num_rows > 0.7 * len(layers)
    return result


@pytest.mark.parametrize("columns", [331, 1024, 7])
@pytest.mark.parametrize("scale_dtype", SCALE_DTYPES)
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
def test_never_worse_than_round_to_nearest(zero_point: str, scale_dtype: str, columns: int) -> None:
    layers = dict(families(5, columns, seed=columns))
    for bit_width in BIT_WIDTHS:
        for group_size in GROUP_SIZES:
            options: dict[str, Any] = {
                "bit_width": bit_width,
                "group_size": group_size,
                "zero_point": zero_point,
                "scale_dtype": scale_dtype,
            }
            nearest = decode(fitting(layers, **options))
            searched = decode(fitting(layers, method="mse", **options))
            assert_never_worse(searched, nearest, layers, group_size)


def any_finite() -> st.SearchStrategy[float]:
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    return st.one_of(st.floats(-8, 8, width=32), finite, st.just(0.0))


@st.composite
def layers_of_groups(draw: st.DrawFn) -> Array:
    """Rows of arbitrary values, of few different values, or near one value."""
    shape = draw(st.tuples(st.integers(1, 20), st.integers(1, 70)))
    kind = draw(st.sampled_from(["any", "few", "near"]))
    if kind == "any":
        return draw(hnp.arrays(np.float32, shape, elements=any_finite()))
    if kind == "few":
        values = draw(st.lists(any_finite(), min_size=1, max_size=4))
        return draw(hnp.arrays(np.float32, shape, elements=st.sampled_from(values)))
    centre = draw(st.floats(-1000, 1000, width=32))
    noise = draw(hnp.arrays(np.float32, shape, elements=st.floats(-1, 1, width=32)))
    weights: Array = np.float32(centre) + noise * np.float32(2.0 ** -draw(st.integers(0, 24)))
    return weights


@PROPERTY
@given(
    layers_of_groups(),
    st.sampled_from(BIT_WIDTHS),
    st.sampled_from([8, 16, 40, -1]),
    st.sampled_from(ZERO_POINTS),
)
def test_property_never_worse(
    weights: Array, bit_width: int, group_size: int, zero_point: str
) -> None:
    layers = {"a": weights}
    options: dict[str, Any] = {
        "bit_width": bit_width,
        "group_size": group_size,
        "zero_point": zero_point,
    }
    searched = quantized(layers, method="mse", **options)
    assert_never_worse(decode(searched), decoded(layers, **options), layers, group_size)
    assert_form(searched, layers, zero_point, "float32")


# The optimum


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize(
    ("bit_width", "count", "mean", "groups"),
    [(2, 16, 1.01, 60), (2, 32, 1.01, 60), (3, 16, 1.06, 30)],
)
def test_near_the_optimum(
    bit_width: int, count: int, mean: float, groups: int, zero_point: str
) -> None:
    rng = np.random.default_rng(count + bit_width)
    below = partitions(count, bit_width)
    layers = {
        "gaussian": rng.standard_normal((groups, count), np.float32),
        "Student-t": rng.standard_t(4, (groups, count)).astype(np.float32) * np.float32(0.02),
        "uniform": rng.random((groups, count), np.float32) - np.float32(0.4),
    }
    options: dict[str, Any] = {
        "bit_width": bit_width,
        "group_size": -1,
        "zero_point": zero_point,
        "method": "mse",
    }
    values = decoded(layers, **options)
    for name, weights in layers.items():
        errors = group_errors(weights, values[name], -1)[:, 0] ** 2 * count
        least = np.array([least_error(group, bit_width, zero_point, below) for group in weights])
        assert (errors >= least * (1 - 1e-6)).all(), name
        assert errors.sum() <= least.sum() * mean, name
        assert np.mean(errors / least) <= mean, name


def test_the_oracle_finds_what_a_grid_finds() -> None:
    group = np.random.default_rng(4).standard_normal(8)
    scales, zeros = np.meshgrid(np.linspace(0.05, 1.5, 1500), np.linspace(-1, 4, 500))
    steps = group / scales[..., None] + zeros[..., None]
    values = (np.clip(np.rint(steps), 0, 3) - zeros[..., None]) * scales[..., None]
    on_grid = ((values - group) ** 2).sum(axis=-1)
    least = least_error(group, 2, "float", partitions(8, 2))
    assert least <= on_grid.min() <= least * 1.01
    errors = []
    for zero in range(4):
        codes = np.clip(np.rint(group / scales[0, :, None] + zero), 0, 3)
        errors.append((((codes - zero) * scales[0, :, None] - group) ** 2).sum(axis=-1))
    least = least_error(group, 2, "integer", partitions(8, 2))
    assert least <= np.min(errors) <= least * 1.001
    either_sign = np.append(scales[0], -scales[0])[:, None]
    codes = np.clip(np.rint(group / either_sign + 2), 0, 3)
    error = (((codes - 2) * either_sign - group) ** 2).sum(axis=-1).min()
    least = least_error(group, 2, "symmetric", partitions(8, 2))
    assert least <= error <= least * 1.001


GAUSSIAN_FIGURES = {
    ("float", 2): 0.45,
    ("float", 3): 0.69,
    ("float", 4): 0.82,
    ("integer", 2): 0.55,
    ("integer", 3): 0.76,
    ("integer", 4): 0.905,
}


def test_figures_on_gaussian_weights() -> None:
    # squared errors, relative to those of round-to-nearest with an integer zero-point
    weights = np.random.default_rng(0).standard_normal((32768, 128), np.float32)
    table = layer_table({"a": weights})

    def mse(**options: Any) -> float:
        result = quantize_batch_arrow(table, metrics=True, **options)
        return float(result["mse"][0].as_py())

    for (zero_point, bit_width), bound in GAUSSIAN_FIGURES.items():
        searched = mse(bit_width=bit_width, zero_point=zero_point, method="mse")
        assert searched <= bound * mse(bit_width=bit_width), (zero_point, bit_width)


# Form


def assert_form(result: pa.Table, layers: Layers, zero_point: str, scale_dtype: str) -> None:
    """Scales and zero-points are what their kinds promise, and the codes lie as always."""
    assert result["layer_name"].to_pylist() == list(layers)
    for row, (name, weights) in enumerate(layers.items()):
        quantity = stored(result, row)
        bit_width = result["bit_width"][row].as_py()
        group_size = result["group_size"][row].as_py()
        scales, zeros = quantity.scales, quantity.zero_points
        rows, columns = reference.matrix_shape(weights.shape)
        assert len(scales) == len(zeros) == rows * len(reference.group_starts(columns, group_size))
        assert np.isfinite(scales).all(), name
        assert np.isfinite(zeros).all(), name
        assert (scales != 0 if zero_point == "symmetric" else scales > 0).all(), name
        with np.errstate(over="ignore", under="ignore"):
            rounded = scales.astype(SCALE_DTYPES[scale_dtype]).astype(np.float32)
        assert rounded.tobytes() == scales.tobytes(), name
        assert not np.signbit(zeros[zeros == 0]).any(), name
        if zero_point == "symmetric":
            assert (zeros == 2 ** (bit_width - 1)).all(), name
        elif zero_point == "integer":
            assert (zeros == np.rint(zeros)).all(), name
            assert ((zeros >= 0) & (zeros < 2**bit_width)).all(), name
        codes = reference.unpack(quantity.data, rows, columns, bit_width)
        assert reference.pack(codes, bit_width) == quantity.data, name  # zeros as padding


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
