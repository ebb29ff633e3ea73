"""A model's experts in the stacks that a folder for MLX has, to be compared with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pyarrowquant.formats._mlx_layers import WEIGHT
from pyarrowquant.formats._mlx_stacks import place_of
from pyarrowquant.reading.safetensors import ShardedModel
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import DECODED, MadeTensor, Tensor


def joined(model: ShardedModel, config: Mapping[str, Any]) -> ShardedModel:
    """Return the model with stacks in the place of their first matrices."""
    stacks: dict[str, dict[int, Stored]] = {}
    for shard in model.shards:
        for tensor in shard.tensors:
            if place := place_of(tensor.name, config):
                stored = Stored(shard.location, shard.size, tensor)
                stacks.setdefault(place.module, {})[place.number] = stored

    def become(tensor: Tensor) -> list[Tensor]:
        place = place_of(tensor.name, config)
        if place is None:
            return [tensor]
        stack = stacks[place.module]
        if place.number != min(stack):
            return []
        matrices = [stack[number] for number in sorted(stack)]
        shape = (len(matrices), *tensor.shape)
        read = [
            matrix.tensor.decode if isinstance(matrix.tensor, DECODED) else matrix.part
            for matrix in matrices
        ]
        return [MadeTensor.of(f"{place.module}{WEIGHT}", tensor.dtype, shape, read)]

    shards = [
        replace(shard, tensors=[each for tensor in shard.tensors for each in become(tensor)])
        for shard in model.shards
    ]
    return ShardedModel(model.location, shards)
