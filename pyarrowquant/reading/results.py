"""Tables of results in Parquet and Arrow IPC files, which are decoded layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice

import pyarrow as pa

from pyarrowquant._core.decoding import decode
from pyarrowquant._core.source import RESULT_COLUMNS, Source
from pyarrowquant._core.version import check_version
from pyarrowquant.reading import table_files
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.model import BATCH_BYTES, Model
from pyarrowquant.reading.row_names import NAMES, check_names
from pyarrowquant.reading.table_files import TABLES


def is_result(location: Location) -> bool:
    """Whether a file of a table has packed codes rather than weights."""
    return {"quantized_data", "scales"} <= set(_schema(location).names)


def results_in(folder: Location) -> list[Location]:
    """Return the files of a folder of results; none where it is something else."""
    names = folder.file_names()
    tables = [name for name in names if name.lower().endswith(tuple(TABLES))]
    if CONFIG in names or any(name.endswith(".safetensors") for name in names):
        return []
    files = [folder.within(name) for name in tables]
    return files if any(map(is_result, files)) else []


class ResultModel(Model):
    """Results of a quantization, in a file or in those of a folder."""

    tensors = None

    def __init__(self, location: Location, files: Sequence[Location]) -> None:
        super().__init__(location)
        self._files = files
        empty = _selected(files[0]).empty_table()
        with _naming(files[0]):
            self.schema = decode(Source(empty, RESULT_COLUMNS)).schema

    def refuse_quantized(self) -> None:
        raise ValueError(
            f"{self.location} is quantized already: it has results of pyarrowquant. Give the "
            "weights, or decode it first: pyarrowquant dequantize"
        )

    def check_names(self, need_names: bool) -> None:
        check_names(self._names(), need_names)

    @property
    def files(self) -> Sequence[Location]:
        return self._files

    def batches(self, batch_bytes: int, only_floats: bool, skip: int) -> Iterator[pa.RecordBatch]:
        return (_decoded(row, file) for file, row in islice(self._rows(), skip, None))

    def layer_readers(self) -> Iterator[tuple[str | None, Callable[[], pa.RecordBatch]]]:
        for file, row in self._rows():
            yield row["layer_name"][0].as_py(), partial(_decoded, row, file)

    def _names(self) -> Iterator[tuple[Location, pa.RecordBatch]]:
        for file in self._files:
            names = pa.schema([field for field in _selected(file) if field.name == NAMES])
            for batch in _batches(file, names, BATCH_BYTES):
                yield file, batch

    def _rows(self) -> Iterator[tuple[Location, pa.RecordBatch]]:
        for file in self._files:
            for batch in _batches(file, _selected(file), table_files.GATHERED):
                for row in range(batch.num_rows):
                    yield file, batch.slice(row, 1)


def _batches(file: Location, schema: pa.Schema, batch_bytes: int) -> Iterator[pa.RecordBatch]:
    read = table_files.parquet_batches if _is_parquet(file) else table_files.ipc_batches
    return read(file, schema, batch_bytes, lambda batch: [batch])


def _decoded(row: pa.RecordBatch, file: Location) -> pa.RecordBatch:
    with _naming(file):
        (batch,) = decode(Source(row, RESULT_COLUMNS)).to_batches()
    return batch


def _selected(file: Location) -> pa.Schema:
    """Return the columns that decoding needs, as far as they are there.

    Others are let go of here, so that this is where those of later versions are seen.
    """
    schema = _schema(file)
    with _naming(file):
        check_version(schema)
    kept = [field for field in schema if field.name in RESULT_COLUMNS]
    return pa.schema(kept, schema.metadata)


def _schema(file: Location) -> pa.Schema:
    return (table_files.parquet_schema if _is_parquet(file) else table_files.ipc_schema)(file)


def _is_parquet(file: Location) -> bool:
    return file.name.lower().endswith(".parquet")


@contextmanager
def _naming(file: Location) -> Iterator[None]:
    """Name the file in errors about what it has."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
