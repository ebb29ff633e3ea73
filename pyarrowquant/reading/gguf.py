"""GGUF models: their tensors, and all that they say beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Floats
from pyarrowquant.reading.gguf_header import EndsEarlyError, Header, read_header
from pyarrowquant.reading.importance_kinds import GGUF_TYPE, no_model
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.opened import MappedFile
from pyarrowquant.reading.safetensors import ShardedModel
from pyarrowquant.reading.shards import Shard
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import CodedTensor, Tensor, UndecodableTensor

_FIRST_BYTES = 1 << 24  # more than most headers have
_PIECE = 1 << 20  # weights that are decoded at a time
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")  # as llama-gguf-split names them
_MOST_PARTS = 65_535


def import_gguf(doing: str) -> Any:
    try:
        import gguf
    except ImportError:
        raise ImportError(f"{doing} GGUF needs gguf: pip install 'pyarrowquant[gguf]'") from None
    return gguf


def open_header(location: Location) -> Header:
    """Read the header of a model in one file; what cannot be read is an error."""
    gguf = import_gguf("Reading")
    types = {
        int(type_): (str(type_.name), int(block), int(block_bytes))
        for type_, (block, block_bytes) in gguf.GGML_QUANT_SIZES.items()
    }
    with location.open() as file:
        # One that cannot be mapped is read as far as its header goes.
        length = file.size if isinstance(file, MappedFile) else min(_FIRST_BYTES, file.size)
        while True:
            try:
                data = memoryview(file.buffer(0, length))
                header = read_header(data, file.size, str(location), types)
                break
            except EndsEarlyError:
                if length == file.size:
                    raise
                length = min(2 * length, file.size)
    return header


def _headers(location: Location) -> list[tuple[Location, Header]]:
    """Read the headers of all files that a model is split into, in their order."""
    header = open_header(location)
    count = _part_number(header, "split.count", location)
    if count < 2:
        return [(location, header)]
    name = _PART.fullmatch(location.name)
    if name is None or int(name[3]) != count:
        raise ValueError(
            f"{location}: the model is split into {count} files, whose names must be like "
            f"NAME-00001-of-{count:05d}.gguf"
        )
    headers = []
    for number in range(1, count + 1):
        part = location.beside(f"{name[1]}-{number:05d}-of-{name[3]}.gguf")
        if part != location and not part.exists():
            raise FileNotFoundError(
                f"{location}: the part {quoted(part.name)} is missing. Fetch it"
            )
        found = header if part == location else open_header(part)
        if _part_number(found, "split.count", part) != count:
            raise ValueError(f"{part}: its split.count is not {count}, as that of {location}")
        if _part_number(found, "split.no", part) != number - 1:
            raise ValueError(f"{part}: its split.no must be {number - 1}, by its name")
        headers.append((part, found))
    _check_tensors(headers)
    return headers


def _part_number(header: Header, key: str, location: Location) -> int:
    said = header.value(key)
    if said is None:
        return 0
    if not isinstance(said, int) or isinstance(said, bool) or said > _MOST_PARTS:
        raise ValueError(
            f"{location}: {key} is {quoted(said)}, it must be a number up to {_MOST_PARTS}"
        )
    return said


def _check_tensors(headers: Sequence[tuple[Location, Header]]) -> None:
    """Raise where parts are of different models: a tensor is in two, or some are in none."""
    owners: dict[str, Location] = {}
    for location, header in headers:
        for tensor in header.tensors:
            if tensor.name in owners:
                raise ValueError(
                    f"{location}: tensor {quoted(tensor.name)} is in '{owners[tensor.name]}' too"
                )
            owners[tensor.name] = location
    first, header = headers[0]
    said = header.value("split.tensors.count")
    if said is not None and said != len(owners):
        raise ValueError(
            f"{first}: split.tensors.count is {quoted(said)}, the parts have {len(owners)} tensors"
        )


# Types whose tensors are what they are, not codes.
_NUMBERS = frozenset({"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"})


def _shard_of(location: Location, header: Header, stored: Mapping[str, Stored]) -> Shard:
    """Return the layers of a file, in the order of their bytes, given all that the model has."""
    gguf = import_gguf("Reading")
    scales = {
        name: stored[scale]
        for name, one in stored.items()
        if one.tensor.dtype == "NVFP4"
        and (scale := f"{name.removesuffix('weight')}scale") in stored
    }
    parts = {scale.tensor.name for scale in scales.values()}

    def layer(tensor: Tensor) -> Tensor:
        if tensor.dtype in _NUMBERS:
            return tensor
        type_ = gguf.GGMLQuantizationType[tensor.dtype]
        block, block_bytes = gguf.GGML_QUANT_SIZES[type_]
        said = tensor.name, tensor.shape, tensor.begin, tensor.end
        try:
            gguf.quants.dequantize(np.zeros((1, block_bytes), np.uint8), type_)
        except (NotImplementedError, KeyError):
            problem = f"the installed gguf does not decode {tensor.dtype}"
            name, shape, begin, end = said
            return UndecodableTensor(name, tensor.dtype, shape, begin, end, problem)
        scale = scales.get(tensor.name)
        files = {"codes": stored[tensor.name]}
        if scale is not None:
            files["scale"] = scale
        return CodedTensor(
            tensor.name,
            "F32",
            tensor.shape,
            tensor.begin,
            tensor.end,
            tensor.dtype,
            8 * block_bytes // block,
            0 if scale is None else scale.tensor.end - scale.tensor.begin,
            partial(_decode, gguf, type_, block, block_bytes, files),
        )

    tensors = [layer(tensor) for tensor in header.tensors if tensor.name not in parts]
    return Shard(location, header.size, sorted(tensors, key=lambda tensor: tensor.begin))


def _decode(
    gguf: Any, type_: Any, block: int, block_bytes: int, files: Mapping[str, Stored]
) -> Floats:
    """Decode some blocks at a time, so that what that needs stays small."""
    shape = files["codes"].tensor.shape
    with files["codes"].open_bytes() as data:
        blocks = data.reshape(-1, block_bytes)
        weights = np.empty((len(blocks), block), np.float32)
        step = _PIECE // block
        for start in range(0, len(blocks), step):
            part = blocks[start : start + step]
            weights[start : start + step] = gguf.quants.dequantize(part, type_)
    if "scale" in files:  # of each matrix of a stack
        scales = files["scale"].read()
        weights = (weights.reshape(scales.size, -1) * scales.reshape(-1, 1)).astype(np.float32)
    return weights.reshape(shape)


class GgufModel(ShardedModel):
    """A GGUF file, or all files that a model is split into.

    Attributes
    ----------
    header : Header
        Of the first file, which has what the model says.
    stored : list of Stored
        Tensors as the files have them, in their order.
    """

    def __init__(self, location: Location) -> None:
        headers = _headers(location)
        if headers[0][1].value("general.type") == GGUF_TYPE:
            raise no_model(location)
        self.header: Header = headers[0][1]
        self.stored = [
            Stored(file, header.size, tensor)
            for file, header in headers
            for tensor in header.tensors
        ]
        by_name = {one.tensor.name: one for one in self.stored}
        super().__init__(location, [_shard_of(*each, by_name) for each in headers])

    @property
    def has_tokenizer(self) -> bool:
        """Whether it is a model, as tensors by themselves have no tokenizer."""
        return self.header.value("tokenizer.ggml.model") is not None
