"""The safetensors files of a model: one, the shards of an index, or all of a folder."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pyarrowquant._core.quoting import first_few, quoted
from pyarrowquant.errors import users_level
from pyarrowquant.reading.coded import find_codes
from pyarrowquant.reading.config import CONFIG, read_config, without_quantization
from pyarrowquant.reading.found_codes import Codes, Unnamed
from pyarrowquant.reading.importance_kinds import KEY, no_model
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.safetensors_header import LONGEST_HEADER, read_header
from pyarrowquant.reading.shards import Shard, decode_now, read_batches, read_one
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.strict_json import parse_object
from pyarrowquant.reading.tensors import (
    CodedTensor,
    Decode,
    Tensor,
    check_some_left,
    is_damaged,
    select,
)

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
INDEX_SUFFIX = ".safetensors.index.json"
_SHARD = re.compile(r"(.*[-_.])(\d+)-of-(\d+)(.*\.(?:safetensors|gguf))")
_VARIANT = re.compile(r"(.+)\.[^.]+\.safetensors")
_MOST_SHARDS = 100_000
_SIZES = ("total_size", "total_parameters")  # of an index, as transformers and mlx-lm write them


@dataclass(frozen=True)
class Index:
    """An index of shards, and what it says of the model beside sizes, which change with weights."""

    location: Location
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Headers:
    """What the files of a model say: shards, and their index if they have one.

    Attributes
    ----------
    unnamed : sequence of str
        Tensors that shards have, and their index does not name.
    """

    shards: Sequence[Shard]
    index: Index | None = None
    unnamed: Sequence[str] = ()


def read_file(location: Location) -> list[Shard]:
    """Read the header of a file."""
    with location.open() as file:
        tensors, metadata = read_header(file, str(location))
        if KEY in metadata:
            raise no_model(location)
        return [Shard(location, file.size, tensors, metadata)]


def files_by_name(name: str) -> int:
    """Return of how many files a model is, one of which has this name, as far as that says."""
    said = _SHARD.fullmatch(name)
    return 1 if said is None else int(said[3])


def read_folder(folder: Location) -> Headers:
    """Read the headers of a folder's model: what transformers would take, or all there is."""
    names = folder.file_names()
    if SINGLE in names:
        _warn_of_variants([name for name in names if _base_of(name) == SINGLE], folder)
        return Headers(read_file(folder.within(SINGLE)))
    indexes = [name for name in names if name.endswith(INDEX_SUFFIX)]
    if INDEX in indexes:
        return read_index(folder.within(INDEX))
    if len(indexes) > 1:
        raise ValueError(f"{folder} has several models: {', '.join(indexes)}. Give the path of one")
    if indexes:
        return read_index(folder.within(indexes[0]))
    files = [name for name in names if name.endswith(".safetensors")]
    if not files:
        raise ValueError(
            f"{folder} has no model: neither {SINGLE} nor {INDEX} nor any *.safetensors"
            f"{_snapshot_hint(folder)}"
        )
    _check_complete(files, folder)
    shards = [shard for name in files for shard in read_file(folder.within(name))]
    shards = _without_variants(shards, folder)
    _owners(shards, folder)
    return Headers(shards)


def _snapshot_hint(folder: Location) -> str:
    """Say which folder has the model where this one is of the cache of the Hugging Face Hub."""
    place = Path(folder.path)
    if not folder.is_local or not (place / "snapshots").is_dir():
        return ""
    main = place / "refs" / "main"
    names = sorted(path.name for path in (place / "snapshots").iterdir() if path.is_dir())
    said = main.read_text(encoding="utf-8", errors="replace") if main.is_file() else ""
    if said.strip() in names:
        names = [said.strip()]
    revisions = " or ".join(f"'{place / 'snapshots' / name}'" for name in names)
    return (
        f". The cache of the Hugging Face Hub has it in a folder of its own: {revisions}"
        if names
        else ""
    )


def _base_of(name: str) -> str | None:
    """Return of which file one is a variant by its name, as NAME.fp16.safetensors of NAME's."""
    said = _VARIANT.fullmatch(name)
    return None if said is None else f"{said[1]}.safetensors"


def _without_variants(shards: Sequence[Shard], folder: Location) -> list[Shard]:
    """Leave out files that have the tensors of another one once more, in another dtype."""
    names = {shard.location.name: {tensor.name for tensor in shard.tensors} for shard in shards}
    variants = [name for name in names if names.get(_base_of(name) or "") == names[name]]
    _warn_of_variants(variants, folder)
    return [shard for shard in shards if shard.location.name not in variants]


