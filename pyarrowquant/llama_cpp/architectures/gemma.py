"""Gemma 1 to 3, of which norms are stored without the 1 that is added to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from pyarrowquant.llama_cpp.architecture import HEAD, Architecture
from pyarrowquant.llama_cpp.hyperparameters import Hyperparameters
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.rows import Change, plus_one
from pyarrowquant.llama_cpp.sizes import Place, Sizes, norms

# Of Gemma3TextConfig of transformers: what the config.json of models that see too leaves out.
_USUAL = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "sliding_window": 4096,
}


class Gemma(Architecture):
    """Heads have a size of their own; the embeddings are the head too."""

    name = "gemma"
    classes: ClassVar[Sequence[str]] = ("GemmaForCausalLM",)

    usual_head_size = 256
    has_head = False
    ties = True

    def unused(self, name: str) -> str | None:
        if self.is_tied and self.original(name) == HEAD:
            return "which are the embeddings again"
        return super().unused(name)

    def change(self, name: str, shape: tuple[int, ...]) -> Change | None:
        return plus_one(shape) if name.endswith("norm.weight") else None


class Gemma2(Gemma):
    """Logits are capped; some layers attend to a window."""

    name = "gemma2"
    classes: ClassVar[Sequence[str]] = ("Gemma2ForCausalLM",)

    def layer_places(self, sizes: Sizes) -> Iterator[Place]:
        yield from super().layer_places(sizes)
        yield from norms(sizes.columns, "post_attention_norm", "post_ffw_norm")

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
    has_head = True

    def __init__(self, hyperparameters: Hyperparameters, model_class: str) -> None:
        super().__init__(hyperparameters.completed(_USUAL), model_class)

    def layer_places(self, sizes: Sizes) -> Iterator[Place]:
        yield from super().layer_places(sizes)
        yield from norms(sizes.columns, "post_attention_norm", "post_ffw_norm")
        yield from norms(sizes.head, "attn_q_norm", "attn_k_norm")

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        said, add = self.hyperparameters, metadata.add
        if (cap := said.number_or_none("final_logit_softcapping")) is not None:
            add.add_final_logit_softcapping(cap)
        if said.whole_or_none("sliding_window_pattern") != 1:
            add.add_sliding_window(said.whole("sliding_window"))
