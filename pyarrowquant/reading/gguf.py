"""GGUF models of this machine: their tensors, and all that they say beside them."""

from __future__ import annotations

from typing import Any

from pyarrow import fs

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.gguf_header import EndsEarlyError, Header, read_header
from pyarrowquant.reading.location import Location, MappedFile
from pyarrowquant.reading.safetensors import Shard, ShardedModel

_FIRST_BYTES = 1 << 24  # more than most headers have


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


def _shard_of(location: Location, header: Header) -> Shard:
    """Return the tensors of a model, in the order of their bytes."""
    return Shard(location, header.size, sorted(header.tensors, key=lambda tensor: tensor.begin))


class GgufModel(ShardedModel):
    """A GGUF file."""

    def __init__(self, location: Location) -> None:
        self.header: Header = open_header(location)
        super().__init__(location, [_shard_of(location, self.header)])
