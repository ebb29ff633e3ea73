"""Llama, and models like it: Mistral, SmolLM, Mixtral, SmolLM3, Granite."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

from pyarrowquant.llama_cpp.architecture import Architecture
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
from pyarrowquant.llama_cpp.windows import check_positions

# Whatever their config.json says.
_WITHOUT_BIASES = ("MistralForCausalLM", "MistralModel", "MixtralForCausalLM")


class Llama(Architecture):
    """Rotary embeddings turn neighbouring rows of queries and keys."""

    name = "llama"
    classes: ClassVar[Sequence[str]] = (
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "MixtralForCausalLM",
        "LlamaModel",
        "MistralModel",
    )
    bases: ClassVar[Sequence[str]] = ("LlamaModel", "MistralModel")

    has_biases: ClassVar[bool] = True

    @classmethod
    def known_as(cls, name: str) -> str:
        stacks = r"^model\.(layers\.\d+)\.block_sparse_moe\.experts\."
        return re.sub(stacks, r"\1.feed_forward.experts.", name)

    def layer_places(self, sizes: Sizes, layer: int) -> Iterator[Place]:
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


class SmolLM3(Llama):
    """Some layers without rotary embeddings, which llama.cpp knows."""

    name = "smollm3"
    classes: ClassVar[Sequence[str]] = ("SmolLM3ForCausalLM",)
    bases: ClassVar[Sequence[str]] = ()
    has_biases = False
    ties = True

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        check_positions(self.hyperparameters)


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
            if (number := said.number(key)) == 0:
                raise said.unsupported(key, "llama.cpp takes 0 for a factor that is left out")
            write(number)
