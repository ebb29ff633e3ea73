"""The folder of a Hugging Face model as the tensors and keys that llama.cpp loads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from pyarrowquant._core.quoting import first_few, quoted
from pyarrowquant.llama_cpp.architecture import Architecture
from pyarrowquant.llama_cpp.card import describe_card
from pyarrowquant.llama_cpp.chat_template import CHAT_TEMPLATE, OLD_CHAT_TEMPLATE
from pyarrowquant.llama_cpp.hyperparameters import Hyperparameters
from pyarrowquant.llama_cpp.known import architecture_of
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.names import layer_of
from pyarrowquant.llama_cpp.pooling import describe_pooling
from pyarrowquant.llama_cpp.rows import Change
from pyarrowquant.llama_cpp.tokenizer import describe_tokenizer
from pyarrowquant.llama_cpp.tokenizer_files import (
    ADDED_TOKENS,
    GENERATION_CONFIG,
    SENTENCEPIECE,
    SPECIAL_TOKENS_MAP,
    TOKENIZER,
    TOKENIZER_CONFIG,
    TokenizerFiles,
)
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.numbers import Array
from pyarrowquant.reading.safetensors import Shard, ShardedModel, stored_in
from pyarrowquant.reading.stored import Stored, numbers
from pyarrowquant.reading.tensors import CodedTensor, MadeTensor, Tensor

_EMBEDDINGS = "token_embd.weight"
# What llama.cpp reads as float32, beside vectors.
_FLOAT32 = re.compile(
    r".*(_norm\.weight|ffn_gate_inp(_shexp)?\.weight|(^|\.)(position_embd|token_types)\.weight)"
)
# All that keys are taken from, where it is there.
_FILES = (
    CONFIG,
    TOKENIZER,
    SENTENCEPIECE,
    TOKENIZER_CONFIG,
    ADDED_TOKENS,
    SPECIAL_TOKENS_MAP,
    CHAT_TEMPLATE,
    OLD_CHAT_TEMPLATE,
    GENERATION_CONFIG,
    "README.md",
)


def is_float32(name: str, shape: Sequence[int]) -> bool:
    """Whether llama.cpp reads a tensor as float32, whatever the model's dtype."""
    return len(shape) <= 1 or not name.endswith(".weight") or _FLOAT32.match(name) is not None


@dataclass(frozen=True)
class _Source:
    """A tensor of the folder, and what is done to it.

    Attributes
    ----------
    expert : int or None
        Which matrix of a stack it becomes.
    """

    stored: Stored
    change: Change | None
    expert: int | None

    @property
    def tensor(self) -> Tensor:
        return self.stored.tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape if self.change is None else self.change.shape

    def dtype(self, name: str) -> str:
        """Return the dtype of what becomes of it under a name."""
        computes = self.change is not None and self.change.computes
        return "F32" if computes or is_float32(name, self.shape) else self.tensor.dtype

    def read(self, dtype: str) -> Array:
        """Return what becomes of it; bfloat16 as its bits."""
        if isinstance(self.tensor, CodedTensor):
            return self._changed(self.tensor.decode())
        with self.stored.open() as array:
            if dtype == self.tensor.dtype:
                return np.array(self._changed(array))
            return self._changed(numbers(array, self.tensor.dtype).astype(np.float32))

    def _changed(self, array: Array) -> Array:
        return array if self.change is None else self.change.apply(array)


