"""Safetensors files as streams of layers, and what is wrong with them."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from child import run_child
from conftest import Arrays, assert_same, make_model
from models import SCHEMA, assert_reads, expected, floats, mappings_of, write_table
from safetensors.numpy import save_file

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
        f"{path}: no tensor can be quantized, of 2, whose dtypes are F64, I64. Convert them "
        "to F32, F16 or BF16; in Python, read_weights() with only_floats=False gives them as they "
        "are"
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


# Wrong arguments


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such file or folder: '.*gone\.safetensors'"):
        read_weights(tmp_path / "gone.safetensors")
    message = (
        f"{tmp_path} has no model: neither model.safetensors nor model.safetensors.index.json nor "
        "any *.safetensors"
    )
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        read_weights(tmp_path)
    path = tmp_path / "model.txt"
    path.write_bytes(b"")
    message = (
        f"{path}: unknown suffix. Known are .safetensors, .safetensors.index.json, .gguf, "
        ".parquet, .arrow, .ipc, .feather, .npz, .onnx"
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


@pytest.mark.parametrize("suffix", [".safetensors", ".arrow", ".parquet"])
def test_memory_does_not_grow_with_the_model(tmp_path: Path, suffix: str) -> None:
    """Zeros of 512 MiB, of which no more than a batch or two is ever in the process.

    Parquet has to be decoded, which takes longer: half of it, in one row group.
    """
    path = tmp_path / f"model{suffix}"
    layers, layer_bytes = 64, (4 if suffix == ".parquet" else 8) << 20
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
        write_table(table, path, rows=layers)
    print(
        run_child(f"""
        def status(key):
            for line in open("/proc/self/status"):
                if line.startswith(key):
                    return int(line.split()[1]) << 10
        pyarrowquant.quantize_batch_arrow(table())
        reader = pyarrowquant.read_weights({str(path)!r}, batch_bytes=16 << 20)
        before = status("VmRSS")
        open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
        rows = sum(b.num_rows for b in pyarrowquant.quantize_stream(reader))
        above = status("VmHWM") - before
        assert rows == {layers}
        print(f"peak {{above >> 20}} MiB")
        assert above < 100 << 20, above >> 20
        assert above > 4 << 20, above >> 20  # else the measurement is wrong
    """)
    )


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


def test_many_batches_need_few_file_descriptors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({f"layer.{i}": np.full(4, i, np.float32) for i in range(500)}, path)
    run_child(f"""
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        layers = pyarrowquant.read_weights({str(path)!r}, batch_bytes=1).read_all()
        assert layers["weights"].num_chunks == 500
        assert pyarrowquant.quantize_batch_arrow(layers).num_rows == 500
    """)
