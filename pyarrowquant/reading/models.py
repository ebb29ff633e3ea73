"""Model files as streams of layers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from pyarrowquant._core import arguments
from pyarrowquant.reading import arrow_files, gguf, npz, onnx, safetensors
from pyarrowquant.reading.location import Location, locate
from pyarrowquant.reading.tensors import SCHEMA, Tensor

_Batches = Iterator[pa.RecordBatch]
_Read = Callable[[Location, int, bool], tuple[pa.Schema, _Batches]]


def read_weights(
    path: str | os.PathLike[str],
    *,
    filesystem: Any = None,
    batch_bytes: int = 256 * 2**20,
    only_floats: bool = True,
) -> pa.RecordBatchReader:
    """Read the weights of a model as a stream of layers.

    Headers are read and checked at once, the weights batch by batch. Safetensors and Arrow files
    of this machine are mapped into memory and not copied: they must not change while batches are
    in use. What a batch was read from leaves the process's memory when the next one is taken.

    Parameters
    ----------
    path : str or path
        A file, by its suffix: .safetensors, .parquet, .arrow, .ipc or .feather (Arrow IPC files
        and streams), .npz, .onnx, .gguf; an index ending in .safetensors.index.json; or a folder
        with model.safetensors, or an index and its shards, or other .safetensors files, which are
        then all read. A str may be a URI of pyarrow.fs or fsspec, like ``s3://bucket/model``.
    filesystem : pyarrow.fs.FileSystem or fsspec filesystem, optional
        Where `path` lies; default this machine, or what a URI says.
    batch_bytes : int
        Bound on the bytes of weights in a batch, default 256 MiB. A layer above it is a batch of
        its own. Layers that do not follow each other in their file are in different batches too.
    only_floats : bool
        Leave out tensors that cannot be quantized: all but F32, F16 and BF16, so F64 as well.
        With False they come too; a recipe can skip them.

    Returns
    -------
    pyarrow.RecordBatchReader
        The columns layer_name, weights (large_binary, raw little-endian bytes), shape and dtype
        (the safetensors name). Parquet and Arrow files give their own layer_name, weights, shape,
        dtype and importance, of the types that they have. Layers come in the order of the file;
        those of safetensors in the order of their bytes, shards in the order of their names.
        ONNX models give the constant matrices of MatMul and Gemm, in the order of their use, each
        with a row for every output: transposed where the model has it the other way round.

    Raises
    ------
    FileNotFoundError
        There is no such file, or a shard is missing.
    ValueError
        A file is damaged, incomplete or of an unknown kind, the shards contradict their index, or
        no tensor can be quantized. What is wrong with weights in a file comes when they are read.
    TypeError
        An argument has the wrong type.
    ImportError
        A URI needs fsspec, an ONNX model onnx or a GGUF model gguf, which is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import pyarrowquant
    >>> np.savez("model.npz", first=np.ones((2, 3), np.float32), ids=np.arange(4))
    >>> reader = pyarrowquant.read_weights("model.npz")
    >>> reader.schema.names
    ['layer_name', 'weights', 'shape', 'dtype']
    >>> pyarrowquant.quantize_stream(reader).read_all()["layer_name"].to_pylist()
    ['first']
    """
    bound = arguments.integer("batch_bytes", batch_bytes)
    if bound < 1:
        raise ValueError(f"Invalid batch_bytes: {bound}. Must be at least 1")
    floats = arguments.boolean("only_floats", only_floats)
    return weights_after(0, locate(path, filesystem), bound, floats)


def weights_after(
    skip: int, location: Location, batch_bytes: int, only_floats: bool = True
) -> pa.RecordBatchReader:
    """As `read_weights`, without so many batches at the beginning, which may not even be read."""
    shards = shards_of(location)
    if shards is not None:
        selected = safetensors.selected(shards, only_floats, location)
        return _reader(SCHEMA, safetensors.batches(selected, batch_bytes, skip))
    schema, batches = _read(location)(location, batch_bytes, only_floats)
    return _reader(schema, islice(batches, skip, None))


def shards_of(location: Location) -> list[safetensors.Shard] | None:
    """Read the headers of a model of safetensors or GGUF; None for another kind of file."""
    if not location.is_file():
        return safetensors.read_folder(location)
    name = location.name.lower()
    if name.endswith(safetensors.INDEX_SUFFIX):
        return safetensors.read_index(location)
    if name.endswith(".gguf"):
        return [gguf.read_shard(location)]
    return safetensors.read_file(location) if name.endswith(".safetensors") else None


def tensors_of(location: Location) -> list[Tensor] | None:
    """List what a model has, read from headers; None for files that say it with their data."""
    shards = shards_of(location)
    if shards is not None:
        return [tensor for shard in shards for tensor in shard.tensors]
    read = _read(location)
    if read is _onnx:
        return onnx.list_tensors(location)
    return npz.read_arrays(location, False) if read is _npz_file else None


def files_of(location: Location) -> list[Location]:
    """List the files that weights are read from."""
    shards = shards_of(location)
    if shards is not None:
        return [shard.location for shard in shards]
    return onnx.list_files(location) if _read(location) is _onnx else [location]


def _read(location: Location) -> _Read:
    name = location.name.lower()
    for suffix, read in _READERS.items():
        if name.endswith(suffix):
            return read
    known = ".safetensors", safetensors.INDEX_SUFFIX, ".gguf", *_READERS
    raise ValueError(f"{location}: unknown suffix. Known are {', '.join(known)}")


def _npz_file(
    location: Location, batch_bytes: int, only_floats: bool
) -> tuple[pa.Schema, _Batches]:
    arrays = npz.read_arrays(location, only_floats)
    return SCHEMA, npz.batches(location, arrays, batch_bytes)


def _onnx(location: Location, batch_bytes: int, only_floats: bool) -> tuple[pa.Schema, _Batches]:
    layers = onnx.read_layers(location, only_floats)
    return SCHEMA, onnx.batches(location, layers, batch_bytes)


def _parquet(location: Location, batch_bytes: int, only_floats: bool) -> tuple[pa.Schema, _Batches]:
    schema = arrow_files.parquet_schema(location)
    return schema, arrow_files.parquet_batches(location, schema, batch_bytes, only_floats)


def _ipc(location: Location, batch_bytes: int, only_floats: bool) -> tuple[pa.Schema, _Batches]:
    schema = arrow_files.ipc_schema(location)
    return schema, arrow_files.ipc_batches(location, schema, batch_bytes, only_floats)


def _reader(schema: pa.Schema, batches: _Batches) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(schema, batches)


_READERS: dict[str, _Read] = {
    ".parquet": _parquet,
    ".arrow": _ipc,
    ".ipc": _ipc,
    ".feather": _ipc,
    ".npz": _npz_file,
    ".onnx": _onnx,
}
