"""Results whose finite scales and zero-points decode to weights that are not finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import failed
from conftest import plain

from pyarrowquant import (
    QuantizationError,
    compare,
    dequantize_batch_arrow,
    quantize_batch_arrow,
    quantize_stream,
)

pytestmark = pytest.mark.usefixtures("nothing_leaked")

WEIGHTS = np.random.default_rng(0).standard_normal((3, 72), np.float32)
TABLE = plain(["a", "bad", "c"], [WEIGHTS] * 3)
LARGEST = float(np.finfo(np.float32).max)
SETTINGS: list[dict[str, Any]] = [
    {"bit_width": bits, "group_size": 24, "zero_point": zero_point}
    for bits in (2, 3, 4, 5, 6, 8)
    for zero_point in ("integer", "float", "symmetric")
]
SETTINGS += [
    {"encoding": encoding, **more}
    for encoding, more in (
        ("fp8", {}),
        ("fp8", {"group_size": 24}),
        ("fp8", {"group_size": "tensor"}),
        ("fp8", {"group_size": "block"}),
        ("nvfp4", {}),
    )
]


def with_values(result: pa.Table, row: int, **values: Any) -> pa.Table:
    rows = result.to_pylist()
    rows[row] |= values
    return pa.Table.from_pylist(rows, schema=result.schema)


def decoded(row: dict[str, Any], codes: np.ndarray) -> np.ndarray:
    """What the rule of tables gives."""
    levels = np.float32(row.get("levels") or range(256))[codes]
    size = -(-codes.shape[1] // (len(row["scales"]) // len(codes)) // 8) * 8

    def spread(values: Any) -> np.ndarray:
        groups = np.float32(values).reshape(len(codes), -1)
        return np.repeat(groups, size, axis=1)[:, : codes.shape[1]]

    with np.errstate(over="ignore"):
        zero_points = row["zero_points"] or [0] * len(row["scales"])
        return (levels - spread(zero_points)) * spread(row["scales"])


def codes_of(row: dict[str, Any]) -> np.ndarray:
    bits = row["bit_width"]
    packed = np.frombuffer(row["quantized_data"], np.uint8).reshape(row["shape"][0], -1)
    flat = np.unpackbits(packed, axis=1, bitorder="little")[:, : row["shape"][1] * bits]
    return flat.reshape(len(packed), -1, bits) @ (1 << np.arange(bits))


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda each: "-".join(map(str, each.values())))
@pytest.mark.parametrize("use", [dequantize_batch_arrow, lambda table: compare(TABLE, table)])
def test_scales_that_are_too_large(
    settings: dict[str, Any], use: Callable[[pa.Table], object]
) -> None:
    result = quantize_batch_arrow(TABLE, **settings)
    row = result.to_pylist()[1]
    scales = [3e38] * len(row["scales"])
    shared = {"super_scales": [3e38] * len(row["super_scales"])} if row.get("super_scales") else {}
    bad = with_values(result, 1, scales=scales, **shared)
    weights = decoded(bad.to_pylist()[1], codes_of(row)).reshape(-1)
    index = int(np.argmax(~np.isfinite(weights)))
    assert not np.isfinite(weights[index])
    with pytest.raises(QuantizationError) as caught:
        use(bad)
    (error,) = caught.value.errors
    assert (error.layer_name, error.row, error.kind, error.index) == (
        "bad",
        1,
        "non_finite",
        index,
    )
    value = "Inf" if weights[index] > 0 else "-Inf"
    assert f"Layer 'bad': the weight at index {index} decodes to {value}" in error.message
    assert "3e+38" in error.message


def test_the_last_group_alone() -> None:
    result = quantize_batch_arrow(TABLE, group_size=64, zero_point="float")
    scales = result["scales"][1].as_py()
    zero_points = result["zero_points"][1].as_py()
    scales[-1], zero_points[-1] = 1.0, 1e38
    dequantize_batch_arrow(with_values(result, 1, scales=scales, zero_points=zero_points))
    scales[-1] = 4.0
    with pytest.raises(QuantizationError, match=f"at index {2 * 72 + 64} decodes to -Inf"):
        dequantize_batch_arrow(with_values(result, 1, scales=scales, zero_points=zero_points))


@pytest.mark.parametrize("zero_point", ["integer", "float", "symmetric"])
def test_codes_that_do_not_occur_do_no_harm(zero_point: str) -> None:
    """A scale with which only other codes are infinite; so are some of the largest weights."""
    weights = np.full((2, 64), 1.0, np.float32)
    weights[:, ::2] = 0.5
    result = quantize_batch_arrow(plain(["a"], [weights]), zero_point=zero_point)
    row = result.to_pylist()[0]
    reach = np.abs(codes_of(row) - np.float32(row["zero_points"][0])).max()
    scale = float(np.float32(LARGEST / 1.001 / max(reach, 1)))
    large = with_values(result, 0, scales=[scale] * len(row["scales"]))
    found = np.float32(dequantize_batch_arrow(large)["weights"][0].as_py())
    wanted = decoded(large.to_pylist()[0], codes_of(row)).reshape(-1)
    assert np.isfinite(wanted).all()
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("method", ["rtn", "mse"])
@pytest.mark.parametrize("settings", SETTINGS[::4], ids=str)
def test_the_largest_weights_are_decoded(settings: dict[str, Any], method: str) -> None:
    random = np.random.default_rng(1)
    weights = np.where(random.random((3, 72)) < 0.5, LARGEST, -LARGEST).astype(np.float32)
    tables = [plain(["a"], [part * weights]) for part in np.float32([1, 0.9])]
    for table in tables:
        result = quantize_batch_arrow(table, method=method, **settings)
        assert np.isfinite(dequantize_batch_arrow(result)["weights"][0].values.to_numpy()).all()


def test_commands_name_the_layer(tmp_path: Path) -> None:
    result = quantize_batch_arrow(TABLE)
    scales = [3e38] * len(result["scales"][1])
    pq.write_table(with_values(result, 1, scales=scales), tmp_path / "bad.parquet")
    pq.write_table(TABLE, tmp_path / "original.parquet")
    for command in (
        ["dequantize", tmp_path / "bad.parquet", tmp_path / "out.safetensors"],
        ["dequantize", tmp_path / "bad.parquet", tmp_path / "out.arrow"],
        ["compare", tmp_path / "original.parquet", tmp_path / "bad.parquet"],
    ):
        assert "Layer 'bad': the weight at index" in failed(*command)
    assert {path.name for path in tmp_path.iterdir()} == {"bad.parquet", "original.parquet"}


def test_streams_of_results() -> None:
    stream = quantize_stream(TABLE, group_size=24)
    table = stream.read_all()
    bad = with_values(table, 1, scales=[LARGEST] * len(table["scales"][1]))
    with pytest.raises(QuantizationError, match="Layer 'bad'"):
        dequantize_batch_arrow(bad.to_reader())
