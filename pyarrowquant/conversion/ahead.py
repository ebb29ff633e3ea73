"""The next batch of a source, decoded while the one before it is in use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import pyarrow as pa

from pyarrowquant.conversion.in_turn import InTurn, in_turn
from pyarrowquant.conversion.memory import most_decoded
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.tensors import Tensor, bytes_in_batch, decoded_batch


@contextmanager
def read_ahead(
    model: Model, batch_bytes: int, skip: int = 0, count: int | None = None
) -> Iterator[pa.RecordBatchReader]:
    """Read a model as its `reader` does, with layers decoded ahead on another thread.

    What is mapped needs no thread: it is read where it is used, by all threads. A part of the
    batches is read without one, too, as whoever does a part has others beside it.

    Parameters
    ----------
    model : Model
    batch_bytes : int
    skip : int
        Batches at the beginning that are left out.
    count : int or None
        How many batches are taken; None for all.
    """
    if count is not None:
        yield model.reader(batch_bytes, skip=skip)
        return
    with in_turn() as thread:
        ahead = _Ahead(thread, most_decoded(batch_bytes))
        yield model.decoded_by(ahead.decode).reader(batch_bytes, skip=skip)


class _Ahead:
    """Decodes batches of layers, each before it is asked for.

    Parameters
    ----------
    thread : InTurn
    most : int
        Bound on the bytes of a batch and the next one; of larger ones each is made when it is
        asked for.
    """

    def __init__(self, thread: InTurn, most: int) -> None:
        self._thread = thread
        self._most = most
        self._begun: Sequence[Tensor] | None = None
        self._made: pa.RecordBatch | None = None

    def decode(
        self, layers: Sequence[Tensor], following: Sequence[Tensor] | None
    ) -> pa.RecordBatch:
        """Give the batch of some layers, and begin with those that follow."""
        if self._begun is layers:
            self._thread.wait()
            batch, self._made = self._made, None
        else:
            batch = decoded_batch(layers)
        self._begun = None
        if following is not None and _size(layers) + _size(following) <= self._most:
            self._begun = following
            self._thread.do(partial(self._make, following), waiting=1)
        return batch

    def _make(self, layers: Sequence[Tensor]) -> None:
        self._made = decoded_batch(layers)


def _size(layers: Sequence[Tensor]) -> int:
    return sum(map(bytes_in_batch, layers))