class FolderModel(ShardedModel):
    """A model of safetensors, whose tensors have llama.cpp's names, rows and dtypes.

    Attributes
    ----------
    header : Metadata
        The keys of the GGUF file that is to be made.
    unused : dict of str to str
        Tensors of the folder that llama.cpp does without, with the reasons.
    originals : dict of str to tuple of str
        What the folder calls the tensors that others are made of.
    """

    def __init__(self, model: ShardedModel, pre_tokenizer: str | None = None) -> None:
        folder = model.folder
        assert folder is not None
        said = Hyperparameters(model.config or {}, str(folder.within(CONFIG)))
        architecture = architecture_of(said)
        self._folder = folder
        self.unused: dict[str, str] = {}
        self.originals: dict[str, tuple[str, ...]] = {}
        self._left: list[Tensor] = []
        self.header = Metadata(architecture.name)
        architecture.describe(self.header)
        describe_pooling(folder, self.header)
        super().__init__(model.location, self._converted(model, architecture))
        self._check_complete(architecture.hyperparameters)
        describe_card(folder, self.header, self.tensors)
        (embeddings,) = (tensor for tensor in self.tensors if tensor.name == _EMBEDDINGS)
        describe_tokenizer(TokenizerFiles(folder), embeddings.shape[0], self.header, pre_tokenizer)

    @cached_property
    def folder(self) -> Location | None:
        return self._folder

    @property
    def all_tensors(self) -> Sequence[Tensor]:
        return [*self.tensors, *self._left]

    def is_read(self, tensor: Tensor) -> bool:
        return tensor.name not in self.unused

    def also_called(self, tensor: Tensor) -> Sequence[str]:
        return self.originals.get(tensor.name, ())

    def obstacle(self, tensor: Tensor) -> str | None:
        return self.unused.get(tensor.name) or super().obstacle(tensor)

    @property
    def stored(self) -> Sequence[Stored]:
        """The tensors, in their order; those that are made lie in no file."""
        return stored_in(self.shards)

    @property
    def said_in(self) -> Sequence[Location]:
        """The files that the keys are taken from."""
        files = (self._folder.within(name) for name in _FILES)
        return [file for file in files if file.exists()]

    def _converted(self, model: ShardedModel, architecture: Architecture) -> list[Shard]:
        """Return the tensors of the output, each where the first of what it is made of lies."""
        sources: dict[str, list[_Source]] = {}
        places: dict[str, int] = {}
        for place, shard in enumerate(model.shards):
            for tensor in shard.tensors:
                if reason := architecture.unused(tensor.name):
                    self.unused[tensor.name] = reason
                    self._left.append(tensor)
                    continue
                stored = Stored(shard.location, shard.size, tensor)
                for named in architecture.named(tensor.name, tensor.shape):
                    source = _Source(stored, named.change, named.expert)
                    sources.setdefault(named.name, []).append(source)
                    places.setdefault(named.name, place)
        self.originals = {
            name: tuple(part.tensor.name for part in _in_order(parts))
            for name, parts in sources.items()
        }
        tensors: list[list[Tensor]] = [[] for _ in model.shards]
        for name, parts in sources.items():
            tensors[places[name]].append(self._tensor(name, parts))
        for added in architecture.added():
            tensors[0].append(MadeTensor.of(added.name, "F32", added.array.shape, added.array.copy))
        return [
            replace(shard, tensors=each) for shard, each in zip(model.shards, tensors, strict=True)
        ]

    def _tensor(self, name: str, parts: Sequence[_Source]) -> Tensor:
        first = parts[0]
        dtype = first.dtype(name)
        if first.expert is None:
            if len(parts) > 1:
                self._refuse(name, parts, "would both be")
            if isinstance(first.tensor, CodedTensor):
                decode = partial(first.read, "F32")
                return replace(first.tensor, name=name, shape=first.shape, decode=decode)
            if first.change is None and dtype == first.tensor.dtype:
                return replace(first.tensor, name=name)  # which is read where it lies
            return MadeTensor.of(name, dtype, first.shape, partial(first.read, dtype))
        stack = _in_order(parts)
        if [part.expert for part in stack] != list(range(len(stack))):
            self._refuse(name, stack, f"are not the experts 0 to {len(stack) - 1} of")
        if len({(part.shape, part.tensor.dtype) for part in stack}) > 1:
            self._refuse(name, stack, "have not all the same shape and dtype, as experts of")
        shape = (len(stack), *first.shape)
        return MadeTensor.of(name, dtype, shape, partial(_stacked, stack, dtype, shape))

    def _refuse(self, name: str, parts: Sequence[_Source], what: str) -> None:
        names = first_few([quoted(part.tensor.name) for part in parts])
        raise ValueError(f"'{self._folder}': {names} {what} {name}")

    def _check_complete(self, said: Hyperparameters) -> None:
        names = [tensor.name for tensor in self.tensors]
        if _EMBEDDINGS not in names:
            raise ValueError(f"'{self._folder}' has no embeddings of tokens, which llama.cpp needs")
        missing = sorted(set(range(said.layers)) - set(map(layer_of, names)))
        if missing:
            raise ValueError(
                f"'{self._folder}' has no tensors of layer {missing[0]}, and its {CONFIG} says "
                f"that there are {said.layers} layers. Download the folder anew"
            )


def _in_order(parts: Sequence[_Source]) -> list[_Source]:
    """Sort the matrices of a stack."""
    return sorted(parts, key=lambda part: part.expert or 0)


def _stacked(stack: Sequence[_Source], dtype: str, shape: tuple[int, ...]) -> Array:
    """Read matrices of a stack one after the other."""
    whole = None
    for i, part in enumerate(stack):
        matrix = part.read(dtype)
        if whole is None:
            whole = np.empty(shape, matrix.dtype)
        whole[i] = matrix
    assert whole is not None
    return whole
