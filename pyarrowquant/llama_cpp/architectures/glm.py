"""GLM 4 of 2025, half of whose columns of a head are turned by rotary embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pyarrowquant.llama_cpp.architecture import Architecture
from pyarrowquant.llama_cpp.metadata import Metadata


class Glm4(Architecture):
    """Norms before and after each part."""

    name = "glm4"
    classes: ClassVar[Sequence[str]] = ("Glm4ForCausalLM",)

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        said = self.hyperparameters
        rotary = said.rope.number_or_none("partial_rotary_factor") or 0.5
        metadata.add.add_rope_dimension_count(int(said.head_size * rotary))
