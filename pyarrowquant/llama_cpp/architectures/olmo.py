"""OLMo 2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from pyarrowquant.llama_cpp.architecture import Architecture
from pyarrowquant.llama_cpp.sizes import Place, Sizes, attention, feed_forward, norms


class Olmo2(Architecture):
    """Norms after attention and after the feed-forward part."""

    name = "olmo2"
    classes: ClassVar[Sequence[str]] = ("Olmo2ForCausalLM",)
    has_own_head_size = False
    needs_head = True

    def layer_places(self, sizes: Sizes, layer: int) -> Iterator[Place]:
        yield from attention(sizes)
        yield from norms(sizes.queries, "attn_q_norm")
        yield from norms(sizes.keys, "attn_k_norm")
        yield from feed_forward(sizes)
        yield from norms(sizes.columns, "post_attention_norm", "post_ffw_norm")
