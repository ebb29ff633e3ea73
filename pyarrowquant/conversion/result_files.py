"""Files of results: read as they come, written batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from pyarrowquant import dequantize_batch_arrow
from pyarrowquant._core.quoting import enumerated
from pyarrowquant._core.results import Packed, batches_of
from pyarrowquant._core.source import RESULT_COLUMNS, Source
from pyarrowquant._core.system_errors import naming_file
from pyarrowquant._core.version import check_version
from pyarrowquant.reading import table_files
from pyarrowquant.reading.location import is_companion, locate, refuse_special
from pyarrowquant.reading.row_names import NAMES, check_names
from pyarrowquant.reading.table_files import TABLES

METRICS = ("mse", "relative_error", "cosine", "max_abs_error")
_READ = RESULT_COLUMNS | set(METRICS)
_PARQUET = b"PAR1"
_ARROW = b"ARROW1", b"\xff\xff\xff\xff"  # a file, a stream


def watched(
    reader: pa.RecordBatchReader, note: Callable[[pa.RecordBatch], object]
) -> pa.RecordBatchReader:
    """Give the same batches, each after it has been noted."""

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            note(batch)
            yield batch

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def open_results(path: Path) -> pa.RecordBatchReader:
    """Read a file of results, or all in a folder, row by row (Parquet) or batch by batch.

    The schema is one that `dequantize_batch_arrow` takes, and batches are valid Arrow data; what
    they say of their layers is checked by `results_in`, or by who uses it.
    """
    if not path.exists():
        raise FileNotFoundError(f"'{path}' does not exist")
    files = tables_in(path) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"Folder '{path}' has no results: no .parquet or .arrow file")
    for file in files:
        with naming(file):
            check_version(schema_of(file))
    whole = schema_of(files[0])
    schema = whole if len(files) == 1 else whole.remove_metadata()
    for file in files[1:]:
        if not schema_of(file).equals(schema):
            raise ValueError(f"'{file}' has other columns than '{files[0]}'")
    with naming(files[0]):
        dequantize_batch_arrow(schema.empty_table())
    known = [field for field in schema if field.name in _READ]
    once = [field for field in known if schema.names.count(field.name) == 1]
    read = pa.schema(once, schema.metadata)
    return pa.RecordBatchReader.from_batches(
        read, (batch for file in files for batch in _batches(file, read))
    )


def results_in(path: Path) -> Iterator[tuple[pa.RecordBatch, list[Packed]]]:
    """Read a file or a folder of results, batch by batch, with their rows, which are checked."""
    with naming(path):
        yield from batches_of(Source(open_results(path), RESULT_COLUMNS))


def check_rows(path: Path) -> None:
    """Raise where rows of a file or a folder of results have the same name."""
    open_results(path)  # of which each file has the columns
    files = [locate(file, None) for file in (tables_in(path) if path.is_dir() else [path])]
    names = pa.schema([schema_of(Path(files[0].path)).field(NAMES)])
    rows = ((file, batch) for file in files for batch in _batches(Path(file.path), names))
    check_names(rows, need_names=False)  # rows without one are refused with all that is wrong


@contextmanager
def naming(*paths: Path | str) -> Iterator[None]:
    """Name the files in errors about what they have."""
    try:
        yield
    except (ValueError, pa.ArrowException) as error:
        if any(str(path) in str(error) for path in paths):
            raise
        names = enumerated(f"'{path}'" for path in paths)
        raise ValueError(f"{names}: {error}") from error


def tables_in(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in TABLES and not is_companion(file.name)
    )


def _is_parquet(path: Path) -> bool:
    """Tell files of tables by how they begin, whatever the suffix."""
    magic = _beginning(path)
    return magic.startswith(_PARQUET) or (
        path.suffix.lower() == ".parquet" and not magic.startswith(_ARROW)
    )


def is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLES or _beginning(path).startswith((_PARQUET, *_ARROW))


def _beginning(path: Path) -> bytes:
    refuse_special(path)
    with naming_file(path), path.open("rb") as opened:
        return opened.read(6)


def schema_of(path: Path) -> pa.Schema:
    read = table_files.parquet_schema if _is_parquet(path) else table_files.ipc_schema
    return read(locate(path, None))


def _batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    read = table_files.parquet_batches if _is_parquet(path) else table_files.ipc_batches
    return read(locate(path, None), schema, table_files.GATHERED, lambda batch: [batch])
