"""Gemma 1 to 3, of which norms are stored without the 1 that is added to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from pyarrowquant.llama_cpp.architecture import HEAD, Architecture
from pyarrowquant.llama_cpp.hyperparameters import Hyperparameters
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.rope import describe_rope_of_windows
from pyarrowquant.llama_cpp.rows import Change, plus_one
from pyarrowquant.llama_cpp.sizes import Place, Sizes, norms
from pyarrowquant.reading.gguf import import_gguf


class Gemma(Architecture):
    """Heads have a size of their own; the embeddings are the head too."""

    name = "gemma"
    classes: ClassVar[Sequence[str]] = ("GemmaForCausalLM",)

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

    def layer_places(self, sizes: Sizes, layer: int) -> Iterator[Place]:
        yield from super().layer_places(sizes, layer)
        yield from norms(sizes.columns, "post_attention_norm", "post_ffw_norm")

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        said, add = self.hyperparameters, metadata.add
        _check_scale_of_queries(said, self.name, 46)
        for key, write in (
            ("attn_logit_softcapping", add.add_attn_logit_softcapping),
            ("final_logit_softcapping", add.add_final_logit_softcapping),
        ):
            if not (cap := said.number_or_none(key)):
                raise said.unsupported(key, "llama.cpp caps logits of gemma2 always")
            write(cap)


class Gemma3(Gemma):
    """Only the text model, of those that see too."""

    name = "gemma3"
    classes: ClassVar[Sequence[str]] = ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration")
    has_head = True

    def layer_places(self, sizes: Sizes, layer: int) -> Iterator[Place]:
        yield from super().layer_places(sizes, layer)
        yield from norms(sizes.columns, "post_attention_norm", "post_ffw_norm")
        yield from norms(sizes.head, "attn_q_norm", "attn_k_norm")

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        said, add = self.hyperparameters, metadata.add
        _check_scale_of_queries(said, self.name, 62)
        describe_rope_of_windows(said, metadata)
        if (cap := said.number_or_none("final_logit_softcapping")) is None:
            return
        if metadata.value_of_architecture(import_gguf("Writing").Keys.Attention.SLIDING_WINDOW):
            raise said.unsupported(
                "final_logit_softcapping",
                "llama.cpp caps no logits of gemma3 with layers that attend to a window",
            )
        add.add_final_logit_softcapping(cap)


def _check_scale_of_queries(said: Hyperparameters, architecture: str, layers_of_27b: int) -> None:
    """Raise for another scale than llama.cpp's, which it tells by the number of layers."""
    size = said.head_size
    if said.layers == layers_of_27b:
        size = said.whole("hidden_size") // said.heads
    if said.number("query_pre_attn_scalar") != size:
        raise said.unsupported(
            "query_pre_attn_scalar", f"llama.cpp computes {architecture} with {size} here alone"
        )
