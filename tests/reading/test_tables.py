"""Parquet, Arrow and npz files as streams of layers, and what is wrong with them."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from child import run_child
from conftest import Arrays, assert_same, make_model, plain_layers
from models import SCHEMA, assert_reads, expected, floats, write_table
from safetensors.numpy import save_file

from pyarrowquant import numpy_to_arrow_table, quantize_batch_arrow, read_weights

pytestmark = pytest.mark.usefixtures("nothing_leaked")


# Parquet and Arrow


TABLE_FILES = ["a.parquet", "a.arrow", "a.ipc", "a.feather", "A.PARQUET"]


@pytest.mark.parametrize("name", TABLE_FILES)
@pytest.mark.parametrize("batch_bytes", [1, 300, 256 << 20])
@pytest.mark.parametrize("make", [numpy_to_arrow_table, plain_layers], ids=["raw", "lists"])
def test_tables_are_passed_on(tmp_path: Path, name: str, batch_bytes: int, make: Any) -> None:
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


@pytest.mark.parametrize("batch_bytes", [1, 256 << 20])
def test_views_and_dictionaries_are_passed_on(tmp_path: Path, batch_bytes: int) -> None:
    layers = {name: np.arange(12, dtype=np.float32) * i for i, name in enumerate("abc")}
    table = pa.table(
        {
            "layer_name": pa.array(["a", "b", "c"]).dictionary_encode(),
            "weights": pa.array([a.tobytes() for a in layers.values()], pa.binary_view()),
            "dtype": pa.array(["F32"] * 3).dictionary_encode(),
            "importance": [[1.0] * 12] * 3,
        }
    )
    path = tmp_path / "a.arrow"
    write_table(table, path)
    batches = list(read_weights(path, batch_bytes=batch_bytes))
    assert len(batches) == (3 if batch_bytes == 1 else 1)
    assert pa.Table.from_batches(batches) == table
    assert_same(quantize_batch_arrow(pa.Table.from_batches(batches)), expected(layers))


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
@pytest.mark.parametrize("batch_bytes", [1 << 20, 4 << 20])
def test_small_layers_are_gathered(tmp_path: Path, name: str, batch_bytes: int) -> None:
    """Row groups whose rows are read alone, and record batches of a layer each."""
    weights = np.random.default_rng(0).standard_normal((600, 8, 128), np.float32)
    model = {f"layer.{i:04}": layer for i, layer in enumerate(weights)}
    table = numpy_to_arrow_table(model)
    path = tmp_path / name
    write_table(table, path, rows=len(model))
    batches = list(read_weights(path, batch_bytes=batch_bytes))
    assert len(batches) <= 3
    assert all(batch["weights"].nbytes <= 1 << 20 for batch in batches)
    assert pa.Table.from_batches(batches).combine_chunks() == table.combine_chunks()


def test_layers_that_are_left_out_leave_large_batches(tmp_path: Path) -> None:
    layers = {
        f"layer.{i:04}": np.full((8, 128), i, np.float32 if i % 2 else np.int32) for i in range(600)
    }
    save_file(layers, tmp_path / "a.safetensors")
    table = read_weights(tmp_path / "a.safetensors", only_floats=False).read_all()
    write_table(table.combine_chunks(), tmp_path / "a.arrow")
    batches = list(read_weights(tmp_path / "a.arrow"))
    assert len(batches) <= 2
    assert_reads(read_weights(tmp_path / "a.arrow"), floats(layers))


def test_names_with_too_many_values_for_one_dictionary(tmp_path: Path) -> None:
    schema = pa.schema(
        [("layer_name", pa.dictionary(pa.int8(), pa.string())), ("weights", pa.list_(pa.float32()))]
    )
    names = [f"layer.{i:03}" for i in range(200)]
    with (
        pa.OSFile(str(tmp_path / "a.ipc"), "wb") as file,
        pa.ipc.new_stream(file, schema) as writer,
    ):
        for name in names:
            layer = {"layer_name": [name], "weights": [[1.0] * 8]}
            writer.write_batch(pa.RecordBatch.from_pydict(layer, schema))
    batches = list(read_weights(tmp_path / "a.ipc"))
    assert [name for batch in batches for name in batch["layer_name"].to_pylist()] == names


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
        (np.ones(2, ml_dtypes.bfloat16), "has dtype '|V2', as numpy saves bfloat16"),
    ],
)
def test_npz_with_arrays_that_cannot_be_read(tmp_path: Path, array: Any, message: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, good=np.ones(2, np.float32), bad=array)
    with pytest.raises(ValueError, match=re.escape(f"{path}: array 'bad' {message}")):
        read_weights(path)


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.array(["x"]), "<U1"),
        (np.array([None, {"a": 1}]), "object"),
        (np.ones(2, "i4,f4"), "|V8"),
    ],
)
def test_npz_with_arrays_of_no_layer(tmp_path: Path, array: Any, dtype: str) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, good=np.ones(2, np.float32), other=array)
    assert read_weights(path).read_all()["layer_name"].to_pylist() == ["good"]
    text = re.escape(f"array 'other' has dtype {dtype}, which no layer can have")
    with pytest.raises(ValueError, match=text):
        read_weights(path, only_floats=False)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
@pytest.mark.parametrize("shape", [(), (3,), (3, 5), (2, 3, 4), (0, 3)])
def test_npz_in_the_order_of_columns(
    tmp_path: Path, save: Any, dtype: Any, shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    array = np.asfortranarray((1000 * rng.standard_normal(shape)).astype(dtype))
    path = tmp_path / "a.npz"
    save(path, array=array, good=np.ones(2, np.float32))
    table = read_weights(path, only_floats=False).read_all()
    assert table["weights"][0].as_py() == array.tobytes()  # in the order of rows
    assert table["shape"][0].as_py() == list(array.shape)


def test_npz_of_float64_is_rounded_as_lists_are(tmp_path: Path) -> None:
    arrays = {
        "rows": np.random.default_rng(0).standard_normal((8, 64)),
        "columns": np.asfortranarray(np.random.default_rng(1).standard_normal((8, 64))),
        "ties": np.array([1 + 2**-24, 1 + 3 * 2**-24, 1e-50, -1e-42]),
    }
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    lists = pa.table(
        {
            "layer_name": list(arrays),
            "weights": pa.array([array.ravel() for array in arrays.values()]),
            "shape": [list(array.shape) for array in arrays.values()],
        }
    )
    read = read_weights(path)
    assert read.schema == SCHEMA
    assert quantize_batch_arrow(read).equals(quantize_batch_arrow(lists))
    np.savez(path, huge=np.array([1.0, 1e300]))
    with pytest.raises(ValueError, match=r"Layer 'huge' contains NaN or Inf at index 1 \(Inf\)"):
        quantize_batch_arrow(read_weights(path))


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


# Damage


@pytest.mark.parametrize("name", [*TABLE_FILES[:4], "a.npz", "compressed.npz"])
@pytest.mark.parametrize("raw", [False, True], ids=["lists", "raw"])
def test_damaged_files_are_errors(tmp_path: Path, name: str, raw: bool) -> None:
    """Any bytes changed: an error that names the file or its layers, or other weights."""
    layers = {name: np.arange(40, dtype=np.float32).reshape(4, 10) for name in ("a", "b", "c")}
    path = tmp_path / name
    if path.suffix == ".npz":
        (np.savez_compressed if name == "compressed.npz" else np.savez)(path, **layers)
    elif raw:
        save_file(layers, tmp_path / "raw.safetensors")
        write_table(read_weights(tmp_path / "raw.safetensors").read_all(), path)
    else:
        write_table(numpy_to_arrow_table(layers), path)
    print(
        run_child(f"""
        import random, warnings
        warnings.simplefilter("ignore")
        path, random = {str(path)!r}, random.Random(0)
        whole, read, errors = open(path, "rb").read(), 0, 0
        for _ in range(250):
            data = bytearray(whole)
            for _ in range(random.randint(1, 4)):
                data[random.randrange(len(data))] = random.choice([0, 1, 127, 128, 255])
            open(path, "wb").write(data)
            try:
                reader = pyarrowquant.read_weights(path, batch_bytes=random.choice([1, 1 << 20]))
                pyarrowquant.quantize_stream(reader).read_all()
                read += 1
            except pyarrowquant.QuantizationError:
                errors += 1
            except ValueError as error:
                assert str(error).startswith(path), error
                assert "\\n" not in str(error), error
                errors += 1
        print(read, "read,", errors, "errors")
        assert errors > 60
    """)
    )
