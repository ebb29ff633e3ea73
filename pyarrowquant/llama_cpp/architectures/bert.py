"""BERT and its like, which make embeddings of texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from pyarrowquant.llama_cpp.architecture import Architecture
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.rows import Change, part
from pyarrowquant.reading.gguf import import_gguf

_HEADS = re.compile(
    r"(pooler\.dense|cls\.predictions|cls\.seq_relationship|lm_head|classifier)\b.*"
)


class Bert(Architecture):
    """Encoders, whose heads are left out."""

    name = "bert"
    classes: ClassVar[Sequence[str]] = ("BertModel", "BertForMaskedLM")

    def original(self, name: str) -> str:
        name = re.sub(r"^(bert|roberta|new|distilbert)\.", "", name)
        return name.replace(".gamma", ".weight").replace(".beta", ".bias")

    def unused(self, name: str) -> str | None:
        if _HEADS.fullmatch(self.original(name)):
            return "of heads, which embeddings do without"
        return super().unused(name)

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        add = metadata.add
        add.add_causal_attention(False)
        add.add_token_type_count(self.hyperparameters.whole_or_none("type_vocab_size") or 1)


class XlmRoberta(Bert):
    """Positions are counted from the one after that of padding."""

    classes: ClassVar[Sequence[str]] = (
        "XLMRobertaModel",
        "XLMRobertaForMaskedLM",
        "RobertaModel",
        "RobertaForMaskedLM",
    )

    def _first_position(self) -> int:
        padding = self.hyperparameters.whole_or_none("pad_token_id", least=0)
        return 0 if padding is None else padding + 1

    def change(self, name: str, shape: tuple[int, ...]) -> Change | None:
        if name == "embeddings.position_embeddings.weight":
            return part(shape, 0, self._first_position(), shape[0])
        return None

    def context(self) -> int:
        return super().context() - self._first_position()


class NomicBert(Bert):
    """Rotary embeddings, and gates in the feed-forward part."""

    name = "nomic-bert"
    classes: ClassVar[Sequence[str]] = ("NomicBertModel",)

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        add = metadata.add
        add.add_pooling_type(import_gguf("Writing").PoolingType.MEAN)
