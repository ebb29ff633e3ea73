"""GGUF models of this machine: their tensors, and all that they say beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyarrow import fs

from pyarrowquant._checkpoint import Shard
from pyarrowquant._files import Location, cached_by_file
from pyarrowquant._tensors import Tensor, quoted


def import_gguf(doing: str) -> Any:
    try:
        import gguf
    except ImportError:
        raise ImportError(f"{doing} GGUF needs gguf: pip install pyarrowquant[gguf]") from None
    return gguf


def open_reader(location: Location) -> Any:
    """Open a model with the reader of gguf; what that cannot read is an error."""
    gguf = import_gguf("Reading")
    try:
        # sizes of hostile files overflow, and end up beyond the file
        with np.errstate(over="ignore"):
            reader = _bounded(gguf)(location.path)
    except OSError:
        raise
    except Exception as error:  # gguf checks little, and numpy raises what it likes
        raise ValueError(f"{location}: no GGUF file that can be read: {error}") from error
    if reader.endianess != gguf.GGUFEndian.LITTLE:
        raise ValueError(f"{location}: the file is big-endian, only little-endian ones are read")
    parts = reader.get_field("split.count")
    if parts is not None and parts.contents() > 1:
        raise ValueError(
            f"{location}: the model is split into {parts.contents()} files. Merge them first, with "
            "llama-gguf-split --merge"
        )
    return reader


def _bounded(gguf: Any) -> Any:
    """Return gguf's reader, which by itself takes what lies beyond the file as empty.

    It also takes 20 microseconds for each of the million parts of a vocabulary, since slices of
    numpy.memmap do.
    """

    class Bounded(gguf.GGUFReader):  # type: ignore[misc]
        data: Any

        def _get(
            self, offset: Any, dtype: Any, count: Any = 1, override_order: str | None = None
        ) -> Any:
            if isinstance(self.data, np.memmap):
                self.data = self.data.view(np.ndarray)
            begin = int(offset)
            end = begin + np.dtype(dtype).itemsize * int(count)
            if end > len(self.data):
                raise ValueError("its header or a tensor is beyond its end")
            found = self.data[begin:end].view(dtype)
            order = override_order or self.byte_order
            return found if order == "I" else found.view(found.dtype.newbyteorder(order))

    return Bounded


@cached_by_file  # a vocabulary takes gguf a second
def read_shard(location: Location) -> Shard:
    """Read the header of a model; its tensors in the order of their bytes."""
    if not isinstance(location.filesystem, fs.LocalFileSystem):
        raise ValueError(f"{location}: GGUF is read from files of this machine only; download it")
    reader = open_reader(location)
    tensors = [tensor_of(tensor, location, len(reader.data)) for tensor in reader.tensors]
    return Shard(location, len(reader.data), sorted(tensors, key=lambda tensor: tensor.begin))


def tensor_of(tensor: Any, location: Location, file_size: int) -> Tensor:
    """Describe a tensor; GGUF has its dimensions the innermost first."""
    shape = tuple(int(n) for n in reversed(tensor.shape))
    begin, end = int(tensor.data_offset), int(tensor.data_offset) + int(tensor.n_bytes)
    if min(shape, default=0) < 0 or not 0 <= begin <= end <= file_size:
        raise ValueError(f"{location}: tensor {quoted(tensor.name)} lies beyond the file")
    return Tensor(tensor.name, tensor.tensor_type.name, shape, begin, end)