def _warn_of_variants(variants: Sequence[str], folder: Location) -> None:
    if variants:
        warnings.warn(
            f"{folder}: '{_base_of(variants[0])}' is read, and none of its variants: "
            f"{first_few([quoted(name) for name in variants])}. To take one of these, give its "
            "path, or move the others away",
            UserWarning,
            stacklevel=users_level(),
        )


def _check_complete(files: Sequence[str], folder: Location) -> None:
    """Raise where the names of shards say that there are more, as in model-00001-of-00002."""
    for name in files:
        said = _SHARD.fullmatch(name)
        if said is None:
            continue
        before, count, after = said[1], int(said[3]), said[4]
        digits = len(said[2]), len(said[3])
        for number in range(1, min(count, _MOST_SHARDS) + 1):
            shard = f"{before}{number:0{digits[0]}d}-of-{count:0{digits[1]}d}{after}"
            if shard not in files:
                raise FileNotFoundError(f"{folder}: the shard {quoted(shard)} is missing. Fetch it")


def read_index(index: Location) -> Headers:
    """Read an index and the headers of its shards, in the order of the shards' names."""
    weight_map, metadata = _parse_index(index)
    shards = []
    for name in sorted(set(weight_map.values())):
        location = index.beside(name)
        if not location.exists():
            raise FileNotFoundError(f"{index}: the shard {quoted(name)} is missing. Fetch it")
        shards += read_file(location)
    owners = _owners(shards, index)
    for tensor, shard in weight_map.items():
        if tensor not in owners:
            raise ValueError(f"{index}: tensor {quoted(tensor)} is missing from {quoted(shard)}")
        if owners[tensor] != shard:
            raise ValueError(
                f"{index}: tensor {quoted(tensor)} should be in {quoted(shard)}, it is in "
                f"{quoted(owners[tensor])}"
            )
    unnamed = [tensor for tensor in owners if tensor not in weight_map]
    return Headers(shards, Index(index, metadata), unnamed)


def _warn_of_unnamed(index: Location, names: Sequence[str]) -> None:
    warnings.warn(
        f"{index} does not name all tensors of its shards. These are taken, too: "
        f"{first_few([quoted(name) for name in names])}",
        UserWarning,
        stacklevel=users_level(),
    )


def _warn_of_mistakes(config: Location, found: Codes) -> None:
    """Warn of floats in the place of codes, and the reverse."""
    for names, key, problem in (
        (
            found.floats,
            found.key_of_floats,
            "does not list in {} what is of floats, where layers like it are codes, which engines "
            "look for: {}. They are taken as they are. Download the folder anew if they should be "
            "codes",
        ),
        (
            list(found.coded),
            next(iter(found.coded.values()), None),
            "lists in {} what has codes, which engines take for weights but where they decode all "
            "while loading: {}. They are decoded all the same. Take the config.json that came "
            "with the weights",
        ),
    ):
        if names:
            told = problem.format(key, first_few([quoted(name) for name in names]))
            warnings.warn(f"{config} {told}", UserWarning, stacklevel=users_level())


def _parse_index(index: Location) -> tuple[dict[str, str], dict[str, Any]]:
    """Return which shard has which tensor, and the metadata but for sizes."""
    with index.open() as file:
        if file.size > LONGEST_HEADER:
            raise ValueError(f"{index} has {file.size} bytes, the most allowed is {LONGEST_HEADER}")
        parsed = parse_object(file.buffer(0, file.size).to_pybytes(), str(index))
    weight_map = parsed.get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{index}: weight_map must be an object, it is {quoted(weight_map)}")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or shard in ("", ".", "..") or set(shard) & set("/\\:\0"):
            raise ValueError(
                f"{index}: the shard of tensor {quoted(tensor)} must be the name of a file in the "
                f"same folder, it is {quoted(shard)}"
            )
    metadata = parsed.get("metadata")
    if not isinstance(metadata, dict | None):
        raise ValueError(
            f"{index}: metadata must be an object, it is {quoted(metadata)}. Write {{}} there"
        )
    said = {key: value for key, value in (metadata or {}).items() if key not in _SIZES}
    return weight_map, said


def _owners(shards: Sequence[Shard], place: Location) -> dict[str, str]:
    """Return the name of each tensor's file; a tensor in two of them is an error."""
    owners: dict[str, str] = {}
    for shard in shards:
        for tensor in shard.tensors:
            other = owners.setdefault(tensor.name, shard.location.name)
            if other != shard.location.name:
                raise ValueError(
                    f"{place}: tensor {quoted(tensor.name)} is in {quoted(other)} and in "
                    f"{quoted(shard.location.name)}. Move one of these files away, or give the "
                    "path of the one that is wanted"
                )
    return owners


