"""Model files as streams of layers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pyarrowquant._core import arguments
from pyarrowquant.reading import safetensors, table_files
from pyarrowquant.reading.arrow_files import TableModel
from pyarrowquant.reading.foreign import foreign_problem
from pyarrowquant.reading.gguf import GgufModel
from pyarrowquant.reading.importance import importance_at
from pyarrowquant.reading.importance_kinds import SUFFIXES, no_model
from pyarrowquant.reading.location import Location, OpenFiles, locate
from pyarrowquant.reading.model import BATCH_BYTES, Model
from pyarrowquant.reading.npz import NpzModel
from pyarrowquant.reading.onnx import OnnxModel
from pyarrowquant.reading.results import ResultModel, is_result, results_in
from pyarrowquant.reading.safetensors import Headers, ShardedModel, decodable


def read_weights(
    path: str | os.PathLike[str],
    *,
    filesystem: Any = None,
    batch_bytes: int = BATCH_BYTES,
    only_floats: bool = True,
) -> pa.RecordBatchReader:
    """Read the weights of a model as a stream of layers.

    Headers are read and checked at once, the weights batch by batch. Safetensors and Arrow files
    of this machine are mapped into memory and not copied: they must not change while batches are
    in use. What a batch was read from leaves the process's memory when the next one is taken.
    What is quantized already is decoded to float32, each layer when its batch is read.

    Parameters
    ----------
    path : str or path
        A file, by its suffix: .safetensors, .parquet, .arrow, .ipc or .feather (Arrow IPC files and
        streams), .npz, .onnx, .gguf; an index ending in .safetensors.index.json; or a folder with
        model.safetensors, or an index and its shards, or other .safetensors files, which are then
        all read, or without a model and with tables of results. A str may be a URI of pyarrow.fs or
        fsspec, like ``s3://bucket/model``.
    filesystem : pyarrow.fs.FileSystem or fsspec filesystem, optional
        Where `path` lies; default this machine, or what a URI says.
    batch_bytes : int
        Bound on the bytes of weights in a batch, default 128 MiB. A layer above it is a batch of
        its own. Layers that do not follow each other in their file are in different batches too.
    only_floats : bool
        Leave out tensors that cannot be quantized: all but F32, F16, BF16 and what is decoded, so
        F64 as well. With False they come too; a recipe can skip them.

    Returns
    -------
    pyarrow.RecordBatchReader
        The columns layer_name, weights (large_binary, raw little-endian bytes), shape and dtype
        (the safetensors name). Parquet and Arrow files give their own layer_name, weights, shape,
        dtype and importance, of the types that they have; results give layer_name, weights (lists
        of float32) and shape. Layers come in the order of the file;
        those of safetensors in the order of their bytes, shards in the order of their names.
        ONNX models give the constant matrices of MatMul and Gemm, in the order of their use, each
        with a row for every output: transposed where the model has it the other way round.

    Raises
    ------
    FileNotFoundError
        There is no such file, or a shard is missing.
    ValueError
        A file is damaged, incomplete or of an unknown kind, the shards contradict their index, or
        no tensor can be quantized, as none is a float or most are codes that cannot be decoded.
        What is wrong with weights in a file comes when they are read.
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
    return open_model(locate(path, filesystem)).reader(bound, floats)


def open_source(source: object) -> Model:
    """Open the model at a path or address, each file once: it is known then if one changes.

    Raises what `open_model` does.
    """
    return open_model(replace(locate(source, None), files=OpenFiles()))


def open_model(location: Location) -> Model:
    """Open the files of a model and read their headers, which is not done again.

    Raises
    ------
    FileNotFoundError
        There is no such file, or a shard is missing.
    ValueError
        A file is damaged, incomplete or of an unknown kind.
    ImportError
        The kind of file needs an extra.
    """
    if not location.is_file():
        if results := results_in(location):
            return ResultModel(location, results)
        _refuse_others(location)
        return _sharded(location, safetensors.read_folder(location))
    name = location.name.lower()
    for suffix, open_kind in _KINDS.items():
        if name.endswith(suffix):
            return open_kind(location)
    if name.endswith(SUFFIXES) and _is_importance(location):
        raise no_model(location)
    raise ValueError(
        foreign_problem([str(location)])
        or f"{location}: unknown suffix. Known are {', '.join(_KINDS)}"
    )


def _is_importance(location: Location) -> bool:
    try:
        importance_at(location)
    except ValueError:
        return False
    return True


def _refuse_others(folder: Location) -> None:
    """Raise where a folder has no safetensors, but tables, or what they can be made of."""
    names = folder.file_names()
    if _PIPELINE in names:
        raise ValueError(
            f"{folder} is a pipeline of diffusers, whose models are in its folders. Give the path "
            "of one of them, such as 'transformer' or 'unet'"
        )
    if any(name.endswith(_IN_FOLDERS) for name in names):
        return
    for name in names:
        if name.lower().endswith(tuple(table_files.TABLES)):
            raise ValueError(f"{folder} has no model, but tables. Give the path of one: '{name}'")
    for name in names:
        if name.lower().endswith(_OF_ONE_FILE):
            raise ValueError(
                f"{folder} has no safetensors. Give the path of another file: '{name}'"
            )
    if problem := foreign_problem([str(folder.within(name)) for name in names]):
        raise ValueError(problem)


def _sharded(location: Location, headers: Headers) -> Model:
    return ShardedModel(location, decodable(headers), headers.index)


def _table(location: Location) -> Model:
    if is_result(location):
        return ResultModel(location, [location])
    return TableModel(location, is_parquet=location.name.lower().endswith(".parquet"))


_PIPELINE = "model_index.json"
_SAFETENSORS = ".safetensors"
# How each kind of file is opened, by its suffix: a new kind is its module, and a line here.
_KINDS: dict[str, Callable[[Location], Model]] = {
    _SAFETENSORS: lambda file: _sharded(file, Headers(safetensors.read_file(file))),
    safetensors.INDEX_SUFFIX: lambda index: _sharded(index, safetensors.read_index(index)),
    ".gguf": GgufModel,
    **dict.fromkeys(table_files.TABLES, _table),
    ".npz": NpzModel,
    ".onnx": OnnxModel,
}
_IN_FOLDERS = (_SAFETENSORS, safetensors.INDEX_SUFFIX)  # which a folder is read by
_OF_ONE_FILE = tuple(set(_KINDS) - {*_IN_FOLDERS, *table_files.TABLES})
