"""Files with tensors of a model that lie one behind the other, and batches of these."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

import pyarrow as pa

from pyarrowquant.reading.location import Location
from pyarrowquant.reading.opened import check_size
from pyarrowquant.reading.tensors import (
    DECODED,
    Decode,
    Tensor,
    batch_of,
    decoded_batch,
    runs,
)


@dataclass(frozen=True)
class Shard:
    """A file, its size when its header was read, the tensors to read from it, and its metadata."""

    location: Location
    size: int
    tensors: Sequence[Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)


def decode_now(layers: Sequence[Tensor], _: Sequence[Tensor] | None) -> pa.RecordBatch:
    """Decode layers when they are asked for."""
    return decoded_batch(layers)


def read_batches(
    shards: Sequence[Shard], batch_bytes: int, skip: int = 0, decode: Decode = decode_now
) -> Iterator[pa.RecordBatch]:
    """Map, or read, one run of tensors after the other, without the first few."""
    left = [(shard, run) for shard in shards for run in runs(shard.tensors, batch_bytes)][skip:]
    decoded = deque(run for _, run in left if isinstance(run[0], DECODED))
    for shard, of_shard in groupby(left, key=itemgetter(0)):
        with shard.location.open() as file:
            check_size(shard.location, shard.size, file.size)
            for _, run in of_shard:
                if isinstance(run[0], DECODED):
                    decoded.popleft()
                    yield decode(run, decoded[0] if decoded else None)
                else:
                    yield batch_of(run, _data(file, run))
                file.forget_pages()


def _data(file: Any, run: Sequence[Tensor]) -> Any:
    return file.buffer(run[0].begin, run[-1].end - run[0].begin)


def read_one(shard: Shard, tensor: Tensor) -> pa.RecordBatch:
    """Read a tensor by itself."""
    (batch,) = read_batches([replace(shard, tensors=[tensor])], batch_bytes=1)
    return batch
