"""Phi 3 and 4, whose queries, keys and values are one tensor, in llama.cpp too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from pyarrowquant.llama_cpp.architecture import Architecture
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.rope import turned_columns
from pyarrowquant.llama_cpp.sizes import Place, Sizes, fused_feed_forward, norms
from pyarrowquant.reading.gguf import import_gguf


class Phi3(Architecture):
    """Long contexts by factors for each frequency."""

    name = "phi3"
    classes: ClassVar[Sequence[str]] = ("Phi3ForCausalLM",)
    has_own_head_size = False

    def layer_places(self, sizes: Sizes, layer: int) -> Iterator[Place]:
        columns, keys = sizes.columns, sizes.keys
        yield from norms(columns, "attn_norm", "ffn_norm")
        yield Place("attn_qkv.weight", (sizes.queries + keys + keys, columns))
        yield Place("attn_output.weight", (columns, sizes.queries))
        yield from fused_feed_forward(sizes)

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        said, add = self.hyperparameters, metadata.add
        add.add_rope_dimension_count(turned_columns(said))
        key = import_gguf("Writing").Keys.Rope.SCALING_ORIG_CTX_LEN
        if metadata.value_of_architecture(key) is None:
            add.add_rope_scaling_orig_ctx_len(self.context())
        # 0 is what llama.cpp tells Phi-4 by, which attends to everything.
        add.add_sliding_window(said.whole_or_none("sliding_window", least=0) or 0)
