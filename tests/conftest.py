"""Fixtures and helpers that several test files share."""

from __future__ import annotations

import gc
import signal
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from child import wait_until
from safetensors.numpy import save_file

from pyarrowquant._core import library

INPUT_SCHEMA = pa.schema(
    [
        ("layer_name", pa.string()),
        ("weights", pa.list_(pa.float32())),
        ("shape", pa.list_(pa.int64())),
    ]
)

RESULT_SCHEMA = pa.schema(
    [
        ("layer_name", pa.string()),
        ("quantized_data", pa.binary()),
        ("scales", pa.list_(pa.float32())),
        ("zero_points", pa.list_(pa.float32())),
        ("shape", pa.list_(pa.int64())),
        ("bit_width", pa.uint8()),
        ("group_size", pa.int32()),
    ]
)

Arrays = dict[str, np.ndarray]

# A machine may be busy.
if find_spec("hypothesis"):  # which environments of consumers lack
    from hypothesis import settings

    settings.register_profile("any machine", deadline=None)
    settings.load_profile("any machine")

# A shell that starts the tests in the background has them, and their children, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Keep the collector off what the imports made: most of the tests call it twice."""
    gc.collect()
    gc.freeze()


def alive_bytes() -> tuple[int, int]:
    """Bytes that the Go side and pyarrow's pool hold once garbage is gone."""
    gc.collect()
    return library.allocated_bytes(), pa.total_allocated_bytes()


@pytest.fixture
def nothing_leaked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves memory behind, its own or what it imported."""
    before = alive_bytes()
    yield
    # pytest would keep the tables that other fixtures made until after this check
    request.node.funcargs.clear()

    def grown() -> list[int]:
        return [now - then for now, then in zip(alive_bytes(), before, strict=True)]

    # Parquet's threads let go of buffers a moment later. Less than before is fine: a test that
    # failed holds on to memory until this one has begun.
    assert wait_until(lambda: max(grown()) <= 0, 60), f"Go and Arrow bytes left behind: {grown()}"


def make_layers() -> dict[str, np.ndarray]:
    """Layers of 0 to 3 dimensions, unsorted, all values exact in float16."""
    rng = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {
        "model.b": (6, 200),
        "model.a": (300,),
        "Norm": (3, 4, 32),
        "été": (1, 1),
        "empty": (0, 5),
        "scalar": (),
    }
    return {
        name: np.asarray(rng.standard_normal(shape), np.float16).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture
def layers() -> dict[str, np.ndarray]:
    """The layers that most tests quantize."""
    return make_layers()


def plain(names: Sequence[str | None], arrays: Sequence[Any]) -> pa.Table:
    """The plain pyarrow form: list<float32> weights with their shapes."""
    arrays = [np.asarray(array, np.float32) for array in arrays]
    return pa.table(
        [
            pa.array(names, pa.string()),
            pa.array([array.ravel() for array in arrays], pa.list_(pa.float32())),
            pa.array([list(array.shape) for array in arrays], pa.list_(pa.int64())),
        ],
        schema=INPUT_SCHEMA,
    )


def plain_layers(layers: Mapping[str, np.ndarray]) -> pa.Table:
    """The plain form of a dictionary of arrays."""
    return plain(list(layers), list(layers.values()))


def with_column(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The table with one column replaced."""
    return table.set_column(table.schema.get_field_index(name), name, column)


def attempt(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Return what the call returns or the ValueError that it raises."""
    try:
        return call(*args, **options)
    except ValueError as error:
        return error


def assert_same(result: pa.Table, expected: pa.Table) -> None:
    """Equal in types, metadata and values, whatever the chunks."""
    assert result.schema.equals(expected.schema, check_metadata=True)
    assert result.equals(expected)


class OnlyStream:
    """Shows nothing but `__arrow_c_stream__` of its source and counts the calls."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.calls = 0

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        self.calls += 1
        return self._source.__arrow_c_stream__(requested_schema)


class OnlyArray:
    """Shows nothing but `__arrow_c_array__`, counts the calls, keeps the last capsules."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.calls = 0
        self.capsules: tuple[object, object] | None = None

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        self.calls += 1
        self.capsules = self._source.__arrow_c_array__(requested_schema)
        return self.capsules


class Batches:
    """A generator-backed source that records what was pulled and if it was let go."""

    def __init__(
        self,
        batches: Sequence[pa.RecordBatch],
        schema: pa.Schema = INPUT_SCHEMA,
        fails_with: Exception | None = None,
    ) -> None:
        self._batches = batches
        self._schema = schema
        self._fails_with = fails_with
        self._alive: weakref.ref[Iterator[pa.RecordBatch]] | None = None
        self.pulled = 0

    @property
    def released(self) -> bool:
        """Whether nobody holds the generator any more."""
        gc.collect()
        return self._alive is not None and self._alive() is None

    def reader(self) -> pa.RecordBatchReader:
        """The reader; call it once."""
        generator = self._generate()
        self._alive = weakref.ref(generator)
        return pa.RecordBatchReader.from_batches(self._schema, generator)

    def _generate(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            self.pulled += 1
            yield batch
        if self._fails_with is not None:
            raise self._fails_with


def numbered_batches(count: int, values: int = 64) -> list[pa.RecordBatch]:
    """`count` batches of one layer each, named layer0, layer1, ..."""
    rng = np.random.default_rng(11)
    return [
        plain([f"layer{i}"], [rng.standard_normal(values)]).to_batches()[0] for i in range(count)
    ]


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


@pytest.fixture
def model() -> Arrays:
    return make_model()


@pytest.fixture
def model_file(tmp_path: Path, model: Arrays) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(model, path, metadata={"format": "np"})
    return path


@pytest.fixture
def shards(model: Arrays) -> dict[str, Arrays]:
    names = list(model)
    return {
        "model-00001-of-00002.safetensors": {name: model[name] for name in names[3:]},
        "model-00002-of-00002.safetensors": {name: model[name] for name in names[:3]},
    }
