"""The folder of a Hugging Face model: its tensors, its config.json and its other files."""

from __future__ import annotations

import fnmatch
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrowquant.reading.location import locate
from pyarrowquant.reading.safetensors import SINGLE, Shard, read_folder
from pyarrowquant.reading.strict_json import check_nesting
from pyarrowquant.reading.tensors import Tensor

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}

_CONFIG = "config.json"
_PIECE = 1 << 24
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


class ModelFolder:
    """A model on this machine; its files are only read.

    Parameters
    ----------
    path : str or path

    Raises
    ------
    FileNotFoundError
        There is no such folder, no config.json in it, or a shard is missing.
    ValueError
        A file is damaged, or there are no tensors.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"No such folder: '{path}'. model is the folder of the model")
        if not self.path.is_dir():
            raise NotADirectoryError(f"'{path}' is a file. model is the folder of the model")
        if not (self.path / _CONFIG).is_file():
            raise FileNotFoundError(
                f"'{path}' has no {_CONFIG}. model is the folder of a Hugging Face model"
            )
        self.config = read_config(self.path)
        self.shards = read_folder(locate(self.path, None))
        self.tensors = {tensor.name: tensor for shard in self.shards for tensor in shard.tensors}

    @property
    def has_index(self) -> bool:
        """Whether loading needs an index."""
        return [shard.location.name for shard in self.shards] != [SINGLE]

    @property
    def dtype(self) -> str:
        """The dtype that the model is loaded with: what config.json says, or most tensors have."""
        for config in (self.config, self.config.get("text_config")):
            if isinstance(config, dict):
                for key in ("dtype", "torch_dtype"):
                    if isinstance(said := config.get(key), str) and said != "auto":
                        return said.removeprefix("torch.")
        names = {code: name for name, code in DTYPES.items()}
        found = Counter(names[t.dtype] for t in self.tensors.values() if t.dtype in names)
        return found.most_common(1)[0][0] if found else "float32"

    def other_files(self) -> Iterator[Path]:
        """Give what belongs to the model beside its weights and config.json, as relative paths."""
        taken = {_CONFIG, *(shard.location.name for shard in self.shards)}
        for path in sorted(self.path.iterdir()):
            if path.name.startswith("."):
                continue
            refuse_dangling(path)
            if path.is_file() and path.name not in taken and not _is_weights(path):
                yield Path(path.name)
            elif path.is_dir():
                inner = sorted(_files_in(path))
                if not any(map(_is_weights, inner)):  # else it is another model
                    yield from (file.relative_to(self.path) for file in inner)


def refuse_dangling(path: Path) -> None:
    """Raise where a link leads to nothing: a file of the model is missing."""
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(f"'{path}' is a link to '{path.readlink()}', which does not exist")


def _files_in(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        refuse_dangling(path)
        if path.is_file():
            yield path
        elif path.is_dir():
            yield from _files_in(path)


def _is_weights(path: Path) -> bool:
    return any(fnmatch.fnmatchcase(path.name.lower(), weights) for weights in _WEIGHTS)


def pieces_of(shard: Shard, tensor: Tensor) -> Iterator[Any]:
    """Give the bytes of a tensor, mapped; what was read leaves the process's memory."""
    with shard.location.open() as file:
        if file.size != shard.size:
            raise ValueError(
                f"{shard.location} had {shard.size} bytes when its header was read, now it has "
                f"{file.size}"
            )
        for begin in range(tensor.begin, tensor.end, _PIECE):
            yield file.buffer(begin, min(_PIECE, tensor.end - begin))
            file.forget_pages()


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model's config.json; what is not a JSON object is an error."""
    path = folder / _CONFIG
    try:
        # Not as strict as for weights: real ones have Infinity.
        data = path.read_bytes()
        check_nesting(data)
        config = json.loads(data.decode())
    except ValueError as error:
        raise ValueError(f"'{path}' is not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"'{path}' must be a JSON object, it is {type(config).__name__}")
    return config
