"""The folder of a Hugging Face model: its tensors, its config.json and its other files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from pyarrowquant._core.cells import Bytes
from pyarrowquant._core.quoting import quoted
from pyarrowquant.formats._layers import rounded
from pyarrowquant.formats._other_files import other_files
from pyarrowquant.formats._safetensors import Entry
from pyarrowquant.formats._watching import WATCHED, watched
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.location import given_path, locate
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.models import open_model
from pyarrowquant.reading.opened import check_size
from pyarrowquant.reading.safetensors import DTYPES, INDEX_SUFFIX, SINGLE, ShardedModel
from pyarrowquant.reading.shards import Shard
from pyarrowquant.reading.tensors import CodedTensor, MadeTensor, Tensor, decoded_bytes
from pyarrowquant.reading.turned import as_floats

_PIECE = 1 << 24
_NEEDED = (
    f"Give the folder of a Hugging Face model, which has {CONFIG}, the tokenizer and the weights"
)


class ModelFolder:
    """A model in a folder, with its config.json; files are only read.

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
        self.location = model.location
        if not isinstance(model, ShardedModel) or model.folder != model.location:
            raise (_not_a_folder if model.location.is_file() else _without_config)(self.location)
        self.model = model
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
    def index_metadata(self) -> Mapping[str, Any]:
        """What the index says of the model beside sizes; nothing without one."""
        return {} if self.model.index is None else self.model.index.metadata

    @property
    def dtype(self) -> str:
        """The dtype that the model is loaded with."""
        return self.model.loaded_dtype

    def known_dtype(self) -> str:
        """Return the dtype that the model is loaded with, or raise where it is none of weights."""
        if self.dtype not in DTYPES:
            raise ValueError(
                f"'{self.location.within(CONFIG)}' says that the model's dtype is "
                f"{quoted(self.dtype)}. It must be 'float32', 'float16' or 'bfloat16'"
            )
        return self.dtype

    def other_files(self) -> list[Path]:
        """List what belongs to the model beside its weights and config.json, as relative paths."""
        return other_files(self.location, self.shards)


def open_folder(path: str | os.PathLike[str]) -> ModelFolder:
    """Open the model of a folder.

    Raises
    ------
    FileNotFoundError
        There is no such folder, no config.json in it, or a shard is missing.
    ValueError
        A file is damaged, or there are no tensors.
    """
    place = given_path("model", path)
    if not place.exists():
        raise FileNotFoundError(f"No such folder: '{place}'. {_NEEDED}")
    if not place.is_dir():
        raise _not_a_folder(place)
    if not (place / CONFIG).is_file():
        raise _without_config(place)
    return ModelFolder(as_floats(open_model(locate(path, None))))


def _not_a_folder(path: object) -> NotADirectoryError:
    return NotADirectoryError(f"'{path}' is a file. {_NEEDED}")


def _without_config(path: object) -> FileNotFoundError:
    return FileNotFoundError(f"'{path}' has no {CONFIG}. {_NEEDED}")


def config_problem(model: Model) -> str:
    """Say why a model that is not opened as a folder has no config.json, and the way out.

    Parameters
    ----------
    model : Model
        Whose `folder` is None.
    """
    location = model.location
    if not location.is_file():
        return f"'{location.within(CONFIG)}' is missing. Copy it, and the tokenizer, there"
    if location.name.endswith(INDEX_SUFFIX):
        return f"'{location.beside(CONFIG)}' is missing. Copy it, and the tokenizer, there"
    if location.beside(CONFIG).exists():
        return (
            f"a file of weights has no {CONFIG}, which lies beside it. Give the folder "
            f"'{location.parent}'"
        )
    return f"a file of weights has no {CONFIG}"


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
        decoded = partial(_decoded, shard, tensor, dtype)
        size = decoded_size(tensor, dtype)
        return Entry.known(tensor.name, DTYPES[dtype], tensor.shape, size, decoded)
    read = partial(pieces_of, shard, tensor)
    if isinstance(tensor, MadeTensor):
        read = partial(decoded_bytes, tensor)
    if tensor.dtype in WATCHED:
        read = partial(_watched, shard, tensor.name, tensor.dtype, read)
    return Entry.known(tensor.name, tensor.dtype, tensor.shape, tensor.stored_bytes, read)


def _watched(
    shard: Shard, name: str, dtype: str, read: Callable[[], Iterable[Any]]
) -> Iterator[Any]:
    return watched(read(), dtype, name, shard.location)


def decoded_size(tensor: CodedTensor, dtype: str) -> int:
    """Return the bytes of a layer that is decoded to the dtype of the model."""
    return math.prod(tensor.shape) * (4 if dtype == "float32" else 2)


def _decoded(shard: Shard, tensor: CodedTensor, dtype: str) -> Iterator[Bytes]:
    weights = tensor.decode()
    stored = rounded(weights, dtype)
    if dtype == "float16" and np.isinf(stored).any() and np.isfinite(weights).all():
        raise ValueError(
            f"{shard.location}: {quoted(tensor.name)} decodes to weights of up to "
            f"{np.abs(weights).max():g}, beyond float16, whose largest is 65504. Let {CONFIG} say "
            "the dtype bfloat16 or float32"
        )
    pieces = [stored.reshape(-1).view(np.uint8)]
    return watched(pieces, DTYPES[dtype], tensor.name, shard.location)
