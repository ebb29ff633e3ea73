"""Files of results: written batch by batch under their final name only when complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq

from pyarrowquant.formats._files import Outputs

TABLES = {".parquet": "parquet", ".arrow": "arrow", ".ipc": "arrow", ".feather": "arrow"}
SUFFIXES = {**TABLES, ".gguf": "gguf", ".onnx": "onnx"}


def format_of(path: Path, chosen: str | None, suffixes: dict[str, str]) -> str:
    """Return the format by its name, or by the path's suffix."""
    if chosen is not None:
        return chosen
    if path.suffix.lower() in suffixes:
        return suffixes[path.suffix.lower()]
    raise click.UsageError(
        f"'{path}' has no suffix that says its format. Use --to, or one of {', '.join(suffixes)}"
    )


def check_destination(path: Path, overwrite: bool) -> None:
    """Refuse what cannot be written, before any work."""
    if path.is_dir():
        raise click.UsageError(f"'{path}' is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise click.ClickException(f"'{path}' exists. Use --overwrite to replace it")
    if not path.absolute().parent.is_dir():
        raise click.ClickException(f"Folder '{path.absolute().parent}' does not exist")


def watched(
    reader: pa.RecordBatchReader, note: Callable[[pa.RecordBatch], object]
) -> pa.RecordBatchReader:
    """Give the same batches, each after it has been noted."""

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            note(batch)
            yield batch

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def write_batches(reader: pa.RecordBatchReader, path: Path, kind: str, overwrite: bool) -> None:
    """Write batches as they come."""
    with (
        Outputs([path], overwrite) as outputs,
        _writer(outputs.temporary(path), reader.schema, kind) as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)


@contextmanager
def _writer(path: Path, schema: pa.Schema, kind: str) -> Iterator[Any]:
    if kind == "parquet":
        # codes and scales look random: compressing them takes time and gains little
        with pq.ParquetWriter(
            path,
            schema,
            compression="none",
            use_dictionary=False,
            write_statistics=["layer_name"],
        ) as writer:
            yield writer
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            yield writer


def open_results(path: Path) -> pa.RecordBatchReader:
    """Read a file of results row by row (Parquet) or batch by batch, whatever its suffix."""
    if not path.is_file():
        raise click.ClickException(f"File '{path}' does not exist")
    with path.open("rb") as opened:
        magic = opened.read(6)
    if magic[:4] == b"PAR1":
        file = pq.ParquetFile(path, memory_map=True)
        return pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(batch_size=1))
    if magic != b"ARROW1":
        return pa.ipc.open_stream(pa.memory_map(str(path)))
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
    return pa.RecordBatchReader.from_batches(reader.schema, batches)


def is_result(path: str) -> bool:
    """Whether a local file has packed codes rather than weights."""
    if not Path(path).is_file():
        return False
    try:
        return "quantized_data" in open_results(Path(path)).schema.names
    except (pa.ArrowException, OSError):  # another kind of file
        return False


def source_bytes(path: str) -> int | None:
    """Return the size of a local source; None where it is elsewhere."""
    local = Path(path)
    if local.name.endswith(".index.json"):
        local = local.parent
    if local.is_dir():
        return sum(file.stat().st_size for file in local.glob("*.safetensors"))
    return local.stat().st_size if local.exists() else None
