"""Llama, and models like it: Mistral, SmolLM, Mixtral, SmolLM3, Granite."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from pyarrowquant.llama_cpp.architecture import Added, Architecture
from pyarrowquant.llama_cpp.hyperparameters import Hyperparameters
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.rows import Change, paired
from pyarrowquant.llama_cpp.sizes import (
    Place,
    Sizes,
    attention,
    attention_biases,
    experts,
    feed_forward,
    norms,
)

_WITHOUT_BIASES = ("MistralForCausalLM", "MixtralForCausalLM")  # whatever their config.json says


class Llama(Architecture):
    """Rotary embeddings turn neighbouring rows of queries and keys."""

    name = "llama"
    classes: ClassVar[Sequence[str]] = (
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "MixtralForCausalLM",
        "LlamaModel",
    )
    bases: ClassVar[Sequence[str]] = ("LlamaModel",)

    has_biases: ClassVar[bool] = True

    def known_as(self, name: str) -> str:
        stacks = r"^model\.(layers\.\d+)\.block_sparse_moe\.experts\."
        return re.sub(stacks, r"\1.feed_forward.experts.", name)

    def layer_places(self, sizes: Sizes) -> Iterator[Place]:
        yield from norms(sizes.columns, "attn_norm", "ffn_norm")
        yield from attention(sizes)
        has_biases = self.has_biases and self.model_class not in _WITHOUT_BIASES
        if has_biases and self.hyperparameters.flag("attention_bias", False):
            yield from attention_biases(sizes)
            yield Place("attn_output.bias", (sizes.columns,))
        if self.hyperparameters.experts:
            yield from experts(sizes, sizes.inner)
            return
        yield from feed_forward(sizes)
        if has_biases and self.hyperparameters.flag("mlp_bias", False):
            yield Place("ffn_gate.bias", (sizes.inner,))
            yield Place("ffn_up.bias", (sizes.inner,))
            yield Place("ffn_down.bias", (sizes.columns,))

    def change(self, name: str, shape: tuple[int, ...]) -> Change | None:
        if name.endswith((".q_proj.weight", ".q_proj.bias")):
            return paired(shape, self.hyperparameters.heads)
        if name.endswith((".k_proj.weight", ".k_proj.bias")):
            return paired(shape, self.hyperparameters.key_value_heads)
        return None

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        metadata.add.add_vocab_size(self.hyperparameters.whole("vocab_size"))
        metadata.add.add_rope_dimension_count(self.hyperparameters.head_size)

    def added(self) -> list[Added]:
        rope = self.hyperparameters.rope
        if rope.get("rope_type") != "llama3":
            return []
        return [Added("rope_freqs.weight", _llama_3_factors(rope, self.hyperparameters.head_size))]


def _llama_3_factors(rope: Hyperparameters, size: int) -> np.ndarray:
    """By how much Llama 3.1 divides the frequencies of rotary embeddings.

    As transformers has it, in modeling_rope_utils.py: long waves by the factor, short ones not at
    all, those between by something between.
    """
    factor = rope.number("factor")
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    context = rope.whole("original_max_position_embeddings")
    theta = rope.number("rope_theta")
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    frequencies = np.float32(1) / np.float32(theta) ** exponents
    factors = np.ones(len(frequencies), np.float32)
    for i, frequency in enumerate(frequencies):
        length = 2 * math.pi / float(frequency)
        if length > context / low:
            factors[i] = factor
        elif length >= context / high:
            smooth = (context / length - low) / (high - low)
            factors[i] = 1 / ((1 - smooth) / factor + smooth)
    return factors


class SmolLM3(Llama):
    """Some layers without rotary embeddings, which llama.cpp knows."""

    name = "smollm3"
    classes: ClassVar[Sequence[str]] = ("SmolLM3ForCausalLM",)
    bases: ClassVar[Sequence[str]] = ()
    has_biases = False
    ties = True


class Granite(Llama):
    """Llama with factors of its own between the layers."""

    name = "granite"
    classes: ClassVar[Sequence[str]] = ("GraniteForCausalLM",)
    bases: ClassVar[Sequence[str]] = ()

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        said, add = self.hyperparameters, metadata.add
        for key, write in (
            ("attention_multiplier", add.add_attention_scale),
            ("embedding_multiplier", add.add_embedding_scale),
            ("residual_multiplier", add.add_residual_scale),
            ("logits_scaling", add.add_logit_scale),
        ):
            if number := said.number_or_none(key):
                write(number)
