"""Phi 3 and 4, whose queries, keys and values are one tensor, in llama.cpp too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from pyarrowquant._core.quoting import quoted
from pyarrowquant.llama_cpp.architecture import Added, Architecture
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.sizes import Place, Sizes, fused_feed_forward, norms


class Phi3(Architecture):
    """Long contexts by factors for each frequency."""

    name = "phi3"
    classes: ClassVar[Sequence[str]] = ("Phi3ForCausalLM",)
    has_own_head_size = False

    def layer_places(self, sizes: Sizes) -> Iterator[Place]:
        columns, keys = sizes.columns, sizes.keys
        yield from norms(columns, "attn_norm", "ffn_norm")
        yield Place("attn_qkv.weight", (sizes.queries + keys + keys, columns))
        yield Place("attn_output.weight", (columns, sizes.queries))
        yield from fused_feed_forward(sizes)

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        said, add = self.hyperparameters, metadata.add
        rotary = said.rope.number_or_none("partial_rotary_factor") or 1.0
        add.add_rope_dimension_count(int(rotary * said.head_size))
        add.add_rope_scaling_orig_ctx_len(self._context_before())
        # 0 is what llama.cpp tells Phi-4 by, which attends to everything.
        add.add_sliding_window(said.whole_or_none("sliding_window", least=0) or 0)
        if self._factors("long_factor") is not None:
            add.add_rope_scaling_attn_factors(self._attention_factor())

    def added(self) -> list[Added]:
        names = {"long_factor": "rope_factors_long", "short_factor": "rope_factors_short"}
        found = {name: self._factors(key) for key, name in names.items()}
        return [
            Added(f"{name}.weight", factors)
            for name, factors in found.items()
            if factors is not None
        ]

    def _context_before(self) -> int:
        said = self.hyperparameters
        found = said.rope.whole_or_none("original_max_position_embeddings")
        return found or said.whole("max_position_embeddings")

    def _attention_factor(self) -> float:
        """By how much logits of attention grow with the context, as transformers has it."""
        said = self.hyperparameters
        if (factor := said.rope.number_or_none("attention_factor")) is not None:
            return factor
        longer = said.rope.number_or_none("factor")
        longer = longer or said.whole("max_position_embeddings") / self._context_before()
        if longer <= 1:
            return 1.0
        if said.rope.get("rope_type") == "yarn":
            return 0.1 * math.log(longer) + 1.0
        return math.sqrt(1 + math.log(longer) / math.log(self._context_before()))

    def _factors(self, key: str) -> np.ndarray | None:
        rope = self.hyperparameters.rope
        found = rope.get(key)
        if found is None:
            return None
        count = (
            int(
                (rope.number_or_none("partial_rotary_factor") or 1.0)
                * self.hyperparameters.head_size
            )
            // 2
        )
        if (
            not isinstance(found, list)
            or len(found) != count
            or not all(isinstance(each, (int, float)) for each in found)
        ):
            raise ValueError(f"'{rope.path}': {key} must be {count} numbers, it is {quoted(found)}")
        return np.array(found, np.float32)
