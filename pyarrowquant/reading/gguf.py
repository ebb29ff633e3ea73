"""GGUF models of this machine: their tensors, and all that they say beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from pyarrow import fs

from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Floats
from pyarrowquant.reading.gguf_header import EndsEarlyError, Header, read_header
from pyarrowquant.reading.location import Location, MappedFile
from pyarrowquant.reading.safetensors import Shard, ShardedModel
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import CodedTensor, Tensor, UndecodableTensor

_FIRST_BYTES = 1 << 24  # more than most headers have
_PIECE = 1 << 20  # weights that are decoded at a time


def import_gguf(doing: str) -> Any:
    try:
        import gguf
    except ImportError:
        raise ImportError(f"{doing} GGUF needs gguf: pip install pyarrowquant[gguf]") from None
    return gguf


def open_header(location: Location) -> Header:
    """Read the header of a model in one file; what cannot be read is an error."""
    if not isinstance(location.filesystem, fs.LocalFileSystem):
        raise ValueError(f"{location}: GGUF is read from files of this machine only; download it")
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
    parts = header.value("split.count")
    if isinstance(parts, list):
        raise ValueError(f"{location}: split.count is {quoted(parts)}, it must be a number")
    if isinstance(parts, int) and parts > 1:
        raise ValueError(
            f"{location}: the model is split into {parts} files. Merge them first, with "
            "llama-gguf-split --merge"
        )
    return header


# Types whose tensors are what they are, not codes.
_NUMBERS = frozenset({"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"})


def _shard_of(location: Location, header: Header) -> Shard:
    """Return the layers of a model, in the order of their bytes."""
    gguf = import_gguf("Reading")
    stored = {tensor.name: tensor for tensor in header.tensors}
    scales = {
        tensor.name: stored[name]
        for tensor in header.tensors
        if tensor.dtype == "NVFP4"
        and (name := f"{tensor.name.removesuffix('weight')}scale") in stored
    }
    parts = {scale.name for scale in scales.values()}

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
        files = {
            what: Stored(location, header.size, part)
            for what, part in (("codes", tensor), ("scale", scale))
            if part is not None
        }
        return CodedTensor(
            tensor.name,
            "F32",
            tensor.shape,
            tensor.begin,
            tensor.end,
            tensor.dtype,
            8 * block_bytes // block,
            0 if scale is None else scale.end - scale.begin,
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
    """A GGUF file.

    Attributes
    ----------
    header : Header
        With tensors as the file has them.
    """

    def __init__(self, location: Location) -> None:
        self.header: Header = open_header(location)
        super().__init__(location, [_shard_of(location, self.header)])

    @property
    def stored(self) -> Sequence[tuple[Location, Tensor]]:
        """The tensors as the file has them, in its order."""
        return [(self.location, tensor) for tensor in self.header.tensors]
