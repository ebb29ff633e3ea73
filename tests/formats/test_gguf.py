"""GGUF files, read and decoded by gguf itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pyarrow as pa
import pytest
from conftest import OnlyStream, plain
from exports import (
    KEPT_ARRAYS,
    codes_of,
    decoded,
    failing_stream,
    files,
    kept_table,
    quantized,
    spread,
    weights,
)

from pyarrowquant import UsageError, quantize_batch_arrow, quantize_stream
from pyarrowquant.formats import write_gguf

HOLDS = (
    'GGUF holds matrices, and stacks of them, of group_size 32 and scale_dtype="float16", the '
    "columns a multiple of 32: 4 and 5 bits with any zero_point, 8 bits with a symmetric one; "
    "and of the encodings q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, mxfp4, the columns a "
    "multiple of 256, or of 32 for iq4_nl and mxfp4. Quantize such layers with other "
    "settings, such as encoding='q2_k' or encoding='q3_k' for fewer bits, or leave them out by a "
    "rule with skip"
)
TYPES = [
    (4, "symmetric", "Q4_0"),
    (4, "integer", "Q4_1"),
    (4, "float", "Q4_1"),
    (5, "symmetric", "Q5_0"),
    (5, "integer", "Q5_1"),
    (5, "float", "Q5_1"),
    (8, "symmetric", "Q8_0"),
]
FITTING: dict[str, Any] = {"group_size": 32, "scale_dtype": "float16"}


def read(path: Path) -> tuple[dict[str, gguf.ReaderTensor], gguf.GGUFReader]:
    reader = gguf.GGUFReader(path)
    return {tensor.name: tensor for tensor in reader.tensors}, reader


def ggml_decodes(tensor: gguf.ReaderTensor) -> np.ndarray:
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


@pytest.mark.parametrize("method", ["rtn", "mse"])
@pytest.mark.parametrize("columns", [32, 352])
@pytest.mark.parametrize(("bits", "zero_point", "type_name"), TYPES)
def test_values_that_gguf_decodes(
    tmp_path: Path, bits: int, zero_point: str, type_name: str, columns: int, method: str
) -> None:
    result = quantized(
        weights(bits, 7, columns), bit_width=bits, zero_point=zero_point, method=method, **FITTING
    )
    write_gguf(result, tmp_path / "out.gguf")
    tensors, _ = read(tmp_path / "out.gguf")
    tensor = tensors["a.weight"]
    assert tensor.tensor_type.name == type_name
    assert tensor.shape.tolist() == [columns, 7]  # innermost first
    found = ggml_decodes(tensor)
    if type_name.endswith("_0"):
        assert found.tobytes() == decoded(result)["a.weight"].tobytes()
        return
    row = result.to_pylist()[0]
    scales, zeros = (spread(row[key], row) for key in ("scales", "zero_points"))
    m = (-zeros * scales).astype(np.float16).astype(np.float32)
    expected = codes_of(row).astype(np.float32) * scales + m
    assert found.tobytes() == expected.tobytes()
    steps = np.abs(found - decoded(result)["a.weight"]) / np.abs(scales)
    assert steps.max() <= 0.008 * 2 ** (bits - 4)


@pytest.mark.parametrize(("bits", "type_name"), [(4, "Q4_0"), (5, "Q5_0"), (8, "Q8_0")])
def test_every_code_of_every_place(tmp_path: Path, bits: int, type_name: str) -> None:
    """q - 128 = -128 included."""
    rng = np.random.default_rng(1)
    array = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (400, 64)).astype(np.float32)
    array[:, ::32] = -(2 ** (bits - 1))  # so that the scale is 1
    result = quantized(array, bit_width=bits, zero_point="symmetric", **FITTING)
    assert set(codes_of(result.to_pylist()[0]).ravel()) == set(range(2**bits))
    write_gguf(result, tmp_path / "out.gguf")
    tensor = read(tmp_path / "out.gguf")[0]["a.weight"]
    assert tensor.tensor_type.name == type_name
    np.testing.assert_array_equal(ggml_decodes(tensor), array)


def test_rows_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = quantized(weights(1, 11, 96), bit_width=5, **FITTING)
    write_gguf(result, tmp_path / "whole.gguf")
    monkeypatch.setattr("pyarrowquant._core.laying._BYTES_A_PIECE", 150)
    write_gguf(result, tmp_path / "pieces.gguf")
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "pieces.gguf").read_bytes()


def test_kept_layers_are_the_same_bytes(tmp_path: Path) -> None:
    arrays = {
        **KEPT_ARRAYS,
        "conv": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
        "scalar": np.float32(3).reshape(()),
    }
    kept = OnlyStream(kept_table(arrays).to_reader(max_chunksize=1))
    write_gguf(quantized(weights(1, 3, 64), **FITTING), tmp_path / "out.gguf", unquantized=kept)
    tensors, _ = read(tmp_path / "out.gguf")
    assert list(tensors) == ["a.weight", *arrays]
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    for name, array in arrays.items():
        assert tensors[name].tensor_type.name == names[array.dtype.name]
        assert tensors[name].shape.tolist() == (list(array.shape)[::-1] or [1])
        assert tensors[name].data.tobytes() == array.tobytes()
        assert tensors[name].data_offset % 32 == 0


def test_metadata(tmp_path: Path) -> None:
    metadata = {
        "general.name": "été",
        "llama.context_length": 2048,
        "negative": -5,
        "large": 2**40,
        "least": -(2**40),
        "llama.rope.freq_base": 10000.0,
        "flag": True,
        "tokenizer.ggml.tokens": ["<s>", "a"],
        "tokenizer.ggml.scores": [0.0, -1.5],
        "tokenizer.ggml.token_type": [3, 1],
        "wide": (2**40, -1),
        "flags": [True, False],
    }
    write_gguf(quantized(), tmp_path / "out.gguf", architecture="llama", metadata=metadata)
    _, reader = read(tmp_path / "out.gguf")
    for key, value in metadata.items():
        assert reader.get_field(key).contents() == (
            list(value) if isinstance(value, tuple) else value
        )
    assert reader.get_field("general.architecture").contents() == "llama"
    assert reader.get_field("general.quantization_version").contents() == 2
    types = {key: [t.name for t in reader.get_field(key).types] for key in metadata}
    assert types == {
        "general.name": ["STRING"],
        "llama.context_length": ["UINT32"],
        "negative": ["INT32"],
        "large": ["UINT64"],
        "least": ["INT64"],
        "llama.rope.freq_base": ["FLOAT32"],
        "flag": ["BOOL"],
        "tokenizer.ggml.tokens": ["ARRAY", "STRING"],
        "tokenizer.ggml.scores": ["ARRAY", "FLOAT32"],
        "tokenizer.ggml.token_type": ["ARRAY", "INT32"],
        "wide": ["ARRAY", "INT64"],
        "flags": ["ARRAY", "BOOL"],
    }


@pytest.mark.parametrize(
    ("metadata", "error", "text"),
    [
        ("a", TypeError, "metadata must be a mapping, got str: 'a'"),
        ({1: 2}, TypeError, "A key of metadata must be a str, got int: 1"),
        (
            {"general.architecture": "llama"},
            ValueError,
            "metadata has the key 'general.architecture': give it as architecture",
        ),
        (
            {"general.alignment": 64},
            ValueError,
            "metadata has the key 'general.alignment': it is always 32",
        ),
        ({"a": 2**64}, ValueError, "metadata 'a': 18446744073709551616 is beyond 64 bits"),
        ({"a": [2**63]}, ValueError, "metadata 'a': a list of ints holds no more than 63 bits"),
        ({"a": []}, ValueError, "metadata 'a' is an empty list"),
        ({"a": [1, 2.0]}, TypeError, "metadata 'a' is a list of more than one type"),
        (
            {"a": None},
            TypeError,
            "metadata 'a' must be a bool, int, float, str or a list of one of these, "
            "got NoneType: None",
        ),
    ],
)
def test_wrong_metadata(tmp_path: Path, metadata: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        write_gguf(quantized(), tmp_path / "out.gguf", metadata=metadata)
    assert str(caught.value) == text
    assert files(tmp_path) == {}


def test_streams_give_the_same_file(tmp_path: Path) -> None:
    table = plain(["a", "b"], [weights(1, 5, 128), weights(2, 3, 64)])
    options = {"bit_width": 5, **FITTING}
    write_gguf(quantize_batch_arrow(table, **options), tmp_path / "table.gguf")
    stream = quantize_stream(table.to_reader(max_chunksize=1), **options)
    write_gguf(stream, tmp_path / "stream.gguf")
    assert (tmp_path / "table.gguf").read_bytes() == (tmp_path / "stream.gguf").read_bytes()


@pytest.mark.parametrize(
    ("array", "options", "problem"),
    [
        (weights(1, 2, 64), {"group_size": 64}, "group_size 64"),
        (weights(1, 2, 64), {"group_size": -1}, "group_size -1"),
        (weights(1, 2, 48), {}, "48 columns are no multiple of 32"),
        (weights(1, 2, 64), {"bit_width": 2}, "2 bits"),
        (weights(1, 2, 64), {"bit_width": 3, "zero_point": "symmetric"}, "3 bits"),
        (weights(1, 2, 64), {"bit_width": 6}, "6 bits"),
        (weights(1, 2, 64), {"bit_width": 8}, "8 bits with integer zero-points"),
        (
            weights(1, 2, 64),
            {"bit_width": 8, "zero_point": "float"},
            "8 bits with float zero-points",
        ),
        (
            weights(1, 2, 64) / 3,
            {"scale_dtype": "float32"},
            'its scales are not float16: quantize with scale_dtype="float16"',
        ),
        (
            np.float32([[60000 + i for i in range(32)]]) * 2,
            {"zero_point": "float"},
            "-zero_point * scale is beyond float16",
        ),
        (
            np.ones((2, 2, 2, 32), np.float32),
            {},
            "shape [2, 2, 2, 32] is not that of a matrix, nor of a stack of them",
        ),
        (np.ones(64, np.float32), {}, "shape [64] is not that of a matrix, nor of a stack of them"),
        (np.ones((4, 0), np.float32), {}, "shape [4, 0] has no weights"),
    ],
)
def test_refusals(tmp_path: Path, array: np.ndarray, options: dict[str, Any], problem: str) -> None:
    result = pa.concat_tables(
        [
            quantized(weights(1, 2, 64), names=["0"], **FITTING),
            quantized(array, names=["x"], **{**FITTING, **options}),
        ]
    )
    text = f"GGUF cannot hold layer 'x': {problem}\n{HOLDS}"
    for source in (result, failing_stream(result, AssertionError("is not reached"))):
        with pytest.raises(ValueError, match="GGUF cannot hold") as caught:
            write_gguf(source, tmp_path / "out.gguf")
        assert str(caught.value) == text
        assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (
            np.zeros((1, 1, 1, 1, 2), np.float32),
            "shape [1, 1, 1, 1, 2] has more than four dimensions, the most in GGUF",
        ),
        (np.zeros((3, 0), np.float32), "shape [3, 0] has no weights"),
    ],
)
def test_kept_layers_that_do_not_fit(tmp_path: Path, array: np.ndarray, text: str) -> None:
    kept = kept_table({"x": array})
    for source in (kept, kept.to_reader()):
        with pytest.raises(ValueError, match="cannot be kept") as caught:
            write_gguf(quantized(), tmp_path / "out.gguf", unquantized=source)
        assert str(caught.value) == f"Layer 'x' cannot be kept: {text}"
        assert files(tmp_path) == {}


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_failing_streams_leave_nothing(tmp_path: Path, error: BaseException) -> None:
    result = quantized(*[weights(1, 2, 64)] * 3, **FITTING)
    with pytest.raises((OSError, KeyboardInterrupt)):
        write_gguf(failing_stream(result, error), tmp_path / "out.gguf")
    with pytest.raises((OSError, KeyboardInterrupt)):
        write_gguf(result, tmp_path / "out.gguf", unquantized=failing_stream(kept_table(), error))
    assert files(tmp_path) == {}


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
    with pytest.raises(OSError, match="No space"):
        write_gguf(quantized(weights(1, 2, 64), **FITTING), tmp_path / "out.gguf")
    assert files(tmp_path) == {}


def test_existing_files_are_not_replaced_unasked(tmp_path: Path) -> None:
    first, second = (quantized(weights(i, 2, 64), **FITTING) for i in (1, 2))
    path = tmp_path / "out.gguf"
    write_gguf(first, path)
    before = files(tmp_path)
    assert list(before) == ["out.gguf"]
    with pytest.raises(FileExistsError, match=r"out.gguf' exists. Use overwrite=True to replace"):
        write_gguf(second, path)
    with pytest.raises(OSError, match="the disk is gone"):
        write_gguf(failing_stream(second, OSError("the disk is gone")), path, overwrite=True)
    assert files(tmp_path) == before
    write_gguf(second, path, overwrite=True)
    assert list(files(tmp_path)) == ["out.gguf"]
    scale = np.float16(second["scales"][0][0].as_py())
    assert read(path)[0]["a.weight"].data.tobytes()[:2] == scale.tobytes()
    with pytest.raises(UsageError, match="is a folder; give the name of a file"):
        write_gguf(second, tmp_path, overwrite=True)


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    result = quantized(weights(1, 2, 64), **FITTING)

    def batches() -> Any:
        yield from result.to_batches()
        (tmp_path / "out.gguf").write_text("other")

    stream = pa.RecordBatchReader.from_batches(result.schema, batches())
    with pytest.raises(FileExistsError):
        write_gguf(stream, tmp_path / "out.gguf")
    assert files(tmp_path) == {"out.gguf": b"other"}


def test_names_come_once(tmp_path: Path) -> None:
    result = quantized(weights(1, 2, 64), **FITTING)
    kept = kept_table({"a.weight": np.zeros(1, np.float32)})
    with pytest.raises(ValueError, match=r"Two tensors of the file would be named 'a.weight'"):
        write_gguf(result, tmp_path / "out.gguf", unquantized=kept)
    assert files(tmp_path) == {}


def test_wrong_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="architecture must be a str, got NoneType"):
        write_gguf(quantized(), tmp_path / "out.gguf", architecture=None)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        write_gguf(quantized(weights(1, 2, 64), **FITTING), tmp_path / "no" / "out.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    text = r"^Writing GGUF needs gguf: pip install 'pyarrowquant\[gguf\]'$"
    with pytest.raises(ImportError, match=text):
        write_gguf(quantized(), tmp_path / "out.gguf")
    assert files(tmp_path) == {}
