"""GLM 4 of 2025, half of whose columns of a head are turned by rotary embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from pyarrowquant.llama_cpp.architecture import Architecture
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.rope import turned_columns
from pyarrowquant.llama_cpp.sizes import (
    Place,
    Sizes,
    attention,
    attention_biases,
    fused_feed_forward,
    norms,
)


class Glm4(Architecture):
    """Norms before and after each part."""

    name = "glm4"
    classes: ClassVar[Sequence[str]] = ("Glm4ForCausalLM",)

    def layer_places(self, sizes: Sizes, layer: int) -> Iterator[Place]:
        yield from norms(sizes.columns, "attn_norm", "post_attention_norm")
        yield from norms(sizes.columns, "ffn_norm", "post_ffw_norm")
        yield from attention(sizes)
        if self.hyperparameters.flag("attention_bias", True):
            yield from attention_biases(sizes)
        yield from fused_feed_forward(sizes)

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        metadata.add.add_rope_dimension_count(turned_columns(self.hyperparameters))
