"""Model files as streams of layers: every kind of file, and what is wrong with files."""

from __future__ import annotations

import io
import itertools
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from child import run_child
from conftest import assert_same, plain_layers
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs
from safetensors.numpy import save, save_file

from pyarrowquant import (
    QuantizationError,
    Recipe,
    Rule,
    numpy_to_arrow_table,
    quantize_batch_arrow,
    quantize_stream,
    read_weights,
)

pytestmark = pytest.mark.usefixtures("nothing_leaked")

SCHEMA = pa.schema(
    [
        ("layer_name", pa.string()),
        ("weights", pa.large_binary()),
        ("shape", pa.list_(pa.int64())),
        ("dtype", pa.string()),
    ]
)

Arrays = dict[str, np.ndarray]


def make_model() -> Arrays:
    """Float layers of every dtype that can be quantized, and a tensor of position ids."""
    rng = np.random.default_rng(3)
    return {
        "ids": np.arange(10, dtype=np.int64),
        "w.f32": rng.standard_normal((6, 40), dtype=np.float32),
        "w.f16": rng.standard_normal((4, 3, 8)).astype(np.float16),
        "w.bf16": rng.standard_normal((5, 16)).astype(ml_dtypes.bfloat16),
        "bias": rng.standard_normal(7, dtype=np.float32),
        "scale": np.asarray(1.5, np.float32),
    }


def floats(model: Mapping[str, np.ndarray]) -> Arrays:
    return {name: array for name, array in model.items() if array.dtype.kind in "fV"}


def expected(model: Mapping[str, np.ndarray], **options: Any) -> pa.Table:
    """The result for the arrays themselves, sorted by name."""
    return quantize_batch_arrow(numpy_to_arrow_table(dict(model)), **options)


def assert_reads(reader: pa.RecordBatchReader, model: Mapping[str, np.ndarray]) -> None:
    """The stream has these layers, and they quantize to the bytes of the arrays."""
    batches = list(reader)
    streamed = pa.RecordBatchReader.from_batches(reader.schema, batches)
    result = quantize_stream(streamed, metrics=True).read_all()
    wanted = expected(model, metrics=True)
    assert_same(result.sort_by("layer_name"), wanted)
    assert_same(quantize_batch_arrow(pa.Table.from_batches(batches), metrics=True), wanted)


def write_shards(folder: Path, shards: Mapping[str, Arrays], **more: str) -> Path:
    """Write shards and their index; `more` has what the index says else."""
    weight_map = {tensor: name for name, arrays in shards.items() for tensor in arrays}
    for name, arrays in shards.items():
        save_file(arrays, folder / name)
    index = {"metadata": {"total_size": 1}, "weight_map": {**weight_map, **more}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def model() -> Arrays:
    return make_model()


@pytest.fixture
def model_file(tmp_path: Path, model: Arrays) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(model, path, metadata={"format": "np"})
    return path


# Safetensors


@pytest.mark.parametrize("batch_bytes", [1, 200, 600, 256 << 20])
def test_safetensors_quantize_as_the_arrays(
    model_file: Path, model: Arrays, batch_bytes: int
) -> None:
    reader = read_weights(model_file, batch_bytes=batch_bytes)
    assert reader.schema == SCHEMA
    assert_reads(reader, floats(model))


@pytest.mark.parametrize("batch_bytes", [1, 200, 600, 256 << 20])
def test_batches_are_as_large_as_they_may_be(model_file: Path, batch_bytes: int) -> None:
    sizes = [
        [len(weights.as_buffer()) for weights in batch["weights"]]
        for batch in read_weights(model_file, batch_bytes=batch_bytes)
    ]
    assert all(sum(batch) <= batch_bytes or len(batch) == 1 for batch in sizes)
    for batch, following in itertools.pairwise(sizes):
        assert sum(batch) + following[0] > batch_bytes


def test_layers_come_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    header = {
        "last": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]},
        "first": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    }
    text = json.dumps(header).encode()
    data = np.array([1, 2, 3], "<f4").tobytes()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    table = read_weights(path).read_all()
    assert table["layer_name"].to_pylist() == ["first", "last"]
    assert table["weights"].to_pylist() == [data[:8], data[8:]]
    assert table["shape"].to_pylist() == [[2], [1]]