def selected(shards: Sequence[Shard], only_floats: bool, path: object) -> list[Shard]:
    """Leave out tensors that cannot be quantized, if that is wanted."""
    left = [replace(shard, tensors=select(shard.tensors, only_floats)) for shard in shards]
    everything = [tensor for shard in shards for tensor in shard.tensors]
    check_some_left(path, everything, [tensor for shard in left for tensor in shard.tensors])
    return left


def stored_in(shards: Sequence[Shard]) -> list[Stored]:
    """List all tensors with their files."""
    return [
        Stored(shard.location, shard.size, tensor) for shard in shards for tensor in shard.tensors
    ]


def decodable(headers: Headers) -> list[Shard]:
    """Put layers in the place of their codes; what these are decoded with is left out."""
    shards, index = headers.shards, headers.index
    stored = {one.tensor.name: one for one in stored_in(shards)}

    @cache
    def config() -> dict[str, Any]:
        path = shards[0].location.beside(CONFIG)
        return read_config(path) if path.exists() else {}

    unnamed = Unnamed(index.location, set(headers.unnamed)) if index and headers.unnamed else None
    found = find_codes(stored, config, unnamed)
    if unnamed is not None and not any(is_damaged(tensor) for tensor in found.layers.values()):
        _warn_of_unnamed(unnamed.index, headers.unnamed)
    _warn_of_mistakes(shards[0].location.beside(CONFIG), found)
    return [
        replace(
            shard,
            tensors=[
                found.layers.get(tensor.name, tensor)
                for tensor in shard.tensors
                if tensor.name not in found.parts
            ],
        )
        for shard in shards
    ]


class ShardedModel(Model):
    """Safetensors: a file, or the shards of a folder or an index."""

    def __init__(
        self, location: Location, shards: Sequence[Shard], index: Index | None = None
    ) -> None:
        super().__init__(location)
        self.shards = shards
        self.index = index
        self._decode: Decode = decode_now

    @cached_property
    def folder(self) -> Location | None:
        is_index = self.location.name.endswith(INDEX_SUFFIX)
        folder = self.location.parent if is_index else self.location
        return folder if folder.within(CONFIG).exists() else None

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """What config.json of the folder says, but of codes that reading decodes, or that are not.

        It says so of none where it was left over, as by scripts that decode weights.
        """
        said = super().config
        return said if said is None or self.has_unread_codes else without_quantization(said)

    @cached_property
    def tensors(self) -> Sequence[Tensor]:
        return [tensor for shard in self.shards for tensor in shard.tensors]

    @cached_property
    def loaded_dtype(self) -> str:
        """The dtype that the model is loaded with: what config.json says, or most tensors have."""
        config = self.config or {}
        for said in (config, config.get("text_config")):
            if isinstance(said, dict):
                for key in ("dtype", "torch_dtype"):
                    if isinstance(name := said.get(key), str) and name != "auto":
                        return name.removeprefix("torch.")
        names = {code: name for name, code in DTYPES.items()}
        found = Counter(
            names[tensor.dtype]
            for tensor in self.tensors
            if tensor.dtype in names and not isinstance(tensor, CodedTensor)
        )
        return found.most_common(1)[0][0] if found else "float32"

    def decoded_by(self, decode: Decode) -> Model:
        changed = copy(self)
        changed._decode = decode
        return changed

    def without(self, names: Collection[str]) -> Model:
        return self.with_tensors(lambda tensor: None if tensor.name in names else tensor)

    def with_tensors(self, become: Callable[[Tensor], Tensor | None]) -> Model:
        """Return the model with what tensors become; those that become None are left out."""
        changed = copy(self)
        changed.__dict__.pop("tensors", None)  # which is made of the shards
        changed.shards = [
            replace(shard, tensors=[found for t in shard.tensors if (found := become(t))])
            for shard in self.shards
        ]
        return changed

    @property
    def files(self) -> Sequence[Location]:
        return [shard.location for shard in self.shards]

    @property
    def said_in(self) -> Sequence[Location]:
        """The index, if it says what goes along with the weights."""
        return [] if self.index is None or not self.index.metadata else [self.index.location]

    def layer_readers(self) -> Iterator[tuple[str | None, Callable[[], pa.RecordBatch]]]:
        self._refuse_codes()
        for shard in selected(self.shards, True, self.location):
            for tensor in shard.tensors:
                yield tensor.name, partial(read_one, shard, tensor)

    def batches(self, batch_bytes: int, only_floats: bool, skip: int) -> Iterator[pa.RecordBatch]:
        shards = selected(self.shards, only_floats, self.location)
        return read_batches(shards, batch_bytes, skip, self._decode)
