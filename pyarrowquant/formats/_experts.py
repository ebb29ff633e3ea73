"""Stacks of experts, as transformers has them in some files, taken apart to matrices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from pyarrowquant._core.shapes import product
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.numbers import Array
from pyarrowquant.reading.safetensors import ShardedModel
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import FLOATS, CodedTensor, MadeTensor, Tensor, UndecodableTensor

_STACK = re.compile(r"(?P<block>.+\.experts)\.(?P<stack>gate_up_proj|down_proj)(?P<bias>_bias)?")
_MATRIX = re.compile(r"(?P<block>.+\.experts)\.\d+\.")


class ApartModel(ShardedModel):
    """A model of safetensors whose stacks of experts are layers of a matrix each.

    A stack of gates and what they multiply, ``X.experts.gate_up_proj``, becomes the matrices
    ``X.experts.0.gate_proj.weight``, ``X.experts.0.up_proj.weight`` and so on, whose rows are
    outputs; ``down_proj`` likewise. A matrix is read when it is asked for, and nothing else is.

    Parameters
    ----------
    model : ShardedModel
    blocks : mapping of str to _Block
        Those whose stacks are taken apart.
    alternating : bool
        Whether gates and what they multiply alternate, and have biases.
    """

    def __init__(
        self, model: ShardedModel, blocks: Mapping[str, _Block], alternating: bool
    ) -> None:
        self._whole, self._blocks = model, blocks
        self._alternating = alternating
        self._originals: dict[str, str] = {}
        shards = [
            replace(
                shard,
                tensors=[
                    each
                    for tensor in shard.tensors
                    for each in self._apart(Stored(shard.location, shard.size, tensor), blocks)
                ],
            )
            for shard in model.shards
        ]
        super().__init__(model.location, shards, model.index)

    def also_called(self, tensor: Tensor) -> Sequence[str]:
        original = self._originals.get(tensor.name)
        return () if original is None else (original,)

    def apart_for(self, names: Iterable[str]) -> ApartModel:
        """Return the model with only those stacks apart of whose blocks a matrix is named."""
        found = {matrix["block"] for name in names if (matrix := _MATRIX.match(name))}
        blocks = {name: block for name, block in self._blocks.items() if name in found}
        return ApartModel(self._whole, blocks, self._alternating)

    def _apart(self, stored: Stored, blocks: Mapping[str, _Block]) -> Iterator[Tensor]:
        """Give what becomes of a tensor; most stay as they are."""
        tensor = stored.tensor
        found = _STACK.fullmatch(tensor.name)
        block = None if found is None else blocks.get(found["block"])
        if found is None or block is None:
            yield tensor
            return
        if found["bias"]:
            made = self._biases(stored, found["block"], found["stack"])
        else:
            made = self._matrices(stored, block, found["block"], found["stack"])
        for each in made:
            self._originals[each.name] = tensor.name
            yield each

    def _biases(self, stored: Stored, name: str, stack: str) -> Iterator[Tensor]:
        tensor = stored.tensor
        if not self._alternating:
            yield tensor
        elif stack == "down_proj":
            yield replace(tensor, name=f"{name}.down_proj.bias")
        else:
            experts, rows = tensor.shape
            for matrix, part in self._parts(stack, rows):
                columns = partial(stored.part, (slice(None), part))
                shape = experts, rows // 2
                yield MadeTensor.of(f"{name}.{matrix}.bias", tensor.dtype, shape, [columns])

    def _matrices(self, stored: Stored, block: _Block, name: str, stack: str) -> Iterator[Tensor]:
        rows, columns = block.matrix_of(stored.tensor.shape)
        for expert in range(stored.tensor.shape[0]):
            for matrix, part in self._parts(stack, rows):
                shape = len(range(rows)[part]), columns
                full = f"{name}.{expert}.{matrix}.weight"
                yield matrix_of(stored, expert, part, shape, full, block.transposed)

    def _parts(self, stack: str, rows: int) -> list[tuple[str, slice]]:
        """Return the matrices of a stack, and the rows that each has."""
        if stack == "down_proj":
            return [("down_proj", slice(0, rows))]
        if self._alternating:
            return [("gate_proj", slice(0, rows, 2)), ("up_proj", slice(1, rows, 2))]
        return [("gate_proj", slice(0, rows // 2)), ("up_proj", slice(rows // 2, rows))]


@dataclass(frozen=True)
class _Block:
    """The two stacks of a block.

    Attributes
    ----------
    transposed : bool
        Whether rows are inputs.
    """

    transposed: bool

    def matrix_of(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return how many outputs and inputs the matrices of a stack have."""
        _, first, second = shape
        return (second, first) if self.transposed else (first, second)


def with_experts_apart(model: Model, alternating: bool = False) -> Model:
    """Return the model with a layer for each matrix of an expert, if it has stacks of them."""
    if isinstance(model, ShardedModel) and (blocks := _blocks(model.tensors)):
        return ApartModel(model, blocks, alternating)
    return model


def _blocks(tensors: Sequence[Tensor]) -> dict[str, _Block]:
    """Find the blocks both of whose stacks are there, in shapes that fit each other."""
    stacks: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        found = _STACK.fullmatch(tensor.name)
        if found is not None and not found["bias"] and can_be_parted(tensor):
            stacks.setdefault(found["block"], {})[found["stack"]] = tensor
    blocks = {}
    for name, pair in stacks.items():
        if len(pair) < 2:
            continue
        experts, first, second = pair["gate_up_proj"].shape
        down = pair["down_proj"].shape
        if down == (experts, second, first // 2) and first % 2 == 0:
            blocks[name] = _Block(transposed=False)
        elif down == (experts, second // 2, first) and second % 2 == 0:
            blocks[name] = _Block(transposed=True)
    return blocks


def can_be_parted(tensor: Tensor) -> bool:
    """Whether the matrices of a stack can be read by themselves."""
    if isinstance(tensor, (UndecodableTensor, MadeTensor)) or len(tensor.shape) != 3:
        return False
    if isinstance(tensor, CodedTensor):
        return tensor.decode_matrix is not None
    return tensor.dtype in FLOATS and 0 not in tensor.shape


def matrix_of(
    stored: Stored, expert: int, part: slice, shape: tuple[int, int], name: str, transposed: bool
) -> Tensor:
    """Return some rows of one of the matrices of a stack, as a tensor of its own."""
    tensor = stored.tensor
    if isinstance(tensor, CodedTensor):
        assert tensor.decode_matrix is not None
        share = product(tensor.shape) // product(shape)
        return replace(
            tensor,
            name=name,
            shape=shape,
            begin=0,
            end=(tensor.end - tensor.begin) // share,
            scale_bytes=tensor.scale_bytes // share,
            decode=partial(_decoded, tensor, expert, part),
            decode_matrix=None,
            read_mxfp4=None,
        )
    matrix = stored.matrix(expert)
    if not transposed and part.step is None:  # rows that follow each other in the file
        begin, end = matrix.tensor.begin, matrix.tensor.end
        row = (end - begin) // tensor.shape[1]
        return Tensor(name, tensor.dtype, shape, begin + part.start * row, begin + part.stop * row)
    read = partial(_transposed, matrix, part) if transposed else partial(matrix.part, part)
    return MadeTensor.of(name, tensor.dtype, shape, [read])


def _decoded(tensor: CodedTensor, expert: int, part: slice) -> Array:
    assert tensor.decode_matrix is not None
    return tensor.decode_matrix(expert)[part]


def _transposed(stored: Stored, part: slice) -> Array:
    """Return columns as rows."""
    with stored.open() as array:
        return np.array(array[:, part].T, order="C")