def mappings_of(path: Path) -> list[range]:
    """Addresses at which this process has a file mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = [line.split()[0].split("-") for line in lines if line.endswith(str(path))]
    return [range(int(begin, 16), int(end, 16)) for begin, end in found]


@pytest.mark.parametrize("suffix", [".safetensors", ".arrow"])
def test_weights_are_the_mapped_file(tmp_path: Path, suffix: str) -> None:
    layers = {name: np.full((64, 1024), i, np.float32) for i, name in enumerate("abc")}
    path = tmp_path / f"model{suffix}"
    if suffix == ".arrow":
        table = numpy_to_arrow_table(layers)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    else:
        save_file(layers, path)
    assert not mappings_of(path)
    batches = list(read_weights(path, batch_bytes=300_000))
    assert len(batches) == 3
    mapped = mappings_of(path)
    for batch in batches:
        data = batch["weights"].buffers()[-1]
        assert data.size >= 64 * 1024 * 4
        assert any(data.address in at and data.address + data.size <= at.stop for at in mapped)
    result = quantize_batch_arrow(pa.Table.from_batches(batches))
    assert_same(result, expected(layers))
    del batches, batch, data, result
    assert not mappings_of(path)


def test_layers_outlive_their_reader_and_file(model_file: Path, model: Arrays) -> None:
    reader = read_weights(model_file, batch_bytes=1)
    batch = next(batch for batch in reader if batch["layer_name"][0].as_py() == "w.f32")
    del reader
    model_file.unlink()
    assert batch["weights"][0].as_py() == model["w.f32"].tobytes()


def test_tensors_that_cannot_be_quantized(tmp_path: Path, model: Arrays) -> None:
    model = {**model, "double": np.ones(3), "flags": np.array([True, False])}
    path = tmp_path / "model.safetensors"
    save_file(model, path)
    assert_reads(read_weights(path), floats(make_model()))
    table = read_weights(path, only_floats=False).read_all()
    dtypes = dict(zip(table["layer_name"].to_pylist(), table["dtype"].to_pylist(), strict=True))
    assert dtypes == {
        "ids": "I64",
        "w.f32": "F32",
        "w.f16": "F16",
        "w.bf16": "BF16",
        "bias": "F32",
        "scale": "F32",
        "double": "F64",
        "flags": "BOOL",
    }
    kept = dict(zip(table["layer_name"].to_pylist(), table["weights"].to_pylist(), strict=True))
    assert kept == {name: array.tobytes() for name, array in model.items()}

    with pytest.raises(QuantizationError) as raised:
        quantize_batch_arrow(table)
    assert {error.layer_name for error in raised.value.errors} == {"ids", "double", "flags"}
    recipe = Recipe([Rule(["ids", "double", "flags"], skip=True)])
    result = quantize_stream(read_weights(path, only_floats=False), recipe=recipe).read_all()
    wanted = expected(floats(make_model()), recipe=recipe)
    assert_same(result.sort_by("layer_name"), wanted)


def test_tensors_left_out_in_between_part_batches(tmp_path: Path) -> None:
    dtypes = ["F32", "U8", "F32", "F32", "U8"]
    header = {
        f"t{i}": {
            "dtype": dtype,
            "shape": [4 if dtype == "U8" else 1],
            "data_offsets": [4 * i, 4 * i + 4],
        }
        for i, dtype in enumerate(dtypes)
    }
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + np.arange(5, dtype="<f4").tobytes())
    batches = [batch.to_pydict() for batch in read_weights(path)]
    assert [batch["layer_name"] for batch in batches] == [["t0"], ["t2", "t3"]]
    assert np.frombuffer(b"".join(batches[1]["weights"]), "<f4").tolist() == [2, 3]


def test_nothing_to_quantize_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": np.ones(2), "b": np.arange(3)}, path)
    message = (
        f"{path}: none of the 2 tensors can be quantized, their dtypes are F64, I64. Convert them "
        "to F32, F16 or BF16, or read them with only_floats=False"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_weights(path)
    assert read_weights(path, only_floats=False).read_all().num_rows == 2


def test_file_without_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({}, path)
    assert read_weights(path).read_all() == SCHEMA.empty_table()


def test_empty_layers(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": np.empty((0, 4), np.float32), "b": np.empty(0, np.float32)}, path)
    table = read_weights(path).read_all()
    assert sorted(table["shape"].to_pylist()) == [[0], [0, 4]]
    assert table["weights"].to_pylist() == [b"", b""]


def test_file_that_changes_after_its_header_was_read(model_file: Path) -> None:
    reader = read_weights(model_file)
    size = model_file.stat().st_size
    with model_file.open("ab") as file:
        file.write(b"more")
    message = f"had {size} bytes when its header was read, now it has {size + 4}"
    with pytest.raises(ValueError, match=message):
        reader.read_all()


# Folders


@pytest.fixture
def shards(model: Arrays) -> dict[str, Arrays]:
    names = list(model)
    return {
        "model-00001-of-00002.safetensors": {name: model[name] for name in names[3:]},
        "model-00002-of-00002.safetensors": {name: model[name] for name in names[:3]},
    }


def test_index_and_its_shards(tmp_path: Path, shards: Any, model: Arrays) -> None:
    write_shards(tmp_path, shards)
    save_file({"other": np.ones(2, np.float32)}, tmp_path / "adapter.safetensors")
    assert_reads(read_weights(tmp_path), floats(model))
    assert_reads(read_weights(str(tmp_path) + "/", batch_bytes=1), floats(model))
    assert_reads(read_weights(tmp_path / "model.safetensors.index.json"), floats(model))
    layers = read_weights(tmp_path, only_floats=False).read_all()["layer_name"].to_pylist()
    first, second = shards.values()
    assert set(layers[: len(first)]) == set(first)
    assert set(layers[len(first) :]) == set(second)


def test_index_of_another_name(tmp_path: Path, shards: Any, model: Arrays) -> None:
    write_shards(tmp_path, shards)
    index = tmp_path / "model.safetensors.index.json"
    index.rename(tmp_path / "diffusion_pytorch_model.safetensors.index.json")
    assert_reads(read_weights(tmp_path), floats(model))
    (tmp_path / "x.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"several models: diff\S*, x\.safetensors\.index\.json"):
        read_weights(tmp_path)


def test_folder_with_one_file(model_file: Path, model: Arrays) -> None:
    save_file({"other": np.ones(2, np.float32)}, model_file.with_name("adapter.safetensors"))
    assert_reads(read_weights(model_file.parent), floats(model))


def test_folder_without_index(tmp_path: Path, shards: Any, model: Arrays) -> None:
    for name, arrays in shards.items():
        save_file(arrays, tmp_path / name)
    assert_reads(read_weights(tmp_path), floats(model))
    save_file({"bias": model["bias"]}, tmp_path / "z.safetensors")
    one, other = next(iter(shards)), "z.safetensors"
    message = f"tensor 'bias' is in '{one}' and in '{other}'"
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path)


def test_index_that_its_shards_contradict(tmp_path: Path, shards: Any, model: Arrays) -> None:
    first, second = shards
    index = tmp_path / "model.safetensors.index.json"

    def problem(**more: str) -> str:
        write_shards(tmp_path, shards, **more)
        with pytest.raises((ValueError, FileNotFoundError)) as raised:
            read_weights(tmp_path)
        prefix, _, message = str(raised.value).partition(": ")
        assert prefix == str(index)
        return message

    assert problem(x="gone.safetensors") == "the shard 'gone.safetensors' is missing"
    assert problem(x=first) == f"tensor 'x' is missing from '{first}'"
    assert problem(bias=second) == (f"tensor 'bias' should be in '{second}', it is in '{first}'")
    shards[second]["bias"] = model["bias"]
    assert problem() == f"tensor 'bias' is in '{first}' and in '{second}'"
    del shards[second]["bias"]
    write_shards(tmp_path, shards)
    save_file({**shards[second], "extra": model["bias"]}, tmp_path / second)
    with pytest.raises(ValueError, match=f"tensor 'extra' of '{second}' is not in the index"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must be a JSON object, it is []"),
        ("{", "is not valid JSON: "),
        ("{}", "weight_map must be an object, it is None"),
        ('{"weight_map": {"a": 1}}', "must be the name of a file in the same folder, it is 1"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "it is '../x.safetensors'"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "it is '/etc/passwd'"),
        ('{"weight_map": {"a": ".."}}', "it is '..'"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "the key 'a' is there twice"),
    ],
)
def test_hostile_index(tmp_path: Path, text: str, message: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        read_weights(tmp_path)
    assert str(raised.value).startswith(str(index))


# Parquet and Arrow


def write_table(table: pa.Table, path: Path) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=4)
    elif path.suffix == ".feather":
        pa.feather.write_feather(table, str(path), compression="lz4")
    else:
        kind = pa.ipc.new_file if path.suffix == ".arrow" else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as file, kind(file, table.schema) as writer:
            writer.write_table(table)


TABLE_FILES = ["a.parquet", "a.arrow", "a.ipc", "a.feather", "A.PARQUET"]


@pytest.mark.parametrize("name", TABLE_FILES)
@pytest.mark.parametrize("batch_bytes", [1, 300, 256 << 20])
@pytest.mark.parametrize("make", [numpy_to_arrow_table, plain_layers], ids=["raw", "lists"])
def test_tables_are_passed_on(tmp_path: Path, name: str, batch_bytes: int, make: Any) -> None:
    import pyarrow.feather  # noqa: F401

    model = floats(make_model())
    if make is plain_layers:
        model = {name: array.astype(np.float32) for name, array in model.items()}
    table = make(model)
    path = tmp_path / name.lower()
    write_table(table.append_column("note", pa.array(["x"] * table.num_rows)), path)
    path = path.rename(tmp_path / name)
    batches = list(read_weights(path, batch_bytes=batch_bytes))
    read = pa.Table.from_batches(batches)
    assert set(read.schema.names) == set(table.schema.names)
    assert_same(quantize_batch_arrow(read), expected(model))
    assert all(batch.num_rows == 1 or batch["weights"].nbytes <= batch_bytes for batch in batches)
    if batch_bytes == 1:
        assert len(batches) == table.num_rows


@pytest.mark.parametrize("name", TABLE_FILES[:4])
def test_rows_of_tables_that_cannot_be_quantized(
    tmp_path: Path, model_file: Path, name: str, model: Arrays
) -> None:
    path = tmp_path / name
    everything = read_weights(model_file, only_floats=False).read_all()
    write_table(everything, path)
    assert_reads(read_weights(path), floats(model))
    assert read_weights(path, only_floats=False).read_all() == everything


@pytest.mark.parametrize("name", TABLE_FILES[:4])
def test_table_without_the_columns(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_table(pa.table({"layer_name": ["a"], "values": [[1.0]]}), path)
    message = f"{path}: Missing required column 'weights'. Expected schema: "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        read_weights(path)


@pytest.mark.parametrize("name", [*TABLE_FILES[:4], "a.npz", "a.safetensors"])
@pytest.mark.parametrize("kept", [0, 5, 0.3, 0.6, 0.9])
def test_truncated_files(tmp_path: Path, name: str, kept: float) -> None:
    model = {name: np.ones((20, 30), np.float32) * i for i, name in enumerate("abc")}
    path = tmp_path / name
    if path.suffix == ".npz":
        np.savez(path, **model)
    elif path.suffix == ".safetensors":
        save_file(model, path)
    else:
        write_table(numpy_to_arrow_table(model), path)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}") as raised:
        read_weights(path).read_all()
    assert "\n" not in str(raised.value)


# npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("batch_bytes", [1, 300, 256 << 20])
def test_npz_quantizes_as_the_arrays(tmp_path: Path, save: Any, batch_bytes: int) -> None:
    model = make_model()
    del model["w.bf16"]
    path = tmp_path / "a.npz"
    save(path, **model)
    reader = read_weights(path, batch_bytes=batch_bytes)
    assert reader.schema == SCHEMA
    assert_reads(reader, floats(model))
    table = read_weights(path, batch_bytes=batch_bytes, only_floats=False).read_all()
    assert table["layer_name"].to_pylist() == list(model)
    assert table["weights"].to_pylist() == [array.tobytes() for array in model.values()]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((3, 2), np.float32).T, "is in Fortran order. Save it with np.ascontiguousarray()"),
        (np.array([None]), "holds Python objects, which are not read"),
        (np.ones(2, ml_dtypes.bfloat16), "has dtype '|V2', as numpy saves bfloat16"),
        (np.ones(2, ">f4"), "has dtype '>f4', big-endian. Save it with astype('<f4')"),
    ],
)
def test_npz_with_arrays_that_cannot_be_read(tmp_path: Path, array: Any, message: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, good=np.ones(2, np.float32), bad=array)
    with pytest.raises(ValueError, match=re.escape(f"{path}: array 'bad' {message}")):
        read_weights(path)


def test_npz_with_arrays_of_no_layer(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, good=np.ones(2, np.float32), words=np.array(["x"]))
    assert read_weights(path).read_all()["layer_name"].to_pylist() == ["good"]
    with pytest.raises(ValueError, match="array 'words' has dtype <U1, which no layer can have"):
        read_weights(path, only_floats=False)


def npy(shape: tuple[int, ...], data: bytes) -> bytes:
    """An array whose header may say what is not so."""
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.txt", b"x")], "'a.txt' is no .npy array"),
        ([("a.npy", npy((2,), bytes(8))), ("a.npy", npy((2,), bytes(8)))], "'a' is there twice"),
        ([("a.npy", npy((10**15,), bytes(8)))], "has 4000000000000000 bytes, the file has 8"),
        ([("a.npy", npy((2,), bytes(4)))], "has 8 bytes, the file has 4"),
        ([("a.npy", npy((-2,), bytes(4)))], "has shape [-2], beyond 0 to 2^63-1"),
        ([("a.npy", b"\x93NUMPY\x01\x00\xff\xff{")], "cannot be read"),
        ([("a.npy", b"")], "cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_npz(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        read_weights(path)
    assert str(raised.value).startswith(str(path))


def test_npz_whose_bytes_have_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.ones(100, np.float32))
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="array 'a' cannot be read: Bad CRC-32"):
        read_weights(path).read_all()


# Other filesystems


@pytest.fixture
def memory_model(model: Arrays, shards: Any) -> Any:
    memory = fsspec.filesystem("memory")
    memory.pipe("/hub/one.safetensors", save(model))
    memory.pipe("/hub/model/model-1.safetensors", save(shards[next(iter(shards))]))
    weight_map = dict.fromkeys(shards[next(iter(shards))], "model-1.safetensors")
    index = json.dumps({"weight_map": weight_map})
    memory.pipe("/hub/model/model.safetensors.index.json", index.encode())
    table = io.BytesIO()
    pq.write_table(numpy_to_arrow_table(floats(model)), table)
    memory.pipe("/hub/a.parquet", table.getvalue())
    arrow = io.BytesIO()
    plain = numpy_to_arrow_table(floats(model))
    with pa.ipc.new_stream(arrow, plain.schema) as writer:
        writer.write_table(plain)
    memory.pipe("/hub/a.arrow", arrow.getvalue())
    arrays = io.BytesIO()
    np.savez(arrays, bias=model["bias"])
    memory.pipe("/hub/a.npz", arrays.getvalue())
    yield memory
    memory.rm("/hub", recursive=True)


def test_fsspec_filesystem_and_uri(memory_model: Any, model: Arrays, shards: Any) -> None:
    some = floats(next(iter(shards.values())))
    for options in ({"filesystem": memory_model, "path": "/hub"}, {"path": "memory://hub"}):
        root = options.pop("path")
        assert_reads(read_weights(f"{root}/one.safetensors", **options), floats(model))
        one_by_one = read_weights(f"{root}/one.safetensors", batch_bytes=1, **options)
        assert_reads(one_by_one, floats(model))
        assert_reads(read_weights(f"{root}/model", **options), some)
        assert_reads(read_weights(f"{root}/a.parquet", **options), floats(model))
        assert_reads(read_weights(f"{root}/a.arrow", **options), floats(model))
        assert_reads(read_weights(f"{root}/a.npz", **options), {"bias": model["bias"]})
        with pytest.raises(FileNotFoundError, match=r"No such file or folder: '/hub/b\.npz'"):
            read_weights(f"{root}/b.npz", **options)


def test_pyarrow_filesystem_and_uri(model_file: Path, model: Arrays) -> None:
    folder = fs.SubTreeFileSystem(str(model_file.parent), fs.LocalFileSystem())
    assert_reads(read_weights("model.safetensors", filesystem=folder), floats(model))
    assert_reads(read_weights(model_file.as_uri()), floats(model))
    assert_reads(read_weights(model_file.parent.as_uri()), floats(model))


def test_local_filesystems_are_mapped(model_file: Path) -> None:
    for filesystem in (fs.LocalFileSystem(), fsspec.filesystem("file")):
        batch = read_weights(str(model_file), filesystem=filesystem).read_next_batch()
        address = batch["weights"].buffers()[-1].address
        assert any(address in mapping for mapping in mappings_of(model_file))


def test_remote_files_are_read_range_by_range(model_file: Path, model: Arrays) -> None:
    read: list[int] = []

    class CountedFile(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            data = super().read(size)
            read.append(len(data))
            return data

    class Counted(LocalFileSystem):
        protocol = "counted"

        def _open(self, path: str, *_: Any, **__: Any) -> Any:
            return CountedFile(path)

    filesystem = Counted()
    reader = read_weights(str(model_file), filesystem=filesystem, batch_bytes=1)
    header = model_file.stat().st_size - sum(array.nbytes for array in model.values())
    assert read == [8, header - 8]
    read.clear()
    sizes = [len(batch["weights"][0].as_buffer()) for batch in reader]
    assert read == sizes
    assert sorted(sizes) == sorted(array.nbytes for array in floats(model).values())


def test_without_fsspec(model_file: Path) -> None:
    run_child(f"""
        sys.modules["fsspec"] = None
        assert pyarrowquant.read_weights({str(model_file)!r}).read_all().num_rows == 5
        for call, error, message in [
            (lambda: pyarrowquant.read_weights("memory://a.npz"), ImportError,
             "'memory://a.npz' needs fsspec: pip install fsspec"),
            (lambda: pyarrowquant.read_weights("a.npz", filesystem=1), TypeError,
             "filesystem must be a pyarrow.fs.FileSystem or an fsspec filesystem, got int: 1"),
        ]:
            try:
                call()
            except error as raised:
                assert str(raised) == message, raised
            else:
                raise SystemExit("no error")
    """)


# Wrong arguments


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such file or folder: '.*gone\.safetensors'"):
        read_weights(tmp_path / "gone.safetensors")
    message = (
        f"{tmp_path} has no model: neither model.safetensors nor model.safetensors.index.json nor "
        "any *.safetensors"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        read_weights(tmp_path)
    path = tmp_path / "model.bin"
    path.write_bytes(b"")
    message = (
        f"{path}: unknown suffix. Known are .safetensors, .safetensors.index.json, .parquet, "
        ".arrow, .ipc, .feather, .npz"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        read_weights(path)


def test_wrong_arguments(model_file: Path) -> None:
    with pytest.raises(TypeError, match="path must be a str or a path, got bytes: b'x'"):
        read_weights(b"x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="batch_bytes must be an int, got float"):
        read_weights(model_file, batch_bytes=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Invalid batch_bytes: 0\. Must be at least 1"):
        read_weights(model_file, batch_bytes=0)
    with pytest.raises(TypeError, match="only_floats must be True or False"):
        read_weights(model_file, only_floats=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="filesystem must be a pyarrow"):
        read_weights(model_file, filesystem="local")


# Memory


@pytest.mark.parametrize("suffix", [".safetensors", ".arrow"])
def test_memory_does_not_grow_with_the_model(tmp_path: Path, suffix: str) -> None:
    """1 GiB of zeros, of which no more than a batch or two is ever in the process."""
    path = tmp_path / f"model{suffix}"
    layers, layer_bytes = 64, 16 << 20
    if suffix == ".safetensors":
        header = {
            f"layer.{i}": {
                "dtype": "F16",
                "shape": [4096, layer_bytes // 8192],
                "data_offsets": [i * layer_bytes, (i + 1) * layer_bytes],
            }
            for i in range(layers)
        }
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        with path.open("r+b") as file:
            file.truncate(8 + len(text) + layers * layer_bytes)
    else:
        ends = np.arange(layers + 1, dtype=np.int64) * layer_bytes
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(np.zeros(ends[-1], np.uint8))]
        table = pa.table(
            {
                "layer_name": [f"layer.{i}" for i in range(layers)],
                "weights": pa.Array.from_buffers(pa.large_binary(), layers, buffers),
                "shape": [[4096, layer_bytes // 8192]] * layers,
                "dtype": ["F16"] * layers,
            }
        )
        write_table(table, path)
    run_child(f"""
        def status(key):
            for line in open("/proc/self/status"):
                if line.startswith(key):
                    return int(line.split()[1]) << 10
        pyarrowquant.quantize_batch_arrow(table())
        reader = pyarrowquant.read_weights({str(path)!r}, batch_bytes=32 << 20)
        before = status("VmRSS")
        open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
        rows = sum(b.num_rows for b in pyarrowquant.quantize_stream(reader))
        above = status("VmHWM") - before
        assert rows == {layers}
        print(f"peak {{above >> 20}} MiB")
        assert above < 128 << 20, above >> 20
        assert above > 16 << 20, above >> 20  # else the measurement is wrong
    """)


def test_dropped_reader_closes_its_file(model_file: Path) -> None:
    program = f"""
import gc, os, warnings
import pyarrowquant
warnings.simplefilter("error")
before = len(os.listdir("/proc/self/fd"))
reader = pyarrowquant.read_weights({str(model_file)!r}, batch_bytes=1)
assert len(os.listdir("/proc/self/fd")) == before
reader.read_next_batch()
assert len(os.listdir("/proc/self/fd")) > before
del reader
gc.collect()
assert len(os.listdir("/proc/self/fd")) == before
"""
    subprocess.run([sys.executable, "-c", program], check=True)
