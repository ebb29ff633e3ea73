"""Method "mse": never worse than round-to-nearest, and near the optimum."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import decode, decoded, quantized
from reference import BIT_WIDTHS, SCALE_DTYPES, ZERO_POINTS, Array, layer_table
from search_oracle import families, group_errors, least_error, partitions

from pyarrowquant import quantize_batch_arrow
from tables.searching import GROUP_SIZES, assert_form, assert_never_worse, fitting

PROPERTY = settings(max_examples=500, deadline=None, derandomize=True)


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
