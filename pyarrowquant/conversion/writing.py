"""Results and what they leave out of a source, as files of each format."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Container, Iterator
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from pyarrowquant import formats
from pyarrowquant._core.binary import is_binary
from pyarrowquant.conversion.result_files import TABLES, write_batches
from pyarrowquant.errors import users_level
from pyarrowquant.formats import compressed_tensors, gguf
from pyarrowquant.formats._gguf_model import write_requantized
from pyarrowquant.formats._layers import KEPT_DTYPES
from pyarrowquant.formats._model_folder import ModelFolder, refuse_dangling
from pyarrowquant.formats._onnx_graph import write_replaced
from pyarrowquant.reading.model import GgufModel, Model, OnnxModel, ShardedModel
from pyarrowquant.reading.safetensors_header import BITS

_TOKENIZER = (
    "tokeniz*",
    "*.model",
    "vocab*",
    "merges*",
    "added_tokens.json",
    "*_map.json",
    "*_config.json",
    "*.jinja",
)


def write(
    kind: str, results: pa.Table, source: Model, destination: Path, scale_dtype: str, folder: bool
) -> None:
    """Write results, and the layers of the source that they leave out where the format has them.

    Parameters
    ----------
    kind : str
        One of `FORMATS`.
    results : pyarrow.Table
        In the order of the source.
    source : Model
    destination : Path
        Does not exist yet.
    scale_dtype : str
        Of the scales of the results.
    folder : bool
        Whether a table becomes a folder with a file for each shard of the source.
    """
    if kind in TABLES.values():
        if folder:
            _write_shards(results, source, destination, kind)
        else:
            write_batches(results.to_reader(), destination, kind, overwrite=False)
    elif kind == "onnx" and isinstance(source, OnnxModel):
        write_replaced(results, source, destination, overwrite=False)
    elif kind == "onnx":
        formats.write_onnx(results, destination)
    elif kind == "compressed-tensors":
        compressed_tensors.write_folder(results, destination, ModelFolder(source), overwrite=False)
    elif kind == "gguf" and isinstance(source, GgufModel):
        write_requantized(results, source, destination, overwrite=False)
    elif kind == "gguf":
        kept = _left_out(source, results, {*KEPT_DTYPES, *gguf.OTHER_DTYPES}, empty=False)
        formats.write_gguf(results, destination, kept=kept)
    else:
        _write_mlx(results, source, destination, scale_dtype)


def files_of_subfolders(kind: str, source: Model) -> set[Path]:
    """List what a format takes over from the subfolders of a model."""
    return set(ModelFolder(source).other_files()) if kind == "compressed-tensors" else set()


def _write_shards(results: pa.Table, source: Model, folder: Path, kind: str) -> None:
    """Write a file for each file of the source, named like it."""
    location = source.location
    shards = source.shards if isinstance(source, ShardedModel) else []
    stems = {
        tensor.name: Path(shard.location.name).stem for shard in shards for tensor in shard.tensors
    }

    def stem(batch: pa.RecordBatch) -> str:
        return stems.get(batch["layer_name"][0].as_py(), Path(location.name).stem)

    folder.mkdir()
    batches = (batch for batch in results.to_batches() if batch.num_rows)
    for name, group in groupby(batches, stem):
        reader = pa.RecordBatchReader.from_batches(results.schema, group)
        write_batches(reader, folder / f"{name}.{kind}", kind, overwrite=False)


def _left_out(
    source: Model, results: pa.Table, dtypes: Container[str], empty: bool = True
) -> pa.RecordBatchReader:
    """Read the source again, without the layers of the results.

    What is of another dtype than these, or empty where that is not allowed, is left out and told.
    """
    names = set(results["layer_name"].to_pylist())
    layers = source.reader(only_floats=False)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in layers:
            raw = is_binary(batch["weights"].type)
            kinds = batch["dtype"].to_pylist() if raw else [None] * batch.num_rows
            for row, name in enumerate(batch["layer_name"].to_pylist()):
                if name in names:
                    continue
                layer = batch.slice(row, 1)
                if not empty and raw and 0 in layer["shape"][0].as_py():
                    lacks = "empty tensors"
                elif kinds[row] is not None and kinds[row] not in dtypes:
                    lacks = str(kinds[row])
                else:
                    yield layer
                    continue
                warnings.warn(
                    f"Left out, as the format has no {lacks}: {name}",
                    UserWarning,
                    stacklevel=users_level(),
                )

    return pa.RecordBatchReader.from_batches(layers.schema, batches())


def _write_mlx(results: pa.Table, source: Model, folder: Path, dtype: str) -> None:
    """Write a folder for MLX; a model folder's configuration and tokenizer go with it."""
    kept = _left_out(source, results, BITS)
    formats.write_mlx(results, folder, kept=kept, config=source.config, dtype=dtype)
    if source.folder is None:
        return
    for pattern in _TOKENIZER:
        for file in Path(source.folder.path).glob(pattern):
            refuse_dangling(file)
            if file.is_file() and not (folder / file.name).exists():
                shutil.copyfile(file, folder / file.name)
