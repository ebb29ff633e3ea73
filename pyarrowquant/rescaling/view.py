"""A model whose columns are alike, as far as factors can be moved between its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from pyarrowquant._core.results import Floats
from pyarrowquant._core.shapes import product
from pyarrowquant.reading.numbers import Array
from pyarrowquant.reading.safetensors import ShardedModel, stored_in
from pyarrowquant.reading.stored import Stored, numbers
from pyarrowquant.reading.tensors import MadeTensor, Tensor
from pyarrowquant.rescaling.factors import factors
from pyarrowquant.rescaling.links import Feeder, Link

# What config.json says of such a model, so that its weights are not taken for those of another.
RESCALED = "pyarrowquant_rescaled"

_PIECE = 2**22  # weights that are made at once


class RescaledModel(ShardedModel):
    """A model that computes what another does, with other weights.

    What comes before matrices is multiplied by factors, and their columns are divided by them.
    These are powers of two, so that nothing is rounded. They are measured when a tensor is read
    for the first time that needs them, and weights are made as they are read.

    Parameters
    ----------
    model : ShardedModel
    links : sequence of Link
    """

    def __init__(self, model: ShardedModel, links: Sequence[Link]) -> None:
        self._stored = {one.tensor.name: one for one in stored_in(model.shards)}
        self._links = links
        self._factors: dict[int, Floats] = {}
        self._divided = {name: number for number, link in enumerate(links) for name in link.readers}
        self._multiplied = {
            feeder.name: (number, feeder)
            for number, link in enumerate(links)
            for feeder in link.feeders
        }
        shards = [
            replace(shard, tensors=[self._made(tensor) for tensor in shard.tensors])
            for shard in model.shards
        ]
        super().__init__(model.location, shards, model.index)

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """What config.json of the folder says, and that the model is rescaled."""
        said = super().config
        return None if said is None else {**said, RESCALED: True}

    def column_factors(self, name: str) -> Floats | None:
        """Return by what the columns of a tensor are divided; None where they are not."""
        number = self._divided.get(name)
        return None if number is None else self._links[number].of_columns(self._of(number))

    def _of(self, number: int) -> Floats:
        if number not in self._factors:
            self._factors[number] = factors(self._links[number], self._stored)
        return self._factors[number]

    def _made(self, tensor: Tensor) -> Tensor:
        if tensor.name not in self._divided and tensor.name not in self._multiplied:
            return tensor
        _, feeder = self._multiplied.get(tensor.name, (0, Feeder(tensor.name)))
        dtype = "F32" if feeder.adds_one else tensor.dtype
        step = max(1, _PIECE // product(tensor.shape[1:]))
        pieces = [
            partial(self._rows, self._stored[tensor.name], slice(start, start + step), dtype)
            for start in range(0, tensor.shape[0], step)
        ]
        return MadeTensor.of(tensor.name, dtype, tensor.shape, pieces)

    def _rows(self, stored: Stored, rows: slice, dtype: str) -> Array:
        """Make some rows, of bfloat16 as their bits."""
        name = stored.tensor.name
        weights = numbers(stored.part(rows), stored.tensor.dtype)
        if name in self._multiplied:
            number, feeder = self._multiplied[name]
            of_rows = np.ones(stored.tensor.shape[0], np.float32)
            of_rows[feeder.rows(self._links[number].size)] = self._of(number)
            of_rows = of_rows[rows].reshape(-1, *[1] * (weights.ndim - 1))
            if feeder.adds_one:
                weights = (weights + np.float32(1)) * of_rows - np.float32(1)
            else:
                weights = weights * of_rows
        divisors = self.column_factors(name)
        if divisors is not None:
            weights = weights / divisors
        if dtype == "BF16":  # whose bits are the first ones, as nothing is rounded
            return (weights.view(np.uint32) >> 16).astype(np.uint16)
        with np.errstate(over="ignore"):  # Inf, which is told of where weights are checked
            return weights.astype(np.float16 if dtype == "F16" else np.float32, copy=False)
