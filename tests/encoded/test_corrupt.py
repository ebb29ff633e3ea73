"""Rows that say what their encoding cannot: an error by row, wherever results are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run
from conftest import plain, with_column

from pyarrowquant import QuantizationError, compare, dequantize_batch_arrow, quantize_batch_arrow
from pyarrowquant.formats import write_gguf, write_mlx, write_onnx

pytestmark = pytest.mark.usefixtures("nothing_leaked")

NAN, INF = float("nan"), float("inf")
WEIGHTS = np.random.default_rng(0).standard_normal((3, 300)).astype(np.float32)
ALL = ("nf4", "q4_k", "q6_k")
TABLE = plain(["a", "bad", "c"], [WEIGHTS] * 3)


def result_with(encoding: str, column: str, value: Any) -> pa.Table:
    """Quantize three layers and replace one value of the middle one, named bad."""
    result = quantize_batch_arrow(TABLE, encoding=encoding, metrics=True)
    values = result[column].to_pylist()
    values[1] = value(values[1]) if callable(value) else value
    return with_column(result, column, pa.array(values, result.schema.field(column).type))


def first(change: Callable[[float], float]) -> Callable[[list[float]], list[float]]:
    return lambda values: [change(values[0]), *values[1:]]


def shortened(values: list[float]) -> list[float]:
    return values[:-1]


CORRUPT: list[tuple[str, str, Any, str]] = [
    ("q4_k", "encoding", "q9_k", "encoding 'q9_k' is unknown"),
    ("q4_k", "encoding", "q6_k", "bit_width is 4, encoding 'q6_k' has 6"),
    ("nf4", "encoding", "mxfp4", "group_size is 64, encoding 'mxfp4' has 32"),
    ("nf4", "bit_width", 3, ""),
    ("nf4", "group_size", 32, ""),
    ("nf4", "zero_points", [], ""),
    ("nf4", "levels", shortened, "levels has 15 values, encoding 'nf4' has 16"),
    ("nf4", "levels", None, "levels has 0 values"),
    ("nf4", "levels", [*range(17)], "levels has 17 values"),
    ("nf4", "levels", first(lambda _: INF), ""),
    ("nf4", "levels", first(lambda _: -1.5), "level 0 is -1.5, encoding 'nf4' has -1"),
    ("mxfp4", "levels", lambda levels: levels[::-1], "level 0 is -6, encoding 'mxfp4' has 0"),
    ("iq4_xs", "levels", [*range(16)], "level 0 is 0, encoding 'iq4_xs' has -127"),
    ("nf4", "levels", first(lambda _: NAN), "level"),
    ("fp8", "levels", first(lambda _: NAN), "level"),
    ("nf4", "levels", first(lambda _: None), "null"),
    ("q4_k", "levels", [*range(16)], "levels has 16 values, encoding 'q4_k' has 0"),
    ("nf4", "scales", first(lambda _: NAN), ""),
    ("nf4", "scales", shortened, ""),
    ("nf4", "zero_points", [1.0] * 15, ""),
    ("q3_k", "zero_points", None, ""),
    ("q3_k", "zero_points", first(lambda _: 3.0), ""),
    ("q4_k", "zero_points", None, ""),
    ("q4_k", "zero_points", first(lambda zero: zero * 1.01 + 0.01), ""),
    ("q4_k", "zero_points", first(lambda zero: -zero - 1), ""),
    ("q4_k", "super_scales", shortened, "super_scales has 5 values"),
    ("q4_k", "super_scales", None, "super_scales has 0 values"),
    ("q4_k", "super_minimums", None, "super_minimums has 0 values"),
    ("q4_k", "super_minimums", first(lambda _: NAN), ""),
    ("q4_k", "super_scales", first(lambda _: INF), ""),
    ("q4_k", "super_scales", first(lambda d: d * 1.01), ""),
    ("q4_k", "super_scales", first(lambda d: d * 4), ""),
    ("q4_k", "scales", first(lambda scale: scale * 64), ""),
    ("q4_k", "scales", first(lambda scale: -scale), ""),
    ("q6_k", "scales", first(lambda scale: scale * 300), ""),
    ("q6_k", "super_minimums", [1.0] * 6, "super_minimums has 6 values"),
    ("iq4_xs", "super_scales", first(lambda d: d / 2.5), ""),
    ("iq4_nl", "scales", first(lambda scale: scale * (1 + 2**-15)), ""),
    ("iq4_nl", "super_scales", [1.0], "super_scales has 1 values"),
    ("mxfp4", "scales", first(lambda scale: scale * 1.5), ""),
    ("mxfp4", "scales", first(lambda scale: -scale), ""),
    ("mxfp8", "scales", first(lambda _: 0.0), ""),
    ("nvfp4", "super_scales", [1.0, 1.0], "super_scales has 2 values"),
    ("nvfp4", "super_scales", [0.3], ""),
    ("nvfp4", "scales", first(lambda scale: scale * 1.03), ""),
    ("nvfp4", "scales", first(lambda scale: -scale), ""),
    ("fp8", "group_size", 12, ""),
    ("fp8", "scales", first(lambda _: -INF), ""),
]

IDS = [f"{number} {encoding} {column}" for number, (encoding, column, *_) in enumerate(CORRUPT)]
each_case = pytest.mark.parametrize(("encoding", "column", "value", "text"), CORRUPT, ids=IDS)


@each_case
def test_calls(encoding: str, column: str, value: Any, text: str) -> None:
    result = result_with(encoding, column, value)
    for read in (dequantize_batch_arrow, lambda result: compare(TABLE, result)):
        with pytest.raises(QuantizationError, match="Layer 'bad'") as caught:
            read(result)
        assert [(e.layer_name, e.row) for e in caught.value.errors] == [("bad", 1)]
        assert text in str(caught.value)


@each_case
def test_commands(encoding: str, column: str, value: Any, text: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.parquet"
    pq.write_table(result_with(encoding, column, value), file)
    pq.write_table(TABLE, tmp_path / "w.parquet")
    for arguments in (
        ["dequantize", file, tmp_path / "out.safetensors"],
        ["inspect", file],
        ["compare", tmp_path / "w.parquet", file],
        ["report", file, "--html", tmp_path / "out.html"],
    ):
        done = run(*arguments)
        assert done.exit_code == 1
        assert done.stderr.startswith(f"Error: '{file}': "), done.stderr
        assert "'bad'" in done.stderr or "Row 1" in done.stderr, done.stderr
        assert text in done.stderr
    assert not list(tmp_path.glob("out.*"))


@pytest.mark.parametrize(("encoding", "column", "value", "_text"), CORRUPT, ids=IDS)
def test_writers(encoding: str, column: str, value: Any, _text: str, tmp_path: Path) -> None:
    result = result_with(encoding, column, value)
    for write in (write_gguf, write_onnx):
        with pytest.raises(ValueError, match=r"'bad'|Row 1"):
            write(result, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_unknown_columns_of_encodings_have_types() -> None:
    result = quantize_batch_arrow(TABLE, encoding="nf4")
    for column, wrong in (
        ("encoding", pa.array([1, 2, 3])),
        ("levels", pa.array([[1], [2], [3]])),
        ("super_scales", pa.array(["a", "b", "c"])),
    ):
        for read in (dequantize_batch_arrow, lambda result: write_gguf(result, "never.gguf")):
            with pytest.raises(ValueError, match=f"Column '{column}' has type .* expected"):
                read(with_column(result, column, wrong))


@pytest.mark.parametrize("code", [0x7F, 0xFF])
@pytest.mark.parametrize("encoding", ["fp8", "mxfp8"])
def test_codes_of_nan_are_in_no_file(encoding: str, code: int, tmp_path: Path) -> None:
    codes = bytearray(quantize_batch_arrow(TABLE, encoding=encoding)["quantized_data"][1].as_py())
    codes[300 + 7] = code
    result = result_with(encoding, "quantized_data", bytes(codes))
    wanted = f"code {code} in row 1 and column 7 of the matrix is NaN in E4M3"
    for write in (write_gguf, write_mlx):
        with pytest.raises(ValueError, match=wanted):
            write(result, tmp_path / "out")
    pq.write_table(result, tmp_path / "bad.parquet")
    done = run("inspect", tmp_path / "bad.parquet")
    assert done.exit_code == 1
    assert wanted in done.stderr
    decoded = dequantize_batch_arrow(result)["weights"][1].values.to_numpy()
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize("column", ["levels", "super_scales", "super_minimums"])
def test_empty_lists_are_nulls(column: str) -> None:
    rows = [quantize_batch_arrow(TABLE.slice(i, 1), encoding=each) for i, each in enumerate(ALL)]
    result = pa.concat_tables(rows)
    assert result[column].null_count
    emptied = [[] if values is None else values for values in result[column].to_pylist()]
    same = with_column(result, column, pa.array(emptied, result.schema.field(column).type))
    assert dequantize_batch_arrow(same).equals(dequantize_batch_arrow(result))
    assert compare(TABLE, same).equals(compare(TABLE, result))


def test_columns_of_nulls_are_int() -> None:
    result = quantize_batch_arrow(TABLE)
    nulls = pa.nulls(3)
    for name in ("encoding", "levels", "super_scales", "super_minimums"):
        result = result.append_column(name, nulls)
    assert dequantize_batch_arrow(result).equals(
        dequantize_batch_arrow(quantize_batch_arrow(TABLE))
    )
