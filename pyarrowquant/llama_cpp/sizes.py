"""Sizes of tensors as llama.cpp derives them, and the keys of config.json that say them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pyarrowquant.llama_cpp.hyperparameters import Hyperparameters
from pyarrowquant.llama_cpp.metadata import Metadata


@dataclass(frozen=True)
class Size:
    """A size, and the keys with their values that it comes from."""

    value: int
    said: str

    def __add__(self, other: Size) -> Size:
        return Size(self.value + other.value, f"{self.said} + {other.said}")

    def __mul__(self, other: Size) -> Size:
        return Size(self.value * other.value, f"{self.said} x {other.said}")


ONE = Size(1, "1")


class Sizes:
    """The sizes of a model.

    Parameters
    ----------
    said : Hyperparameters
        What errors call the keys by.
    header : Metadata
        The keys that llama.cpp computes sizes from.
    """

    def __init__(self, said: Hyperparameters, header: Metadata) -> None:
        self._said = said
        self._header = header

    def _known(self, key: str) -> int | None:
        found = self._header.value(f"{self._header.architecture}.{key}")
        return None if found is None else int(found)

    def _of(self, key: str, *called: str) -> Size:
        value = self._known(key)
        if value is None:  # which is what the architecture leaves out where it is not said
            value = self._said.whole(*called)
        return Size(value, f"{self._said.spelled(*called)} {value}")

    @property
    def columns(self) -> Size:
        return self._of("embedding_length", "hidden_size", "n_embd", "dim")

    @property
    def vocabulary(self) -> Size:
        value = self._said.whole("vocab_size")
        return Size(value, f"vocab_size {value}")

    @property
    def positions(self) -> Size:
        return self._of("context_length", "max_position_embeddings", "n_ctx", "n_positions")

    @property
    def token_types(self) -> Size:
        value = self._said.whole_or_none("type_vocab_size") or 1
        return Size(value, f"type_vocab_size {value}")

    @property
    def inner(self) -> Size:
        return self._of("feed_forward_length", "intermediate_size", "n_inner", "hidden_dim")

    @property
    def heads(self) -> Size:
        return self._of("attention.head_count", "num_attention_heads", "n_head", "n_heads")

    @property
    def key_value_heads(self) -> Size:
        return self._of("attention.head_count_kv", "num_key_value_heads", "n_kv_heads")

    @property
    def head(self) -> Size:
        """Columns of a head, which are its part of all where nothing says them."""
        if (value := self._known("attention.key_length")) is not None:
            return Size(value, f"head_dim {value}")
        columns, heads = self.columns, self.heads
        return Size(columns.value // heads.value, f"({columns.said} / {heads.said})")

    @property
    def queries(self) -> Size:
        return self.heads * self.head

    @property
    def keys(self) -> Size:
        return self.key_value_heads * self.head

    @property
    def experts(self) -> Size:
        return self._of("expert_count", "num_local_experts", "num_experts", "n_routed_experts")

    @property
    def experts_used(self) -> Size:
        return self._of("expert_used_count", "num_experts_per_tok", "num_experts_per_token")

    @property
    def of_expert(self) -> Size:
        return self._of("expert_feed_forward_length", "moe_intermediate_size")

    @property
    def of_shared_expert(self) -> Size:
        return self._of("expert_shared_feed_forward_length", "shared_expert_intermediate_size")


@dataclass(frozen=True)
class Place:
    """A tensor that llama.cpp's loader asks for.

    Attributes
    ----------
    name : str
        Of those of a layer, without the number of the layer.
    shape : tuple of Size
    needed : bool
        Whether llama.cpp, or transformers, does not do without it.
    """

    name: str
    shape: tuple[Size, ...]
    needed: bool = True


def norms(size: Size, *names: str) -> Iterator[Place]:
    """Give the places of norms without biases."""
    return (Place(f"{name}.weight", (size,)) for name in names)


def attention(sizes: Sizes) -> Iterator[Place]:
    """Give the places of queries, keys, values and of what comes out."""
    columns, queries, keys = sizes.columns, sizes.queries, sizes.keys
    yield Place("attn_q.weight", (queries, columns))
    yield Place("attn_k.weight", (keys, columns))
    yield Place("attn_v.weight", (keys, columns))
    yield Place("attn_output.weight", (columns, queries))


def attention_biases(sizes: Sizes) -> Iterator[Place]:
    """Give the places of biases of queries, keys and values."""
    yield Place("attn_q.bias", (sizes.queries,))
    yield Place("attn_k.bias", (sizes.keys,))
    yield Place("attn_v.bias", (sizes.keys,))


def feed_forward(sizes: Sizes) -> Iterator[Place]:
    """Give the places of a feed-forward part with gates."""
    columns, inner = sizes.columns, sizes.inner
    yield Place("ffn_gate.weight", (inner, columns))
    yield Place("ffn_up.weight", (inner, columns))
    yield Place("ffn_down.weight", (columns, inner))


def fused_feed_forward(sizes: Sizes) -> Iterator[Place]:
    """Give the places of a feed-forward part whose gates are rows of what goes up."""
    columns, inner = sizes.columns, sizes.inner
    yield Place("ffn_up.weight", (inner + inner, columns))
    yield Place("ffn_down.weight", (columns, inner))


def experts(sizes: Sizes, inner: Size) -> Iterator[Place]:
    """Give the places of a router and of the stacks of its experts."""
    columns, count = sizes.columns, sizes.experts
    yield Place("ffn_gate_inp.weight", (count, columns))
    yield Place("ffn_gate_exps.weight", (count, inner, columns))
    yield Place("ffn_up_exps.weight", (count, inner, columns))
    yield Place("ffn_down_exps.weight", (count, columns, inner))
