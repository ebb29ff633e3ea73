"""Makes the tensors and keys that llama.cpp loads of the folder of a Hugging Face model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pyarrowquant._core.quoting import first_few, quoted
from pyarrowquant.llama_cpp.architecture import Architecture
from pyarrowquant.llama_cpp.card import describe_card, rename_unlike_phi_3
from pyarrowquant.llama_cpp.chat_template import CHAT_TEMPLATE, OLD_CHAT_TEMPLATE
from pyarrowquant.llama_cpp.completeness import check_tensors
from pyarrowquant.llama_cpp.folder import RESCALED_KEY, FolderModel
from pyarrowquant.llama_cpp.hyperparameters import Hyperparameters
from pyarrowquant.llama_cpp.known import architecture_of
from pyarrowquant.llama_cpp.merges import MERGES, VOCABULARY
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.pooling import describe_pooling
from pyarrowquant.llama_cpp.sizes import Sizes
from pyarrowquant.llama_cpp.sources import Source, stacked
from pyarrowquant.llama_cpp.tekken import TEKKEN
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
from pyarrowquant.reading.safetensors import ShardedModel
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import MadeTensor, Tensor
from pyarrowquant.rescaling.view import RESCALED

_EMBEDDINGS = "token_embd.weight"
# All that keys are taken from, where it is there.
_FILES = (
    CONFIG,
    TOKENIZER,
    TEKKEN,
    VOCABULARY,
    MERGES,
    SENTENCEPIECE,
    TOKENIZER_CONFIG,
    ADDED_TOKENS,
    SPECIAL_TOKENS_MAP,
    CHAT_TEMPLATE,
    OLD_CHAT_TEMPLATE,
    GENERATION_CONFIG,
    "README.md",
)


def convert_folder(model: ShardedModel, pre_tokenizer: str | None = None) -> FolderModel:
    """Give the tensors of a folder llama.cpp's names, rows and dtypes; they are read later.

    Parameters
    ----------
    model : ShardedModel
        With a folder, whose config.json names an architecture.
    pre_tokenizer : str, optional
        ``tokenizer.ggml.pre``, where it is not to be found out.

    Raises
    ------
    ValueError
        llama.cpp does not know the architecture or the tokenizer, or something lacks.
    """
    folder = model.folder
    assert folder is not None
    said = Hyperparameters(model.config or {}, str(folder.within(CONFIG)))
    architecture = architecture_of(said)
    header = Metadata(architecture.name)
    architecture.describe(header)
    if (model.config or {}).get(RESCALED):
        header.add.add_bool(RESCALED_KEY, True)
    describe_pooling(folder, header, architecture.pooling)
    tensors = _Tensors(model, folder, architecture)
    converted = FolderModel(
        model,
        folder,
        tensors.shards,
        header,
        _FILES,
        tensors.originals,
        tensors.unused,
        tensors.left,
    )
    sizes = Sizes(architecture.hyperparameters, header)
    check_tensors(str(folder), architecture, sizes, converted.tensors, converted.originals)
    describe_card(folder, header, converted.tensors)
    (embeddings,) = (tensor for tensor in converted.tensors if tensor.name == _EMBEDDINGS)
    describe_tokenizer(TokenizerFiles(folder), embeddings.shape[0], header, pre_tokenizer)
    rename_unlike_phi_3(header)
    return converted


class _Tensors:
    """The tensors of the output, each where the first of what it is made of lies."""

    def __init__(self, model: ShardedModel, folder: Location, architecture: Architecture) -> None:
        self._folder = folder
        self.unused: dict[str, str] = {}
        self.left: list[Tensor] = []
        sources: dict[str, list[Source]] = {}
        places: dict[str, int] = {}
        copied = architecture.copies_embeddings(tensor.name for tensor in model.tensors)
        for place, shard in enumerate(model.shards):
            for tensor in shard.tensors:
                if reason := architecture.unused(tensor.name):
                    self.unused[tensor.name] = reason
                    self.left.append(tensor)
                    continue
                stored = Stored(shard.location, shard.size, tensor)
                for named in architecture.named(tensor, copied):
                    source = Source(stored, named.change, named.expert)
                    source.check(folder)
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
            tensors[0].append(
                MadeTensor.of(added.name, "F32", added.array.shape, [added.array.copy])
            )
        self.shards = [
            replace(shard, tensors=each) for shard, each in zip(model.shards, tensors, strict=True)
        ]

    def _tensor(self, name: str, parts: Sequence[Source]) -> Tensor:
        if parts[0].expert is None:
            if len(parts) > 1:
                self._refuse(name, parts, "would both be")
            return parts[0].alone(name)
        stack = _in_order(parts)
        if [part.expert for part in stack] != list(range(len(stack))):
            self._refuse(name, stack, f"are not the experts 0 to {len(stack) - 1} of")
        if len({part.shape for part in stack}) > 1:
            self._refuse(name, stack, "have not all the same shape, as experts of")
        return stacked(name, stack)

    def _refuse(self, name: str, parts: Sequence[Source], what: str) -> None:
        names = first_few([quoted(part.tensor.name) for part in parts])
        raise ValueError(
            f"'{self._folder}': {names} {what} {name}. Take all files of one model, as they were "
            "published"
        )


def _in_order(parts: Sequence[Source]) -> list[Source]:
    """Sort the matrices of a stack."""
    return sorted(parts, key=lambda part: -1 if part.expert is None else part.expert)
