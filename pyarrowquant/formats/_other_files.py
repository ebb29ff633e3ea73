"""The files of a model's folder that go along with its weights."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.shards import Shard

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
# What says how weights are coded, beside config.json: of others than those that are written. vLLM
# reads that of ModelOpt where config.json says nothing.
_SAYING_CODES = frozenset({"hf_quant_config.json", "quant_config.json", "quantize_config.json"})


def other_files(folder: Location, shards: Iterable[Shard]) -> list[Path]:
    """List what belongs to a model beside its weights and config.json, as relative paths."""
    taken = {CONFIG, *_SAYING_CODES, *(shard.location.name for shard in shards)}
    if not folder.is_local:
        return _elsewhere(folder, taken)
    found: list[Path] = []
    place = Path(folder.path)
    around = (Path(os.path.realpath(place)),)
    for path in sorted(place.iterdir()):
        if path.name.startswith("."):
            continue
        _refuse_dangling(path)
        if path.is_file() and path.name not in taken and not _is_weights(path):
            found.append(path)
        elif path.is_dir():
            inner = sorted(_files_in(path, around))
            if not any(map(_is_weights, inner)):  # else it is another model
                found += inner
    return [path.relative_to(place) for path in found]


def _elsewhere(folder: Location, taken: Iterable[str]) -> list[Path]:
    """List likewise what is in a folder of a store, by the names in it."""
    paths = sorted(map(Path, folder.names_within()))
    with_weights = {path.parts[0] for path in paths if len(path.parts) > 1 and _is_weights(path)}
    return [
        path
        for path in paths
        if not path.name.startswith(".")
        and not path.parts[0].startswith(".")
        and str(path) not in taken
        and path.parts[0] not in with_weights
        and not _is_weights(path)
    ]


def copy_files(paths: Iterable[Path], source: Location, folder: Path) -> None:
    """Copy files by their paths, which are relative to the folders."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if source.is_local:
            shutil.copyfile(source.path / path, folder / path)
            continue
        with source.within(path.as_posix()).open() as file:
            (folder / path).write_bytes(file.buffer(0, file.size))


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


def usable_size(file: Location) -> int:
    """Return the bytes of a file; raise where it cannot be read, or is a pointer of git-lfs."""
    if file.is_local and not os.access(file.path, os.R_OK):
        raise PermissionError(f"'{file}' may not be read, and belongs to the model")
    size = file.size
    if size in _POINTER_BYTES:
        with file.open():  # which refuses pointers
            pass
    return size


def _is_weights(path: Path) -> bool:
    return any(fnmatch.fnmatchcase(path.name.lower(), weights) for weights in _WEIGHTS)
