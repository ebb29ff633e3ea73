"""Qwen2, Qwen3, and those with experts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from pyarrowquant.llama_cpp.architecture import Architecture
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.sizes import (
    ONE,
    Place,
    Sizes,
    attention,
    attention_biases,
    experts,
    norms,
)


class Qwen2(Architecture):
    """Queries, keys and values with biases."""

    name = "qwen2"
    classes: ClassVar[Sequence[str]] = ("Qwen2ForCausalLM", "Qwen2Model")
    bases: ClassVar[Sequence[str]] = ("Qwen2Model",)
    has_own_head_size = False

    def layer_places(self, sizes: Sizes, layer: int) -> Iterator[Place]:
        yield from super().layer_places(sizes, layer)
        yield from attention_biases(sizes)


class Qwen3(Architecture):
    """Norms of queries and keys."""

    name = "qwen3"
    classes: ClassVar[Sequence[str]] = ("Qwen3ForCausalLM", "Qwen3Model")
    bases: ClassVar[Sequence[str]] = ("Qwen3Model",)

    def layer_places(self, sizes: Sizes, layer: int) -> Iterator[Place]:
        yield from super().layer_places(sizes, layer)
        yield from norms(sizes.head, "attn_q_norm", "attn_k_norm")


class Qwen2Moe(Architecture):
    """Experts are modules, or stacks of which gates and what goes up are one tensor."""

    name = "qwen2moe"
    normalizes = False  # what llama.cpp does with the weights of the experts that are chosen
    classes: ClassVar[Sequence[str]] = ("Qwen2MoeForCausalLM",)
    has_own_head_size = False
    needs_head = True

    def layer_places(self, sizes: Sizes, layer: int) -> Iterator[Place]:
        yield from norms(sizes.columns, "attn_norm", "ffn_norm")
        yield from attention(sizes)
        if self.hyperparameters.flag("qkv_bias", True):
            yield from attention_biases(sizes)
        yield from experts(sizes, sizes.of_expert)
        columns, inner = sizes.columns, sizes.of_shared_expert
        yield Place("ffn_gate_inp_shexp.weight", (ONE, columns))
        yield Place("ffn_gate_shexp.weight", (inner, columns))
        yield Place("ffn_up_shexp.weight", (inner, columns))
        yield Place("ffn_down_shexp.weight", (columns, inner))

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        said, add = self.hyperparameters, metadata.add
        if said.flag("norm_topk_prob", False) != self.normalizes:
            raise ValueError(
                f"'{said.path}': norm_topk_prob must be {str(self.normalizes).lower()}, as "
                f"llama.cpp computes {self.name} so"
            )
        if (length := said.whole_or_none("moe_intermediate_size")) is not None:
            add.add_expert_feed_forward_length(length)
        if length := said.whole_or_none("shared_expert_intermediate_size", least=0):
            add.add_expert_shared_feed_forward_length(length)


class Qwen3Moe(Qwen2Moe):
    """Without experts that all tokens share."""

    name = "qwen3moe"
    normalizes = True
    classes: ClassVar[Sequence[str]] = ("Qwen3MoeForCausalLM",)
    has_own_head_size = True
    needs_head = False

    def layer_places(self, sizes: Sizes, layer: int) -> Iterator[Place]:
        yield from norms(sizes.columns, "attn_norm", "ffn_norm")
        yield from attention(sizes)
        yield from norms(sizes.head, "attn_q_norm", "attn_k_norm")
        yield from experts(sizes, sizes.of_expert)
