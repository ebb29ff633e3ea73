"""Files of results: written batch by batch under their final name only when complete."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from pyarrowquant import _table_files, dequantize_batch_arrow
from pyarrowquant._files import check_name, locate, refuse_special
from pyarrowquant._placing import is_empty_folder, refuse_irreplaceable
from pyarrowquant._source import RESULT_COLUMNS, Source
from pyarrowquant.formats._files import Outputs, check_replaceable
from pyarrowquant.formats._layers import Packed, batches_of
from pyarrowquant.formats._model_folder import read_config
from pyarrowquant.reading import files_of

TABLES = {".parquet": "parquet", ".arrow": "arrow", ".ipc": "arrow", ".feather": "arrow"}
_OF_MODELS = (".safetensors", ".parquet", ".arrow")  # one of which is in a folder that we wrote
# What is written into a model's folder, and replaced there; all else may be the model's.
_WRITTEN = (*TABLES, ".gguf", ".onnx", ".safetensors", ".html")
SUFFIXES = {**TABLES, ".gguf": "gguf", ".onnx": "onnx"}

METRICS = ("mse", "relative_error", "cosine", "max_abs_error")
_READ = RESULT_COLUMNS | set(METRICS)

_PARQUET = b"PAR1"
_ARROW = b"ARROW1", b"\xff\xff\xff\xff"  # a file, a stream


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
    path: Path,
    overwrite: bool,
    folder: bool = False,
    sources: Sequence[Path] = (),
    written: Callable[[], Collection[Path]] = tuple,
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
    written : callable
        Returns the files in subfolders that are written, relative to the destination.
    """
    check_name(str(path))
    real = Path(os.path.realpath(path))
    refuse_irreplaceable(real)
    if not real.name:
        raise click.UsageError(f"'{path}' is the root folder; give the name of a new one")
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
    if folder and is_empty_folder(path):
        return
    if not overwrite:
        raise click.ClickException(f"'{path}' exists. Use --overwrite to replace it")
    if any(_is_within(source, path) for source in sources):
        has = "has the source in it" if folder else "is the source, or a file of it"
        raise click.ClickException(f"'{path}' {has}; give another name")
    if not folder and real.suffix.lower() not in _WRITTEN and real.parent in _models(sources):
        raise click.ClickException(
            f"'{path}' lies in the folder of the source model, and may belong to it; give another "
            "name"
        )
    if folder:
        check_replaceable(path, written(), _OF_MODELS)


def _models(sources: Sequence[Path]) -> set[Path]:
    """Return the folders of models that sources are, or lie in."""
    real = {Path(os.path.realpath(source)) for source in sources}
    folders = {path if path.is_dir() else path.parent for path in real}
    return {folder for folder in folders if (folder / "config.json").exists()}


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
    """Read a file of results, or all in a folder, row by row (Parquet) or batch by batch.

    The schema is one that `dequantize_batch_arrow` takes, and batches are valid Arrow data; what
    they say of their layers is checked by `results_in`, or by who uses it.
    """
    if not path.exists():
        raise click.ClickException(f"'{path}' does not exist")
    files = _tables_in(path) if path.is_dir() else [path]
    if not files:
        raise click.ClickException(f"Folder '{path}' has no results: no .parquet or .arrow file")
    whole = _schema(files[0])
    schema = whole if len(files) == 1 else whole.remove_metadata()
    for file in files[1:]:
        if not _schema(file).equals(schema):
            raise click.ClickException(f"'{file}' has other columns than '{files[0]}'")
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


@contextmanager
def naming(*paths: Path | str) -> Iterator[None]:
    """Name the files in errors about what they have."""
    try:
        yield
    except (ValueError, pa.ArrowException) as error:
        if any(str(path) in str(error) for path in paths):
            raise
        names = " and ".join(f"'{path}'" for path in paths)
        raise ValueError(f"{names}: {error}") from error


def _tables_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in TABLES)


def _is_parquet(path: Path) -> bool:
    """Tell files of tables by how they begin, whatever the suffix."""
    magic = _beginning(path)
    return magic.startswith(_PARQUET) or (
        path.suffix.lower() == ".parquet" and not magic.startswith(_ARROW)
    )


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLES or _beginning(path).startswith((_PARQUET, *_ARROW))


def _beginning(path: Path) -> bytes:
    refuse_special(path)
    with path.open("rb") as opened:
        return opened.read(6)


def _schema(path: Path) -> pa.Schema:
    read = _table_files.parquet_schema if _is_parquet(path) else _table_files.ipc_schema
    return read(locate(path, None))


def _batches(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    if _is_parquet(path):
        return _table_files.parquet_batches(locate(path, None), schema, 0, lambda batch: [batch])
    return _table_files.ipc_batches(locate(path, None), schema, lambda batch: [batch])


def is_result(path: str) -> bool:
    """Whether a local file, or a folder of them, has packed codes rather than weights.

    The folder of a model has weights, whatever has been written into it.
    """
    place = Path(path)
    if model_folder(path) == place:
        return False
    tables = [place] if place.is_file() else _tables_in(place) if place.is_dir() else []
    return (
        bool(tables)
        and _is_table(tables[0])
        and any("quantized_data" in _schema(table).names for table in tables)
    )


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
