"""What else gives record batches, and tensors of other libraries."""

from __future__ import annotations

import array
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from conftest import assert_same, plain
from dlpack_tensor import Tensor

from pyarrowquant import (
    QuantizationError,
    convert,
    dequantize_batch_arrow,
    numpy_to_arrow_table,
    plan,
    quantize_batch,
    quantize_batch_arrow,
    quantize_stream,
    validate_arrow_input,
)

pytestmark = pytest.mark.usefixtures("nothing_leaked")


@pytest.fixture
def table() -> pa.Table:
    rng = np.random.default_rng(0)
    return plain([f"n{i}" for i in range(7)], [rng.standard_normal((3, 40)) for _ in range(7)])


@pytest.fixture
def file(table: pa.Table, tmp_path: Path) -> Path:
    path = tmp_path / "w.parquet"
    other = pa.array(["x" * 100] * 7)
    pq.write_table(table.append_column("other", other), path, row_group_size=2)
    return path


SOURCES: dict[str, Callable[[Path], Any]] = {
    "dataset": lambda path: ds.dataset(path),
    "scanner": lambda path: ds.dataset(path).scanner(),
    "ParquetFile": lambda path: pq.ParquetFile(path),
    "list": lambda path: pq.read_table(path).to_batches(max_chunksize=3),
    "tuple": lambda path: tuple(pq.read_table(path).to_batches()),
    "iterator": lambda path: iter(pq.read_table(path).to_batches(max_chunksize=1)),
    "generator": lambda path: (b for b in pq.read_table(path).to_batches(max_chunksize=2)),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_sources(kind: str, file: Path, table: pa.Table) -> None:
    make = SOURCES[kind]
    validate_arrow_input(make(file))
    assert_same(quantize_batch_arrow(make(file)), quantize_batch_arrow(table))
    streamed = quantize_stream(make(file)).read_all()
    assert streamed.combine_chunks().equals(quantize_batch_arrow(table).combine_chunks())


def test_streams_take_one_batch_at_a_time(table: pa.Table) -> None:
    taken = []

    def batches() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(table.to_batches(max_chunksize=1)):
            taken.append(number)
            yield batch

    reader = quantize_stream(batches())
    assert taken == [0]
    reader.read_next_batch()
    assert len(taken) <= 2


def failing() -> Iterator[pa.RecordBatch]:
    yield plain(["a"], [[1, 2]]).to_batches()[0]
    raise RuntimeError("the disk is gone")


def test_what_iterators_raise_is_raised() -> None:
    with pytest.raises(RuntimeError, match="the disk is gone"):
        quantize_batch_arrow(failing())


WRONG: dict[str, tuple[Any, str]] = {
    "nothing": ([], "got builtins.list without a RecordBatch, which would say the schema"),
    "numbers": ([1], "has builtins.int at index 0; all must be a pyarrow RecordBatch"),
    "path": ("a.parquet", r"got builtins.str. To read a file use read_weights\(path\)"),
    "Path": (Path("a"), r"To read a file use read_weights\(path\)"),
    "arrays": ({"a": np.ones(3)}, r"use quantize_batch\(\) or numpy_to_arrow_table\(\)"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_table_says_what_to_use(what: str) -> None:
    given, message = WRONG[what]
    with pytest.raises(ValueError, match=message):
        quantize_batch_arrow(given)


def test_what_is_no_dictionary_says_what_to_use(table: pa.Table) -> None:
    with pytest.raises(TypeError, match=r"got Table. For an Arrow table use quantize_batch_arrow"):
        quantize_batch(table)
    with pytest.raises(TypeError, match=r"use quantize_batch_arrow\(read_weights\(path\)\)"):
        quantize_batch("model.safetensors")  # type: ignore[arg-type]


def test_what_quantize_batch_gave_is_no_table() -> None:
    layers = quantize_batch({"a": np.ones(4, np.float32)})
    for function in (dequantize_batch_arrow, quantize_batch_arrow):
        with pytest.raises(TypeError, match=r"gave is decoded by dequantize_batch\(\)"):
            function(layers)


def test_arrays_of_an_npz_file(tmp_path: Path) -> None:
    arrays = {"a": np.arange(4, dtype=np.float32), "b": np.ones((2, 8), np.float16)}
    np.savez(tmp_path / "w.npz", **arrays)
    with np.load(tmp_path / "w.npz") as file:
        assert numpy_to_arrow_table(file).equals(numpy_to_arrow_table(arrays))
        found = quantize_batch(file)
    wanted = quantize_batch(arrays)
    assert found.keys() == wanted.keys()
    for name, layer in wanted.items():
        assert found[name]["quantized_data"] == layer["quantized_data"]
    np.savez(tmp_path / "bad.npz", a=np.ones(4))
    with (
        np.load(tmp_path / "bad.npz") as file,
        pytest.raises(QuantizationError, match="'a' has dtype 'float64'"),
    ):
        quantize_batch(file)


@pytest.mark.parametrize(
    "function", [quantize_batch, quantize_batch_arrow, quantize_stream, convert, plan]
)
def test_keywords_of_another_name(function: Callable[..., object], table: pa.Table) -> None:
    given = [table, "out.parquet"][: 2 if function in (convert, plan) else 1]
    name = function.__name__
    with pytest.raises(TypeError, match=rf"{name}\(\) has no argument 'bits'\. Did .* 'bit_width'"):
        function(*given, bits=4)
    with pytest.raises(TypeError, match="Did you mean 'group_size'"):
        function(*given, groupsize=4)
    with pytest.raises(TypeError, match=r"has no argument 'xyzzy'\.$"):
        function(*given, xyzzy=4)


# Tensors


VALUES = np.arange(24).reshape(2, 12)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_dlpack_without_a_copy(dtype: Any) -> None:
    values = VALUES.astype(dtype)
    table = numpy_to_arrow_table({"a": Tensor(values)})
    assert np.shares_memory(table["weights"][0].values.to_numpy(), values)
    assert_same(table, numpy_to_arrow_table({"a": values}))


def test_tensors_beside_arrays_and_their_errors() -> None:
    layers = {
        "fine": Tensor(VALUES.astype(np.float32)),
        "int": Tensor(VALUES),
        "transposed": Tensor(VALUES.astype(np.float32).T),
        "empty": Tensor(np.empty((0, 3), np.float32)),
        "elsewhere": Tensor(VALUES.astype(np.float32), device=2),
        "array": VALUES.astype(np.float32),
        "grad": Tensor(object()),
    }
    with pytest.raises(QuantizationError) as caught:
        quantize_batch(layers)
    assert {e.layer_name: e.message.split("'", 2)[2] for e in caught.value.errors} == {
        "int": " has dtype 'int64', expected 'float32' (float16 and bfloat16 also work). Convert "
        "it with array.astype(np.float32)",
        "transposed": " is not contiguous in C order. Use its contiguous()",
        "empty": " is empty: its shape is (0, 3). Leave it out",
        "elsewhere": " cannot be read: it lies on another device. Use its cpu() first",
        "grad": " cannot be read: it does not give its memory: 'object' object has no attribute "
        "'__dlpack__'. Use its detach()",
    }


class OnMetal(array.array):
    """An array of Apple's GPU, which the processor can read as a buffer."""

    def __dlpack__(self) -> object:
        raise AssertionError("its capsule has no address")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 8, 0


def test_arrays_on_metal_are_read_as_buffers() -> None:
    table = numpy_to_arrow_table({"a": OnMetal("f", [1, 2, 3])})
    assert table["weights"].to_pylist() == [[1, 2, 3]]


def test_no_library_of_tensors_is_imported() -> None:
    code = """
import sys, numpy as np, pyarrowquant
class T:
    def __init__(self, a): self.a = a
    def __dlpack__(self, **o): return self.a.__dlpack__(**o)
    def __dlpack_device__(self): return (1, 0)
pyarrowquant.quantize_batch({"a": T(np.ones(3, np.float32))})
print([m for m in ("torch", "mlx", "jax", "ml_dtypes") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
