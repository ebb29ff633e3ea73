"""ONNX models of MatMulNBits, run by ONNX Runtime."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pytest
from conftest import plain
from exports import data_file, decoded, failing_stream, files, quantized, weights

from pyarrowquant import Recipe, Rule, quantize_batch_arrow, quantize_stream
from pyarrowquant.formats import write_onnx

HOLDS = (
    "MatMulNBits holds matrices of 2, 4 or 8 bits with a group_size that is a power of two and at "
    "least 16, or -1; with 8 bits, zero_point integer or symmetric. Quantize such layers with "
    "other settings, or leave them out"
)
KINDS = [
    (bits, zero_point)
    for bits in (2, 4, 8)
    for zero_point in ("integer", "float", "symmetric")
    if (bits, zero_point) != (8, "float")
]
SHAPES = [  # group_size, columns
    (16, 96),
    (32, 33),
    (32, 320),
    (64, 200),
    (128, 264),
    (128, 100),
    (256, 704),
    (512, 40),
    (-1, 5),
    (-1, 64),
    (-1, 100),
]


def run(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize(("group", "columns"), SHAPES)
@pytest.mark.parametrize(("bits", "zero_point"), KINDS)
def test_products_of_onnxruntime(
    tmp_path: Path, bits: int, zero_point: str, group: int, columns: int
) -> None:
    result = quantized(
        weights(columns, 24, columns), bit_width=bits, group_size=group, zero_point=zero_point
    )
    write_onnx(result, tmp_path / "out.onnx")
    onnx.checker.check_model(tmp_path / "out.onnx")
    w = decoded(result)["a.weight"]
    for rows in (1, 9):  # a vector and a matrix take different kernels
        x = weights(rows, rows, columns)
        product = run(tmp_path / "out.onnx", {"a.weight.input": x})["a.weight.output"]
        # Sums of float32 products in any order, and of codes and zero-points by themselves:
        # each of a few roundings a term is at most 2^-24 of the largest code times its scale.
        largest = 2**bits * np.abs(np.asarray(result["scales"][0].as_py())).max()
        bound = 4 * columns * 2**-24 * largest * np.abs(x).sum(axis=1, keepdims=True)
        exact = x.astype(np.float64) @ w.T.astype(np.float64)
        assert (np.abs(product - exact) <= bound).all()
        assert np.abs(product - exact).max() <= 2e-5 * np.abs(exact).max()


@pytest.mark.parametrize(("group", "columns"), SHAPES)
@pytest.mark.parametrize(("bits", "zero_point"), KINDS)
def test_decoded_values(
    tmp_path: Path, bits: int, zero_point: str, group: int, columns: int
) -> None:
    """A product with the unit matrix has the decoded weights."""
    result = quantized(
        weights(columns, 7, columns),
        bit_width=bits,
        group_size=group,
        zero_point=zero_point,
        scale_dtype="float16",
    )
    write_onnx(result, tmp_path / "out.onnx")
    feeds = {"a.weight.input": np.eye(columns, dtype=np.float32)}
    found = run(tmp_path / "out.onnx", feeds)["a.weight.output"].T
    expected = decoded(result)["a.weight"]
    if zero_point == "float":  # z * s is rounded by itself
        largest = 2**bits * np.abs(np.asarray(result["scales"][0].as_py())).max()
        assert np.abs(found - expected).max() <= 2**-23 * largest
    else:
        np.testing.assert_array_equal(found, expected)


def test_layers_of_several_settings(tmp_path: Path) -> None:
    recipe = Recipe(
        [Rule("b.*", bit_width=8, group_size=32), Rule("c.*", zero_point="symmetric")],
        default={"bit_width": 4, "group_size": 64},
    )
    arrays = [weights(i, 3 + i, 96 + i) for i in range(3)]
    result = quantized(*arrays, recipe=recipe)
    write_onnx(result, tmp_path / "out.onnx")
    feeds = {f"{name}.weight.input": weights(i, 2, 96 + i) for i, name in enumerate("abc")}
    products = run(tmp_path / "out.onnx", feeds)
    for name, w in decoded(result).items():
        exact = feeds[f"{name}.input"].astype(np.float64) @ w.T
        # under 100 terms, each rounded to 2^-24 of the largest sum a few times
        bound = 100 * 2**-22 * np.abs(exact).max()
        np.testing.assert_allclose(products[f"{name}.output"], exact, rtol=0, atol=bound)


def test_model(tmp_path: Path) -> None:
    """What the docstring says of names, and data that its file holds without gaps or overlaps."""
    result = quantized(
        weights(1, 4, 64), weights(2, 1500, 1500), zero_point="symmetric", group_size=64
    )
    write_onnx(result, tmp_path / "out.onnx")
    model = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    assert [node.name for node in model.graph.node] == ["a.weight", "b.weight"]
    assert list(model.graph.node[0].input) == [
        "a.weight.input",
        "a.weight.codes",
        "a.weight.scales",
    ]
    end = 0
    for tensor in model.graph.initializer:
        entry = {item.key: item.value for item in tensor.external_data}
        assert entry["location"] == data_file(tmp_path / "out.onnx").name
        offset, length = int(entry["offset"]), int(entry["length"])
        alignment = 65536 if length >= 2**20 else 64
        assert offset % alignment == 0
        assert 0 <= offset - end < alignment
        end = offset + length
    assert end == data_file(tmp_path / "out.onnx").stat().st_size
    codes = next(t for t in onnx.load(tmp_path / "out.onnx").graph.initializer)
    assert codes.raw_data == result["quantized_data"][0].as_py()


def test_rows_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = quantized(weights(1, 11, 100), group_size=64)
    write_onnx(result, tmp_path / "whole.onnx")
    monkeypatch.setattr("pyarrowquant._core.laying._BYTES_A_PIECE", 130)
    write_onnx(result, tmp_path / "pieces.onnx")
    whole, pieces = (data_file(tmp_path / name) for name in ("whole.onnx", "pieces.onnx"))
    assert whole.read_bytes() == pieces.read_bytes()
    assert whole.suffixes[1:] == pieces.suffixes[1:]  # named by what they have


def test_streams_give_the_same_files(tmp_path: Path) -> None:
    table = plain(["a", "b"], [weights(1, 5, 128), weights(2, 3, 64)])
    (tmp_path / "table").mkdir()
    (tmp_path / "stream").mkdir()
    write_onnx(quantize_batch_arrow(table), tmp_path / "table" / "out.onnx")
    stream = quantize_stream(table.to_reader(max_chunksize=1))
    write_onnx(stream, tmp_path / "stream" / "out.onnx")
    assert files(tmp_path / "table") == files(tmp_path / "stream")


@pytest.mark.parametrize(
    ("array", "options", "problem"),
    [
        (weights(1, 2, 64), {"group_size": 8}, "group_size 8"),
        (weights(1, 2, 64), {"group_size": 48}, "group_size 48"),
        (weights(1, 2, 64), {"bit_width": 3}, "3 bits"),
        (weights(1, 2, 64), {"bit_width": 5}, "5 bits"),
        (weights(1, 2, 64), {"bit_width": 6}, "6 bits"),
        (
            weights(1, 2, 64),
            {"bit_width": 8, "zero_point": "float"},
            "8 bits with float zero-points",
        ),
        (np.ones((2, 2, 32), np.float32), {}, "shape [2, 2, 32] is not that of a matrix"),
        (np.ones(64, np.float32), {}, "shape [64] is not that of a matrix"),
        (np.ones((4, 0), np.float32), {}, "shape [4, 0] has no weights"),
    ],
)
def test_refusals(tmp_path: Path, array: np.ndarray, options: dict[str, Any], problem: str) -> None:
    result = pa.concat_tables(
        [quantized(weights(1, 2, 64), names=["0"]), quantized(array, names=["x"], **options)]
    )
    text = f"MatMulNBits cannot hold layer 'x': {problem}\n{HOLDS}"
    for source in (result, failing_stream(result, AssertionError("is not reached"))):
        with pytest.raises(ValueError, match="MatMulNBits cannot hold") as caught:
            write_onnx(source, tmp_path / "out.onnx")
        assert str(caught.value) == text
        assert files(tmp_path) == {}


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_failing_streams_leave_nothing(tmp_path: Path, error: BaseException) -> None:
    result = quantized(*[weights(1, 2, 64)] * 3)
    with pytest.raises((OSError, KeyboardInterrupt)):
        write_onnx(failing_stream(result, error), tmp_path / "out.onnx")
    assert files(tmp_path) == {}


def test_existing_files_are_not_replaced_unasked(tmp_path: Path) -> None:
    first, second = (quantized(weights(i, 2, 64)) for i in (1, 2))
    path = tmp_path / "out.onnx"
    write_onnx(first, path)
    before = files(tmp_path)
    old_data = data_file(path)
    assert set(before) == {"out.onnx", old_data.name}
    with pytest.raises(FileExistsError, match=r"exists. Use overwrite=True to replace it"):
        write_onnx(second, path)
    with pytest.raises(OSError, match="the disk is gone"):
        write_onnx(failing_stream(second, OSError("the disk is gone")), path, overwrite=True)
    assert files(tmp_path) == before
    write_onnx(second, path, overwrite=True)
    new_data = data_file(path)  # the old data is gone
    assert new_data != old_data
    assert set(files(tmp_path)) == {"out.onnx", new_data.name}
    onnx.checker.check_model(path)


def test_names_come_once(tmp_path: Path) -> None:
    result = quantized(weights(1, 2, 64))
    with pytest.raises(ValueError, match=r"Layer 'a\.weight' is in the results twice"):
        write_onnx(pa.concat_tables([result, result]), tmp_path / "out.onnx")
    assert files(tmp_path) == {}


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    text = r"^Writing ONNX needs onnx: pip install 'pyarrowquant\[onnx\]'$"
    with pytest.raises(ImportError, match=text):
        write_onnx(quantized(), tmp_path / "out.onnx")
    assert files(tmp_path) == {}
