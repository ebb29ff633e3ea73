"""Files of results: written batch by batch under their final name only when complete."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from pyarrowquant._files import locate
from pyarrowquant._placing import is_empty_folder, refuse_loop, refuse_mount_point
from pyarrowquant.formats._files import Outputs, check_replaceable
from pyarrowquant.formats._model_folder import read_config
from pyarrowquant.reading import files_of

TABLES = {".parquet": "parquet", ".arrow": "arrow", ".ipc": "arrow", ".feather": "arrow"}
_OF_MODELS = (".safetensors", ".parquet", ".arrow")  # one of which is in a folder that we wrote
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


def check_destination(
    path: Path, overwrite: bool, folder: bool = False, sources: Sequence[Path] = ()
) -> None:
    """Refuse what cannot be written, before any work.

    Parameters
    ----------
    path : Path
    overwrite : bool
        Whether what is there may be replaced.
    folder : bool
        Whether the destination is a folder.
    sources : sequence of Path
        What is read, which must not be replaced.
    """
    real = Path(os.path.realpath(path))
    refuse_loop(real)
    if folder and real in (Path.cwd(), *Path.cwd().parents):
        raise click.UsageError(f"'{path}' is the current folder; give the name of a new one")
    if not path.absolute().parent.is_dir():
        raise click.ClickException(f"Folder '{path.absolute().parent}' does not exist")
    if not folder and path.is_dir():
        raise click.UsageError(f"'{path}' is a folder; give the name of a file")
    if folder and path.is_file():
        raise click.UsageError(f"'{path}' is a file; give the name of a folder")
    if not path.exists():
        return
    refuse_mount_point(real)
    if folder and is_empty_folder(path):
        return
    if not overwrite:
        raise click.ClickException(f"'{path}' exists. Use --overwrite to replace it")
    if any(_is_within(source, path) for source in sources):
        has = "has the source in it" if folder else "is the source, or a file of it"
        raise click.ClickException(f"'{path}' {has}; give another name")
    if folder:
        check_replaceable(path, sources, _OF_MODELS)


def _is_within(source: Path, path: Path) -> bool:
    """Whether a source is, or lies in, a path: as links lead there, or as it is given."""
    given = Path(os.path.abspath(source))
    return any(
        each.is_relative_to(place)
        for each in (given, Path(os.path.realpath(source)))
        for place in (Path(os.path.abspath(path)), Path(os.path.realpath(path)))
    )


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
    """Read a file of results, or all in a folder, row by row (Parquet) or batch by batch."""
    if not path.exists():
        raise click.ClickException(f"'{path}' does not exist")
    files = _tables_in(path) if path.is_dir() else [path]
    if not files:
        raise click.ClickException(f"Folder '{path}' has no results: no .parquet or .arrow file")
    readers = [_open_file(file) for file in files]
    schema = readers[0].schema.remove_metadata() if len(readers) > 1 else readers[0].schema
    for file, reader in zip(files, readers, strict=True):
        if not reader.schema.equals(schema):
            raise click.ClickException(f"'{file}' has other columns than '{files[0]}'")
    return pa.RecordBatchReader.from_batches(schema, (batch for r in readers for batch in r))


def _tables_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in TABLES)


def _open_file(path: Path) -> pa.RecordBatchReader:
    with path.open("rb") as opened:
        magic = opened.read(6)
    if magic[:4] == b"PAR1":  # whatever the suffix
        file = pq.ParquetFile(path, memory_map=True)
        return pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(batch_size=1))
    if magic != b"ARROW1":
        return pa.ipc.open_stream(pa.memory_map(str(path)))
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
    return pa.RecordBatchReader.from_batches(reader.schema, batches)


def is_result(path: str) -> bool:
    """Whether a local file, or a folder of them, has packed codes rather than weights."""
    place = Path(path)
    if not place.is_file() and not (place.is_dir() and _tables_in(place)):
        return False
    try:
        return "quantized_data" in open_results(place).schema.names
    except (pa.ArrowException, OSError) as error:
        if place.suffix.lower() in TABLES:
            raise click.ClickException(f"'{path}' cannot be read: {error}") from error
        return False  # another kind of file


def is_onnx(source: str) -> bool:
    return source.lower().endswith(".onnx")


def is_gguf(source: str) -> bool:
    return source.lower().endswith(".gguf")


def local_path(source: str) -> str:
    """Return the path of a source of this machine, also of a URI; of another the URI."""
    location = locate(source, None)
    return location.path if isinstance(location.filesystem, fs.LocalFileSystem) else source


def model_folder(source: str) -> Path | None:
    """Return the folder of a Hugging Face model, if the source is one, or its index."""
    path = Path(source)
    folder = path.parent if path.name.endswith(".index.json") else path
    return folder if (folder / "config.json").is_file() else None


def refuse_quantized(source: str) -> None:
    """Refuse a model whose tensors are codes and scales already."""
    folder = model_folder(source)
    config = {} if folder is None else read_config(folder)
    for key in ("quantization_config", "quantization"):
        if config.get(key) is not None:
            raise click.ClickException(
                f"'{source}' is quantized already: its config.json has {key}. Give the model with "
                "float weights"
            )


def local_files(source: str | Path) -> list[Path]:
    """Return a source of this machine, and all files that belong to it."""
    source = Path(source)
    if source.is_dir() and (tables := _tables_in(source)) and is_result(str(source)):
        return [source, *tables]
    if not source.exists() or is_result(str(source)):
        return [source]
    files = [Path(file.path) for file in files_of(locate(source, None))]
    folder = source if source.is_dir() else source.parent
    return [source, *files, *folder.glob("*.index.json"), folder / "config.json"]


def source_bytes(path: str) -> int | None:
    """Return the size of a local source; None where it is elsewhere."""
    local = Path(path)
    if local.name.endswith(".index.json"):
        local = local.parent
    if local.is_dir():
        return sum(file.stat().st_size for file in local.glob("*.safetensors"))
    return local.stat().st_size if local.exists() else None
