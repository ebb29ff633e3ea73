"""A model: its files, each opened once, its tensors, and its weights as batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from pyarrowquant.reading.config import CONFIG, read_config
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.tensors import FLOATS, SCHEMA, Tensor

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

    def can_quantize(self, tensor: Tensor) -> bool:
        """Whether a tensor is one of the weights that batches have."""
        return tensor.dtype in FLOATS

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
