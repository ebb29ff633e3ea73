"""What MLX cannot hold, and what is left when writing fails."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import plain
from exports import failing_stream, files, kept_table, quantized, weights

from pyarrowquant import Recipe, Rule, quantize_batch_arrow
from pyarrowquant.formats import write_mlx

HOLDS = (
    "MLX holds matrices named '<module>.weight' of 2, 3, 4, 5, 6 or 8 bits with group_size 32, "
    "64 or 128, the columns a multiple of it, and scales of the dtype of the call; and those of "
    "the encodings mxfp4, mxfp8 and nvfp4, the columns a multiple of 32. Quantize such layers with "
    "other settings, or give them in kept"
)


@pytest.mark.parametrize(
    ("array", "name", "options", "problem"),
    [
        (weights(1, 2, 64), "a.weight", {"group_size": 16}, "group_size 16"),
        (weights(1, 2, 512), "a.weight", {"group_size": 256}, "group_size 256"),
        (weights(1, 2, 96), "a.weight", {"group_size": -1}, "group_size -1"),
        (
            weights(1, 2, 96),
            "a.weight",
            {"group_size": 64},
            "96 columns are no multiple of group_size 64",
        ),
        (
            np.ones((2, 2, 32), np.float32),
            "a.weight",
            {"group_size": 32},
            "shape [2, 2, 32] is not that of a matrix",
        ),
        (
            np.ones(64, np.float32),
            "a.weight",
            {"group_size": 32},
            "shape [64] is not that of a matrix",
        ),
        (np.ones((0, 64), np.float32), "a.weight", {}, "shape [0, 64] has no weights"),
        (weights(1, 2, 64), "a", {"group_size": 32}, "its name does not end with '.weight'"),
        (
            weights(1, 2, 64) / 3,
            "a.weight",
            {"group_size": 32, "scale_dtype": "float32"},
            'its scales are not float16: quantize with scale_dtype="float16", or write others',
        ),
        (
            np.float32([[60000 + i for i in range(32)] * 2]) * 2,
            "a.weight",
            {"group_size": 32, "zero_point": "float"},
            "a bias is beyond float16",
        ),
    ],
)
def test_refusals(
    tmp_path: Path, array: np.ndarray, name: str, options: dict[str, Any], problem: str
) -> None:
    options = {"scale_dtype": "float16", **options}
    good, bad = weights(1, 2, 64), array
    result = pa.concat_tables(
        [
            quantized(good, names=["0.weight"], group_size=32, scale_dtype="float16"),
            quantized(bad, names=[name], **options),
        ]
    )
    text = f"MLX cannot hold layer '{name}': {problem}\n{HOLDS}"
    for source in (result, failing_stream(result, AssertionError("is not reached"))):
        with pytest.raises(ValueError, match="MLX cannot hold") as caught:
            write_mlx(source, tmp_path / "out")
        assert str(caught.value) == text
        assert files(tmp_path) == {}


def test_all_layers_that_do_not_fit_are_named(tmp_path: Path) -> None:
    result = quantized(*[weights(1, 2, 64)] * 2, group_size=16, scale_dtype="float16")
    with pytest.raises(ValueError, match=r"layers 'a.weight', 'b.weight': group_size 16"):
        write_mlx(result, tmp_path / "out")


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_failing_streams_leave_nothing(tmp_path: Path, error: BaseException) -> None:
    result = quantized(*[weights(1, 2, 64)] * 3, group_size=32, scale_dtype="float16")
    with pytest.raises((OSError, KeyboardInterrupt)):
        write_mlx(failing_stream(result, error), tmp_path / "out")
    assert files(tmp_path) == {}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tokenizer.json").write_text("{}")
    before = files(tmp_path)
    with pytest.raises((OSError, KeyboardInterrupt)):
        write_mlx(result, tmp_path / "out", unquantized=failing_stream(kept_table(), error))
    assert files(tmp_path) == before


def test_existing_files_are_not_replaced_unasked(tmp_path: Path) -> None:
    first = quantized(weights(1, 2, 64), group_size=32, scale_dtype="float16")
    second = quantized(weights(2, 2, 64), group_size=32, scale_dtype="float16")
    (tmp_path / "tokenizer.json").write_text("{}")
    write_mlx(first, tmp_path)
    before = files(tmp_path)
    with pytest.raises(FileExistsError, match=r"model.safetensors' exists. Use overwrite=True"):
        write_mlx(second, tmp_path)
    assert files(tmp_path) == before
    write_mlx(second, tmp_path, overwrite=True)
    after = files(tmp_path)
    assert after.keys() == before.keys()
    assert after["model.safetensors"] != before["model.safetensors"]
    (tmp_path / "model-00002-of-00002.safetensors").touch()
    with pytest.raises(FileExistsError, match="MLX would load it too: remove it"):
        write_mlx(first, tmp_path, overwrite=True)


def test_names_come_once(tmp_path: Path) -> None:
    result = quantized(weights(1, 2, 64), group_size=32, scale_dtype="float16")
    for name in ("a.weight", "a.scales", "a.biases"):
        kept = kept_table({name: np.zeros(1, np.float32)})
        with pytest.raises(ValueError, match=f"Two tensors of the file would be named '{name}'"):
            write_mlx(result, tmp_path / "out", unquantized=kept)
        assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("kept", "text"),
    [
        (
            pa.table({"layer_name": ["x"], "weights": [[1.0]]}),
            "Layer 'x': kept layers are float32, float16 or bfloat16 (F32, F16 or BF16), "
            "or raw bytes that the format has a type for, not float64",
        ),
        (
            pa.table({"layer_name": ["x"], "weights": [b"1234"], "dtype": ["F4"]}),
            "Layer 'x': kept layers are float32, float16 or bfloat16 (F32, F16 or BF16), "
            "or raw bytes that the format has a type for, not F4",
        ),
        (
            pa.table({"layer_name": ["x"], "weights": [b"123"], "dtype": ["F16"]}),
            "Layer 'x': 3 bytes are no whole number of F16",
        ),
        (
            pa.table({"layer_name": ["x"], "weights": [b"1234"], "dtype": ["F16"], "shape": [[3]]}),
            "Layer 'x': Shape mismatch: shape [3] has 3 elements, weights has 2",
        ),
        (
            pa.table({"layer_name": ["x"], "weights": pa.array([[None]], pa.list_(pa.float32()))}),
            "Layer 'x': weights has a null",
        ),
        (
            pa.table({"layer_name": pa.array([None], pa.string()), "weights": [[1.0]]}),
            "Row 0: layer_name is null",
        ),
    ],
)
def test_wrong_kept_layers(tmp_path: Path, kept: pa.Table, text: str) -> None:
    for source in (kept, kept.to_reader()):
        with pytest.raises(ValueError, match=r"null|Layer") as caught:
            write_mlx(quantized(), tmp_path / "out", unquantized=source)
        assert str(caught.value) == text
        assert files(tmp_path) == {}


def corrupted(column: str, value: Any) -> pa.Table:
    result = quantized(weights(1, 2, 64), group_size=32, scale_dtype="float16")
    field = result.schema.field(column)
    return result.set_column(
        result.schema.get_field_index(column), field, pa.array([value], field.type)
    )


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("layer_name", None, "Row 0: layer_name is null"),
        ("scales", [None] * 4, "Row 0: scales has a null"),
        ("bit_width", 7, "bit_width 7"),
        ("group_size", 12, "group_size 12"),
        ("shape", [-2, -64], "shape [-2, -64]"),
        ("quantized_data", b"123", "quantized_data has 3 bytes, expected 64"),
        ("scales", [1.0], "scales has 1 values, expected 4"),
        ("scales", [1.0, 2.0, 0.0, 1.0], "a scale is 0"),
        ("zero_points", [1.0, math.nan, 0.0, 1.0], "zero_points has NaN or Inf"),
    ],
)
def test_corrupt_rows(tmp_path: Path, column: str, value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"null|corrupt") as caught:
        write_mlx(corrupted(column, value), tmp_path / "out")
    prefix = "" if "null" in text else "Layer 'a.weight' (row 0) is corrupt: "
    assert str(caught.value) == prefix + text
    assert files(tmp_path) == {}


def test_wrong_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = quantized(weights(1, 2, 64), group_size=32, scale_dtype="float16")
    with pytest.raises(ValueError, match=r"Invalid dtype: 'F16'. Must be 'float16', 'bfloat16' or"):
        write_mlx(result, tmp_path / "out", dtype="F16")
    with pytest.raises(TypeError, match="config must be a mapping, got str"):
        write_mlx(result, tmp_path / "out", config="config.json")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_mlx(result, tmp_path / "out", config={"a": object()})
    with pytest.raises(TypeError, match="overwrite must be True or False, got int: 1"):
        write_mlx(result, tmp_path / "out", overwrite=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Expected an Arrow table"):
        write_mlx({"a": 1}, tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"Column 'quantized_data' is missing. Expected a result of"
    ):
        write_mlx(plain(["a"], [[1.0]]), tmp_path / "out")
    wrong = result.set_column(2, "scales", pa.array([[1.0]], pa.list_(pa.float64())))
    with pytest.raises(ValueError, match=r"Column 'scales' has type list<.*expected list<float32>"):
        write_mlx(wrong, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    text = "^Writing for MLX needs safetensors: pip install 'pyarrowquant\\[mlx\\]'$"
    with pytest.raises(ImportError, match=text):
        write_mlx(result, tmp_path / "out")
    assert files(tmp_path) == {}


def test_names_that_mean_something_else(tmp_path: Path) -> None:
    arrays = {f"{module}.weight": np.ones((32, 64), np.float32) for module in ("bits", "a", "b")}
    recipe = Recipe([Rule("bits.*", bit_width=3)], {"scale_dtype": "float16", "group_size": 64})
    result = quantize_batch_arrow(plain(list(arrays), list(arrays.values())), recipe=recipe)
    with pytest.raises(ValueError, match=r"no place for the settings of layer 'bits\.weight'"):
        write_mlx(result, tmp_path / "a")
    with pytest.raises(ValueError, match="cannot be named '__metadata__'"):
        write_mlx(result.slice(0, 1), tmp_path / "b", unquantized=plain(["__metadata__"], [[1.0]]))
    assert not list(tmp_path.rglob("*.safetensors"))
    write_mlx(result.slice(0, 1), tmp_path / "c", config={"limit": [0.0, float("inf")]})
    assert json.loads((tmp_path / "c" / "config.json").read_text())["limit"][1] == float("inf")
