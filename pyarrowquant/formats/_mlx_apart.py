"""Stacks of experts that MLX has made, taken apart to be quantized, and made again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from pyarrowquant.formats._experts import can_be_parted, matrix_of
from pyarrowquant.formats._mlx_layers import WEIGHT
from pyarrowquant.formats._mlx_stacks import joined_by_mlx
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.safetensors import ShardedModel
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import Tensor


class JoinedApartModel(ShardedModel):
    """A model of MLX whose stacks of experts are layers of a matrix each, to be joined again.

    The stack ``X.switch_mlp.up_proj.weight`` becomes ``X.switch_mlp.0.up_proj.weight`` and so on.

    Parameters
    ----------
    model : ShardedModel
    names : collection of str
        Of the stacks.
    """

    def __init__(self, model: ShardedModel, names: Collection[str]) -> None:
        self._originals: dict[str, str] = {}
        shards = [
            replace(
                shard,
                tensors=[
                    each
                    for tensor in shard.tensors
                    for each in (
                        self._apart(Stored(shard.location, shard.size, tensor))
                        if tensor.name in names
                        else [tensor]
                    )
                ],
            )
            for shard in model.shards
        ]
        super().__init__(model.location, shards, model.index)

    def also_called(self, tensor: Tensor) -> Sequence[str]:
        original = self._originals.get(tensor.name)
        return () if original is None else (original,)

    def _apart(self, stored: Stored) -> Iterator[Tensor]:
        experts, rows, columns = stored.tensor.shape
        block, _, matrix = stored.tensor.name.removesuffix(WEIGHT).rpartition(".")
        for number in range(experts):
            name = f"{block}.{number}.{matrix}{WEIGHT}"
            self._originals[name] = stored.tensor.name
            yield matrix_of(stored, number, slice(0, rows), (rows, columns), name, False)


def with_joined_apart(model: Model) -> Model:
    """Return the model with a layer for each expert, if MLX has joined them."""
    if not isinstance(model, ShardedModel):
        return model
    joined = set(joined_by_mlx(model))
    names = {
        tensor.name for tensor in model.tensors if tensor.name in joined and can_be_parted(tensor)
    }
    return JoinedApartModel(model, names) if names else model
