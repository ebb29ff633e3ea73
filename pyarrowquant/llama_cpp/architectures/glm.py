"""GLM 4 of 2025, half of whose columns of a head are turned by rotary embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pyarrowquant.llama_cpp.architecture import Architecture
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.rope import turned_columns


class Glm4(Architecture):
    """Norms before and after each part."""

    name = "glm4"
    classes: ClassVar[Sequence[str]] = ("Glm4ForCausalLM",)

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        metadata.add.add_rope_dimension_count(turned_columns(self.hyperparameters))
