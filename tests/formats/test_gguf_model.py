"""GGUF models as sources, and with their tensors quantized; read back by gguf itself."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pyarrow as pa
import pytest
from conftest import OnlyStream
from exports import decoded, failing_stream, files
from gguf_models import arrays, saved

from pyarrowquant import Recipe, Rule, convert, quantize_batch_arrow, read_weights
from pyarrowquant.formats import write_gguf

FITTING: dict[str, Any] = {
    "group_size": 32,
    "scale_dtype": "float16",
    "zero_point": "symmetric",
    "recipe": Recipe([Rule("*norm*", skip=True), Rule("small*", skip=True)]),
}


def metadata_of(reader: gguf.GGUFReader) -> dict[str, Any]:
    return {
        key: (field.contents(), field.types)
        for key, field in reader.fields.items()
        if not key.startswith("GGUF.")
    }


def test_the_tensors_of_a_model(tmp_path: Path) -> None:
    table = read_weights(saved(tmp_path / "m.gguf")).read_all()
    type_ = gguf.GGMLQuantizationType.Q8_0
    blocks = gguf.quants.quantize(np.ones((4, 32), np.float32), type_)
    expected = {**arrays(), "quantized.weight": gguf.quants.dequantize(blocks, type_)}
    assert table["layer_name"].to_pylist() == list(expected)
    for row in table.to_pylist():
        array = expected[row["layer_name"]]
        assert row["weights"] == array.tobytes()
        assert tuple(row["shape"]) == array.shape
    assert table["dtype"].to_pylist() == ["F16", "F32", "F32", "F32", "BF16", "F32"]
    assert read_weights(tmp_path / "m.gguf", only_floats=False).read_all() == table


@pytest.mark.parametrize(
    ("bits", "zero_point", "type_name", "file_type"),
    [
        (4, "symmetric", "Q4_0", 2),
        (4, "float", "Q4_1", 3),
        (5, "symmetric", "Q5_0", 8),
        (5, "integer", "Q5_1", 9),
        (8, "symmetric", "Q8_0", 7),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_with_quantized_tensors(
    tmp_path: Path, bits: int, zero_point: str, type_name: str, file_type: int, stream: bool
) -> None:
    source = saved(tmp_path / "m.gguf")
    before = source.read_bytes()
    result = quantize_batch_arrow(
        read_weights(source), bits, **{**FITTING, "zero_point": zero_point}
    )
    write_gguf(OnlyStream(result) if stream else result, tmp_path / "q.gguf", model=source)
    old, new = gguf.GGUFReader(source), gguf.GGUFReader(tmp_path / "q.gguf")
    was, now = metadata_of(old), metadata_of(new)
    assert now.pop("general.file_type")[0] == file_type
    assert now.pop("general.quantization_version")[0] == gguf.GGML_QUANT_VERSION
    del was["general.file_type"]
    assert now == was
    assert [tensor.name for tensor in new.tensors] == [tensor.name for tensor in old.tensors]
    values = decoded(result)
    assert len(values) == 4
    for a, b in zip(old.tensors, new.tensors, strict=True):
        assert a.shape.tolist() == b.shape.tolist()
        if a.name not in values:
            assert b.tensor_type == a.tensor_type
            assert b.data.tobytes() == a.data.tobytes()
            continue
        assert b.tensor_type.name == type_name
        found = gguf.quants.dequantize(b.data, b.tensor_type)
        step = 0.0 if zero_point == "symmetric" else 0.02
        assert np.allclose(found, values[a.name], rtol=0, atol=step * np.abs(found).max())
    assert source.read_bytes() == before


def test_stored_values_are_exact(tmp_path: Path) -> None:
    source = saved(tmp_path / "m.gguf")
    result = quantize_batch_arrow(read_weights(source), 4, **FITTING)
    write_gguf(result, tmp_path / "q.gguf", model=source)
    for tensor in gguf.GGUFReader(tmp_path / "q.gguf").tensors:
        if tensor.name in decoded(result):
            found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            assert np.array_equal(found, decoded(result)[tensor.name])


def test_what_is_refused(tmp_path: Path) -> None:
    source = saved(tmp_path / "m.gguf")
    result = quantize_batch_arrow(read_weights(source), 4, **FITTING)
    other = saved(tmp_path / "other.gguf", {"blk.0.up.weight": np.ones((2, 64), np.float32)})
    before = files(tmp_path)
    with pytest.raises(ValueError, match=r"has no tensor 'blk.0.down.weight'") as raised:
        write_gguf(result, tmp_path / "q.gguf", model=other)
    assert "'blk.0.up.weight' has shape [24, 64], in the model" in str(raised.value)
    with pytest.raises(ValueError, match="is the source model"):
        write_gguf(result, source, model=source, overwrite=True)
    (tmp_path / "link.gguf").symlink_to(source)
    with pytest.raises(ValueError, match="is the source model"):
        write_gguf(result, tmp_path / "link.gguf", model=source, overwrite=True)
    (tmp_path / "link.gguf").unlink()
    with pytest.raises(ValueError, match="give only that"):
        write_gguf(result, tmp_path / "q.gguf", model=source, metadata={"a": 1})
    threes = quantize_batch_arrow(read_weights(source), 3, **FITTING)
    with pytest.raises(ValueError, match="3 bits"):
        write_gguf(threes, tmp_path / "q.gguf", model=source)
    with pytest.raises(FileExistsError):
        write_gguf(result, other, model=source)
    with pytest.raises(OSError, match="lost"):
        write_gguf(failing_stream(result, OSError("lost")), tmp_path / "q.gguf", model=source)
    assert files(tmp_path) == before


def test_remote_models_are_read(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/m.gguf", saved(tmp_path / "a.gguf").read_bytes())
    found = read_weights("/m.gguf", filesystem=memory).read_all()
    assert found == read_weights(tmp_path / "a.gguf").read_all()


def test_damaged_files_are_value_errors(tmp_path: Path) -> None:
    whole = saved(tmp_path / "m.gguf").read_bytes()
    path = tmp_path / "damaged.gguf"
    rng = np.random.default_rng(0)
    cuts = [whole[:n] for n in (0, 3, 8, 20, 60, len(whole) // 2, len(whole) - 1)]
    changed = []
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, 900, 3):
            data[at] = rng.integers(256)
        changed.append(bytes(data))
    said = []
    for data in cuts + changed:
        path.write_bytes(data)
        try:
            read_weights(path).read_all()
        except ValueError as error:
            said.append(str(error))
    assert len(said) > len(cuts)
    assert all(text.startswith(f"{path}") for text in said), said


def test_without_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(tmp_path / "m.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r"Reading GGUF needs gguf: pip install .*\[gguf\]"):
        read_weights(source)


def test_an_empty_result_copies_the_model(tmp_path: Path) -> None:
    source = saved(tmp_path / "m.gguf")
    result = quantize_batch_arrow(read_weights(source), 4, **FITTING)
    assert isinstance(result, pa.Table)
    write_gguf(result.slice(0, 0), tmp_path / "q.gguf", model=source)
    old, new = gguf.GGUFReader(source), gguf.GGUFReader(tmp_path / "q.gguf")
    for a, b in zip(old.tensors, new.tensors, strict=True):
        assert a.data.tobytes() == b.data.tobytes()


def test_keys_are_taken_over_byte_for_byte(tmp_path: Path) -> None:
    """Tokens of some models are parts of characters, and arrays may be empty."""
    source = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(source, "llama")
    types = gguf.GGUFValueType
    tokens = [b"\xe3\x81", b"a"]
    writer.add_key_value("tokenizer.ggml.tokens", tokens, types.ARRAY, types.STRING)
    writer.add_key_value("general.tags", ["x"], types.ARRAY, types.STRING)
    writer.add_tensor("blk.0.ffn_up.weight", np.ones((4, 256), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    convert(source, tmp_path / "q.gguf")
    field = gguf.GGUFReader(tmp_path / "q.gguf").fields["tokenizer.ggml.tokens"]
    assert [bytes(field.parts[part]) for part in field.data] == tokens
    # gguf writes no empty array, so one is made: of the length 1 and "x".
    whole = source.read_bytes()
    one = struct.pack("<IIQQ", 9, 8, 1, 1) + b"x"
    none = struct.pack("<IIQ", 9, 8, 0)
    start = whole.index(one)
    rest = whole[start + len(one) :]
    (tmp_path / "e.gguf").write_bytes(_padded(whole, start, none, rest))
    convert(tmp_path / "e.gguf", tmp_path / "r.gguf")
    assert none in (tmp_path / "r.gguf").read_bytes()


@pytest.mark.parametrize("split", [None, 1200])
@pytest.mark.parametrize(("said", "expected"), [(256, 256), (32, 32), (1, 32), (8, 32)])
def test_the_alignment_stays_if_llama_cpp_maps_such_files(
    tmp_path: Path, split: int | None, said: int, expected: int
) -> None:
    rng = np.random.default_rng(0)
    source = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(source, "llama")
    writer.add_custom_alignment(said)
    for i in range(3):
        writer.add_tensor(f"blk.{i}.ffn_up.weight", rng.normal(size=(3, 256)).astype("f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    convert(source, tmp_path / "q.gguf", recipe="Q4_0", split=split)
    files = sorted(tmp_path.glob("q*.gguf"))
    assert (len(files) > 1) == (split is not None)
    for file in files:
        reader = gguf.GGUFReader(file)
        assert reader.alignment == expected
        assert all(tensor.data_offset % expected == 0 for tensor in reader.tensors)
        assert file.stat().st_size % expected == 0


def _padded(whole: bytes, start: int, none: bytes, rest: bytes) -> bytes:
    """Put the array in, and the data of the tensor at its end to the next multiple of 32."""
    data = rest[-4 * 4 * 256 :]
    header = (whole[:start] + none + rest[: -len(data)]).rstrip(b"\0")
    header += b"\0" * (7 + 4 + 8)  # after the 4 rows: the type F32 and the offset 0
    return header + b"\0" * (-len(header) % 32) + data
