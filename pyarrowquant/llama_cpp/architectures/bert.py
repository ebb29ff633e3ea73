"""BERT and its like, which make embeddings of texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

from pyarrowquant.llama_cpp.architecture import Architecture
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.rows import Change, part
from pyarrowquant.llama_cpp.sizes import (
    Place,
    Size,
    Sizes,
    attention,
    attention_biases,
    feed_forward,
)

_HEADS = re.compile(
    r"(pooler\.dense|cls\.predictions|cls\.seq_relationship|lm_head|classifier)\b.*"
)


def _norms(size: Size, *names: str) -> Iterator[Place]:
    for name in names:
        yield Place(f"{name}.weight", (size,))
        yield Place(f"{name}.bias", (size,))


class Bert(Architecture):
    """Encoders, whose heads are left out."""

    name = "bert"
    classes: ClassVar[Sequence[str]] = ("BertModel", "BertForMaskedLM")
    has_own_head_size = False
    ties = True
    counts_positions = True
    ignored = ("num_key_value_heads", "n_kv_heads")  # as each head has keys of its own

    @classmethod
    def within(cls, name: str) -> str:
        name = re.sub(r"^(bert|roberta|new|distilbert)\.", "", name)
        return name.replace(".gamma", ".weight").replace(".beta", ".bias")

    def unused(self, name: str) -> str | None:
        if _HEADS.fullmatch(self.original(name)):
            return "of heads, which embeddings do without"
        return super().unused(name)

    def outer_places(self, sizes: Sizes) -> Iterator[Place]:
        columns = sizes.columns
        yield Place("token_embd.weight", (sizes.vocabulary, columns))
        yield Place("token_types.weight", (sizes.token_types, columns))
        if self.counts_positions:
            yield Place("position_embd.weight", (sizes.positions, columns))
        yield from _norms(columns, "token_embd_norm")

    def layer_places(self, sizes: Sizes, layer: int) -> Iterator[Place]:
        columns, inner = sizes.columns, sizes.inner
        yield from attention(sizes)
        yield from attention_biases(sizes)
        yield Place("attn_output.bias", (columns,))
        yield Place("ffn_up.weight", (inner, columns))
        yield Place("ffn_up.bias", (inner,))
        yield Place("ffn_down.weight", (columns, inner))
        yield Place("ffn_down.bias", (columns,))
        yield from _norms(columns, "attn_output_norm", "layer_output_norm")

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
        if name == "embeddings.position_embeddings.weight" and shape:
            return part(shape, 0, min(self._first_position(), shape[0]), shape[0])
        return None

    def context(self) -> int:
        return super().context() - self._first_position()


class NomicBert(Bert):
    """Rotary embeddings, and gates in the feed-forward part."""

    name = "nomic-bert"
    classes: ClassVar[Sequence[str]] = ("NomicBertModel",)
    counts_positions = False
    pooling = "MEAN"

    def layer_places(self, sizes: Sizes, layer: int) -> Iterator[Place]:
        columns, keys = sizes.columns, sizes.keys
        yield Place("attn_qkv.weight", (sizes.queries + keys + keys, columns))
        yield Place("attn_output.weight", (columns, sizes.queries))
        yield from feed_forward(sizes)
        yield from _norms(columns, "attn_output_norm", "layer_output_norm")
