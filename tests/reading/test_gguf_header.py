"""Headers of GGUF files, compared with gguf's own reader, and what is wrong with them."""

from __future__ import annotations

import re
import struct
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from pyarrowquant import read_weights
from pyarrowquant.reading.gguf import open_header
from pyarrowquant.reading.gguf_header import Header
from pyarrowquant.reading.location import locate

TYPES = gguf.GGUFValueType
# Values of every type of the format, their bounds among them.
SCALARS: dict[Any, list[Any]] = {
    TYPES.UINT8: [0, 255],
    TYPES.INT8: [-128, 127],
    TYPES.UINT16: [1, 65535],
    TYPES.INT16: [-32768, 32767],
    TYPES.UINT32: [2, 2**32 - 1],
    TYPES.INT32: [-(2**31), 2**31 - 1],
    TYPES.UINT64: [3, 2**64 - 1],
    TYPES.INT64: [-(2**63), 2**63 - 1],
    TYPES.FLOAT32: [0.5, float(np.float32(1 / 3))],
    TYPES.FLOAT64: [-0.0, 1 / 3],
    TYPES.BOOL: [True, False],
    TYPES.STRING: ["", "zwölf\n\0"],
}


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def key(name: bytes, type_: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", type_) + value


def tensor(name: bytes, shape: list[int], type_: int = 0, offset: int = 0) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(name) + dimensions + struct.pack("<IQ", type_, offset)


def file_of(
    keys: list[bytes],
    tensors: list[bytes],
    data: int = 64,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A file, with its counts or others, and zeros as the data."""
    tensor_count, key_count = counts or (len(tensors), len(keys))
    start = b"GGUF" + struct.pack("<IQQ", version, tensor_count, key_count)
    head = start + b"".join([*keys, *tensors])
    return head + bytes(-len(head) % 32 + data)


def saved(path: Path, version: int = 3) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for type_, values in SCALARS.items():
        for i, value in enumerate(values):
            writer.add_key_value(f"{type_.name}.{i}", value, type_)
        writer.add_key_value(f"{type_.name}.list", values, TYPES.ARRAY, type_)
    writer.add_custom_alignment(128)
    for name, (block, block_bytes) in zip(
        map(str, gguf.GGML_QUANT_SIZES), gguf.GGML_QUANT_SIZES.values(), strict=True
    ):
        type_ = gguf.GGMLQuantizationType(int(name))
        size = 2 * block * 3 // block * block_bytes
        writer.add_tensor_info(type_.name, (3, 2 * block), np.dtype(np.float32), size, type_)
    writer.add_tensor_info("scalar", (1,), np.dtype(np.float32), 4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    data = bytearray(path.read_bytes())
    data[4:8] = version.to_bytes(4, "little")
    path.write_bytes(bytes(data) + bytes(1 << 16))
    return path


def header_of(path: Path) -> Header:
    return open_header(locate(path, None))


@pytest.mark.parametrize("version", [2, 3])
def test_all_that_the_reader_of_gguf_reads(tmp_path: Path, version: int) -> None:
    path = saved(tmp_path / "m.gguf", version)
    reader, header = gguf.GGUFReader(path), header_of(path)
    fields = {name: f for name, f in reader.fields.items() if not name.startswith("GGUF.")}
    assert list(header.values) == list(fields)
    assert len(fields) == 3 * len(SCALARS) + 2
    for name, field in fields.items():
        value = header.values[name]
        is_list = field.types[0] == TYPES.ARRAY
        assert (value.count is not None, value.type) == (is_list, field.types[-1])
        found, expected = header.value(name), field.contents()
        assert repr(found) == repr(expected)  # of equal types, and -0.0 is not 0.0
    assert len(header.tensors) == len(gguf.GGML_QUANT_SIZES) + 1
    for found, tensor in zip(header.tensors, reader.tensors, strict=True):
        assert found.name == tensor.name
        assert found.dtype == tensor.tensor_type.name
        assert found.shape == tuple(reversed(tensor.shape.tolist()))
        assert (found.begin, found.end - found.begin) == (tensor.data_offset, tensor.n_bytes)


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    assert header_of(saved(tmp_path / "m.gguf")).value("none") is None


UNREADABLE = "no GGUF file that can be read: "
ONE = tensor(b"a", [4])
ALIGNMENT = b"general.alignment"
# What is wrong, the file, and the whole error.
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", f"{UNREADABLE}its magic ends beyond its end"),
    "magic": (b"GGUX" + bytes(99), f"{UNREADABLE}it does not begin with GGUF"),
    "version": (file_of([], [], version=1), f"{UNREADABLE}its version is 1, known are 2 and 3"),
    "big-endian": (
        file_of([], [], version=3 << 24),
        "the file is big-endian, only little-endian ones are read",
    ),
    "counts": (b"GGUF\3\0\0\0", f"{UNREADABLE}its counts ends beyond its end"),
    "many keys": (
        file_of([], [], counts=(0, 2**64 - 1)),
        f"{UNREADABLE}it has {2**64 - 1} keys of 13 bytes and more, 72 bytes are left",
    ),
    "many tensors": (
        file_of([], [], counts=(2**63, 0)),
        f"{UNREADABLE}it has {2**63} tensors of 24 bytes and more, 72 bytes are left",
    ),
    "long key": (
        file_of([struct.pack("<Q", 2**64 - 1) + bytes(8)], []),
        f"{UNREADABLE}a key ends beyond its end",
    ),
    "a key that is no text": (
        file_of([key(b"\xff", 0, b"\0")], []),
        f"{UNREADABLE}a key is not UTF-8: 'utf-8' codec can't decode byte 0xff in position 0: "
        "invalid start byte",
    ),
    "a key twice": (
        file_of([key(b"k", 0, b"\0"), key(b"k", 0, b"\0")], []),
        f"{UNREADABLE}the key 'k' is there twice",
    ),
    "value type": (
        file_of([key(b"k", 13, bytes(8))], []),
        f"{UNREADABLE}key 'k' has the value type 13, the last known is 12",
    ),
    "array of arrays": (
        file_of([key(b"k", 9, struct.pack("<IQ", 9, 1) + bytes(20))], []),
        f"{UNREADABLE}key 'k' is an array of arrays, which ggml does not read either",
    ),
    "long array": (
        file_of([key(b"k", 9, struct.pack("<IQ", 10, 2**61))], [], 0),
        f"{UNREADABLE}key 'k' has {2**61} values of 8 bytes and more, 15 bytes are left",
    ),
    "long array of texts": (
        file_of([key(b"k", 9, struct.pack("<IQ", 8, 2**61))], [], 0),
        f"{UNREADABLE}key 'k' has {2**61} values of 8 bytes and more, 15 bytes are left",
    ),
    "long text": (
        file_of([key(b"k", 8, struct.pack("<Q", 2**63))], []),
        f"{UNREADABLE}a text of key 'k' ends beyond its end",
    ),
    "long text of an array": (
        file_of([key(b"k", 9, struct.pack("<IQQ", 8, 2, 2**63))], []),
        f"{UNREADABLE}a text of key 'k' ends beyond its end",
    ),
    "alignment of another type": (
        file_of([key(ALIGNMENT, 10, struct.pack("<Q", 32))], []),
        f"{UNREADABLE}general.alignment is no uint32",
    ),
    "alignment of 0": (
        file_of([key(ALIGNMENT, 4, bytes(4))], []),
        f"{UNREADABLE}general.alignment is 0, it must be a power of two",
    ),
    "alignment of 48": (
        file_of([key(ALIGNMENT, 4, struct.pack("<I", 48))], []),
        f"{UNREADABLE}general.alignment is 48, it must be a power of two",
    ),
    "a list of parts": (
        file_of([key(b"split.count", 9, struct.pack("<IQI", 4, 1, 2))], []),
        "split.count is [2], it must be a number up to 65535",
    ),
    "many dimensions": (
        file_of([], [string(b"a") + struct.pack("<I", 2**32 - 1)]),
        f"{UNREADABLE}the dimensions of tensor 'a' ends beyond its end",
    ),
    "65 dimensions": (
        file_of([], [tensor(b"a", [1] * 65)]),
        "tensor 'a' has 65 dimensions, the most allowed is 64",
    ),
    "huge shape": (
        file_of([], [tensor(b"a", [2**63 - 1] * 4)]),
        f"tensor 'a': shape [{2**63 - 1}, {2**63 - 1}, {2**63 - 1}, {2**63 - 1}] of F32 has 2^64 "
        "bits and more",
    ),
    "2^63 times 0": (
        file_of([], [tensor(b"a", [2**63, 0])]),
        f"tensor 'a' has shape [0, {2**63}], beyond 0 to 2^63-1",
    ),
    "tensor type": (
        file_of([], [tensor(b"a", [4], 4)]),
        "tensor 'a' has type 4, which gguf does not know",
    ),
    "columns": (
        file_of([], [tensor(b"a", [31, 32], 8)]),
        "tensor 'a': shape [32, 31] of Q8_0 has columns that are no multiple of 32",
    ),
    "beyond the file": (
        file_of([], [tensor(b"a", [17])]),
        "tensor 'a' lies beyond the file: it ends at 132, the file has 128 bytes",
    ),
    "offset of 2^64-1": (
        file_of([], [tensor(b"a", [1], 0, 2**64 - 1)]),
        f"tensor 'a' lies beyond the file: it ends at {2**64 + 67}, the file has 128 bytes",
    ),
    "a tensor twice": (
        file_of([], [ONE, tensor(b"a", [4], 0, 32)]),
        "tensor 'a' is there twice",
    ),
    "overlap": (
        file_of([], [ONE, tensor(b"b", [4], 0, 12)]),
        "tensor 'b' begins at 108 of the file, within tensor 'a', which ends at 112",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path: Path, name: str) -> None:
    data, message = BROKEN[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {message}')}$"):
        read_weights(path)


def test_a_value_that_is_no_text(tmp_path: Path) -> None:
    """Which is found only where it is asked for."""
    path = tmp_path / "m.gguf"
    path.write_bytes(file_of([key(b"k", 8, string(b"\xff"))], [ONE]))
    assert read_weights(path).read_all().num_rows == 1
    with pytest.raises(ValueError, match=r"m\.gguf: the value of key 'k' is not UTF-8: "):
        header_of(path).value("k")


def test_a_vocabulary_is_read_faster_than_gguf_does(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    texts = b"".join(string(b"token%d" % i) for i in range(100_000))
    path.write_bytes(file_of([key(b"k", 9, struct.pack("<IQ", 8, 100_000) + texts)], [ONE]))
    begin = time.process_time()
    header = header_of(path)
    own = time.process_time() - begin
    begin = time.process_time()
    reader = gguf.GGUFReader(path)
    assert own < (time.process_time() - begin) / 2  # it is a tenth
    assert header.value("k") == reader.fields["k"].contents()
