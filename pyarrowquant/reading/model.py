"""A model: its files, each opened once, its tensors, and its weights as batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import pyarrow as pa

from pyarrowquant.reading import arrow_files, gguf, npz, onnx, safetensors
from pyarrowquant.reading.config import CONFIG, read_config
from pyarrowquant.reading.gguf_header import Header
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.onnx_model import ExternalFiles, external_tensors
from pyarrowquant.reading.safetensors import Shard
from pyarrowquant.reading.tensors import SCHEMA, Tensor

BATCH_BYTES = 256 * 2**20


class Model(ABC):
    """A source of weights, whose headers have been read.

    Parameters
    ----------
    location : Location
        What `open_model` was given.
    """

    schema = SCHEMA

    def __init__(self, location: Location) -> None:
        self.location = location

    @property
    @abstractmethod
    def tensors(self) -> Sequence[Tensor] | None:
        """All tensors, of any dtype; None for files that say them with their data."""

    @property
    def files(self) -> Sequence[Location]:
        """The files that weights are read from."""
        return [self.location]

    @property
    def folder(self) -> Location | None:
        """The folder of a Hugging Face model, if this is one, or its index."""
        return None

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """What config.json of the folder says; None without one."""
        return None if self.folder is None else read_config(self.folder.within(CONFIG))

    @abstractmethod
    def batches(self, batch_bytes: int, only_floats: bool, skip: int) -> Iterator[pa.RecordBatch]:
        """Return the weights, without so many batches at the beginning.

        What makes reading impossible is raised by the call, not by the first batch.
        """

    def reader(
        self, batch_bytes: int = BATCH_BYTES, only_floats: bool = True, skip: int = 0
    ) -> pa.RecordBatchReader:
        """Return the weights as `read_weights` does, without some batches at the beginning."""
        batches = self.batches(batch_bytes, only_floats, skip)
        return pa.RecordBatchReader.from_batches(self.schema, batches)


class ShardedModel(Model):
    """Safetensors: a file, or the shards of a folder or an index."""

    def __init__(self, location: Location, shards: Sequence[Shard]) -> None:
        super().__init__(location)
        self.shards = shards

    @cached_property
    def folder(self) -> Location | None:
        is_index = self.location.name.endswith(safetensors.INDEX_SUFFIX)
        folder = self.location.parent if is_index else self.location
        return folder if folder.within(CONFIG).exists() else None

    @cached_property
    def tensors(self) -> Sequence[Tensor]:
        return [tensor for shard in self.shards for tensor in shard.tensors]

    @property
    def files(self) -> Sequence[Location]:
        return [shard.location for shard in self.shards]

    def batches(self, batch_bytes: int, only_floats: bool, skip: int) -> Iterator[pa.RecordBatch]:
        selected = safetensors.selected(self.shards, only_floats, self.location)
        return safetensors.batches(selected, batch_bytes, skip)


class GgufModel(ShardedModel):
    """A GGUF file."""

    def __init__(self, location: Location) -> None:
        self.header: Header = gguf.open_header(location)
        super().__init__(location, [gguf.shard_of(location, self.header)])


class OnnxModel(Model):
    """An ONNX model: its layers are the constant matrices that it multiplies with.

    Attributes
    ----------
    proto : onnx.ModelProto
        Data of other files stays there.
    """

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self.proto: Any = onnx.open_proto(location)

    @cached_property
    def layers(self) -> Sequence[onnx.Layer]:
        return onnx.layers_of(self.proto, self.location)

    @cached_property
    def tensors(self) -> Sequence[Tensor]:
        return onnx.tensors_of(self.layers)

    @cached_property
    def files(self) -> Sequence[Location]:
        files = ExternalFiles(self.location)
        places = (files.place(tensor, tensor.name) for tensor in external_tensors(self.proto))
        return [self.location, *{place.location.path: place.location for place in places}.values()]

    def batches(self, batch_bytes: int, only_floats: bool, skip: int) -> Iterator[pa.RecordBatch]:
        layers = onnx.selected(self.layers, only_floats, self.location)
        return islice(onnx.batches(self.location, layers, batch_bytes), skip, None)


class NpzModel(Model):
    """Arrays of numpy."""

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self._arrays = npz.read_arrays(location)

    @property
    def tensors(self) -> Sequence[Tensor]:
        return self._arrays

    def batches(self, batch_bytes: int, only_floats: bool, skip: int) -> Iterator[pa.RecordBatch]:
        arrays = npz.selected(self._arrays, only_floats, self.location)
        return islice(npz.batches(self.location, arrays, batch_bytes), skip, None)


class TableModel(Model):
    """A table of layers in a file of Parquet or Arrow."""

    tensors = None

    def __init__(self, location: Location, is_parquet: bool) -> None:
        super().__init__(location)
        self._is_parquet = is_parquet
        read = arrow_files.parquet_schema if is_parquet else arrow_files.ipc_schema
        self.schema = read(location)

    def batches(self, batch_bytes: int, only_floats: bool, skip: int) -> Iterator[pa.RecordBatch]:
        read = arrow_files.parquet_batches if self._is_parquet else arrow_files.ipc_batches
        return islice(read(self.location, self.schema, batch_bytes, only_floats), skip, None)
