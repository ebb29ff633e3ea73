"""The folder of a Hugging Face model: its tensors, its config.json and its other files."""

from __future__ import annotations

import fnmatch
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from pyarrowquant._core.cells import Bytes
from pyarrowquant.formats._layers import rounded
from pyarrowquant.formats._safetensors import Entry
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.location import check_size, locate
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.models import open_model
from pyarrowquant.reading.safetensors import DTYPES, SINGLE, Shard, ShardedModel
from pyarrowquant.reading.tensors import CodedTensor, MadeTensor, Tensor, decoded_bytes

_PIECE = 1 << 24
_POINTER_BYTES = range(100, 1024)  # of a pointer of git-lfs
# Weights, which would be loaded in place of the written ones or take their room.
_WEIGHTS = (
    "*.safetensors",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.gguf",
    "*.ggml",
    "*.onnx",
    "*.onnx_data",
    "*.onnx.data",
    "*.h5",
    "*.msgpack",
    "*.npz",
    "*.ot",
    "*.tflite",
    "*.parquet",
    "*.arrow",
    "*.feather",
    "consolidated*",
    "*.index.json",
)

_NEEDED = (
    f"Give the folder of a Hugging Face model, which has {CONFIG}, the tokenizer and the weights"
)


class ModelFolder:
    """A model in a folder of this machine, with its config.json; files are only read.

    Parameters
    ----------
    model : Model

    Raises
    ------
    FileNotFoundError
        There is no config.json.
    NotADirectoryError
        The model is a file.
    """

    def __init__(self, model: Model) -> None:
        assert isinstance(model, ShardedModel)  # as all folders are
        self.model = model
        self.path = Path(model.location.path)
        _check_folder(self.path)
        self.config = model.config or {}
        self.shards = model.shards

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the model by their names."""
        return {tensor.name: tensor for tensor in self.model.tensors}

    @property
    def has_index(self) -> bool:
        """Whether loading needs an index."""
        return [shard.location.name for shard in self.shards] != [SINGLE]

    @property
    def dtype(self) -> str:
        """The dtype that the model is loaded with."""
        return self.model.loaded_dtype

    def other_files(self) -> list[Path]:
        """List what belongs to the model beside its weights and config.json, as relative paths."""
        return other_files(self.path, self.shards)


def other_files(folder: Path, shards: Iterable[Shard]) -> list[Path]:
    """List what belongs to a model beside its weights and config.json, as relative paths."""
    taken = {CONFIG, *(shard.location.name for shard in shards)}
    found: list[Path] = []
    around = (Path(os.path.realpath(folder)),)
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        _refuse_dangling(path)
        if path.is_file() and path.name not in taken and not _is_weights(path):
            found.append(path)
        elif path.is_dir():
            inner = sorted(_files_in(path, around))
            if not any(map(_is_weights, inner)):  # else it is another model
                found += inner
    return [path.relative_to(folder) for path in found]


def copy_files(paths: Iterable[Path], source: Path, folder: Path) -> None:
    """Copy files by their paths, which are relative to the folders."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, folder / path)


def open_folder(path: str | os.PathLike[str]) -> ModelFolder:
    """Open the model of a folder.

    Raises
    ------
    FileNotFoundError
        There is no such folder, no config.json in it, or a shard is missing.
    ValueError
        A file is damaged, or there are no tensors.
    """
    _check_folder(Path(path))
    return ModelFolder(open_model(locate(path, None)))


def _check_folder(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"No such folder: '{path}'. {_NEEDED}")
    if not path.is_dir():
        raise NotADirectoryError(f"'{path}' is a file. {_NEEDED}")
    if not (path / CONFIG).is_file():
        raise FileNotFoundError(f"'{path}' has no {CONFIG}. {_NEEDED}")


def _refuse_dangling(path: Path) -> None:
    """Raise where a link leads to nothing: a file of the model is missing."""
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(f"'{path}' is a link to '{path.readlink()}', which does not exist")


def _files_in(folder: Path, around: tuple[Path, ...]) -> Iterator[Path]:
    """Give the files of a folder that lies in these, as links lead."""
    real = Path(os.path.realpath(folder))
    if real in around:
        raise ValueError(
            f"'{folder}' is a link that leads back to '{real}', which has it. Remove it"
        )
    for path in folder.iterdir():
        _refuse_dangling(path)
        if path.is_file():
            yield path
        elif path.is_dir():
            yield from _files_in(path, (*around, real))


def check_usable(path: Path) -> None:
    """Raise where a file cannot be read, or is a pointer of git-lfs to another."""
    if not os.access(path, os.R_OK):
        raise PermissionError(f"'{path}' may not be read, and belongs to the model")
    if path.stat().st_size in _POINTER_BYTES:
        with locate(path, None).open():  # which refuses pointers
            pass


def _is_weights(path: Path) -> bool:
    return any(fnmatch.fnmatchcase(path.name.lower(), weights) for weights in _WEIGHTS)


def pieces_of(shard: Shard, tensor: Tensor) -> Iterator[Any]:
    """Give the bytes of a tensor, mapped; what was read leaves the process's memory."""
    with shard.location.open() as file:
        check_size(shard.location, shard.size, file.size)
        for begin in range(tensor.begin, tensor.end, _PIECE):
            yield file.buffer(begin, min(_PIECE, tensor.end - begin))
            file.forget_pages()


def kept_entry(shard: Shard, tensor: Tensor, dtype: str) -> Entry:
    """Return a tensor of a shard as it is; codes are decoded to the dtype of the model."""
    if isinstance(tensor, CodedTensor):
        decoded = partial(_decoded, tensor, dtype)
        size = decoded_size(tensor, dtype)
        return Entry.known(tensor.name, DTYPES[dtype], tensor.shape, size, decoded)
    read = partial(pieces_of, shard, tensor)
    if isinstance(tensor, MadeTensor):
        read = partial(decoded_bytes, tensor)
    return Entry.known(tensor.name, tensor.dtype, tensor.shape, tensor.stored_bytes, read)


def decoded_size(tensor: CodedTensor, dtype: str) -> int:
    """Return the bytes of a layer that is decoded to the dtype of the model."""
    return math.prod(tensor.shape) * (4 if dtype == "float32" else 2)


def _decoded(tensor: CodedTensor, dtype: str) -> Iterator[Bytes]:
    yield rounded(tensor.decode(), dtype).reshape(-1).view(np.uint8)
