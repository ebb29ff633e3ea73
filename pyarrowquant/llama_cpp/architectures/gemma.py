"""Gemma 1 to 3, of which norms are stored without the 1 that is added to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pyarrowquant.llama_cpp.architecture import Architecture
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.rows import Change, plus_one


class Gemma(Architecture):
    """Heads have a size of their own; the embeddings are the head too."""

    name = "gemma"
    classes: ClassVar[Sequence[str]] = ("GemmaForCausalLM",)

    usual_head_size = 256

    def unused(self, name: str) -> str | None:
        if self.original(name) == "lm_head.weight":
            return "which are the embeddings again"
        return super().unused(name)

    def change(self, name: str, shape: tuple[int, ...]) -> Change | None:
        return plus_one(shape) if name.endswith("norm.weight") else None


class Gemma2(Gemma):
    """Logits are capped; some layers attend to a window."""

    name = "gemma2"
    classes: ClassVar[Sequence[str]] = ("Gemma2ForCausalLM",)

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        said, add = self.hyperparameters, metadata.add
        if (cap := said.number_or_none("attn_logit_softcapping")) is not None:
            add.add_attn_logit_softcapping(cap)
        if (cap := said.number_or_none("final_logit_softcapping")) is not None:
            add.add_final_logit_softcapping(cap)
        add.add_sliding_window(said.whole("sliding_window"))


class Gemma3(Gemma):
    """Only the text model, of those that see too."""

    name = "gemma3"
    classes: ClassVar[Sequence[str]] = ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration")

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        said, add = self.hyperparameters, metadata.add
        if (cap := said.number_or_none("final_logit_softcapping")) is not None:
            add.add_final_logit_softcapping(cap)
        if said.whole_or_none("sliding_window_pattern") != 1:
            add.add_sliding_window(said.whole("sliding_window"))
