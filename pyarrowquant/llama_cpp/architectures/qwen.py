"""Qwen2, Qwen3, and those with experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pyarrowquant.llama_cpp.architecture import Architecture, Named
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.rows import part

_FUSED = (".mlp.experts.gate_up_proj", ".mlp.experts.gate_up_proj.weight")
_DOWN = ".mlp.experts.down_proj"


class Qwen2(Architecture):
    """Queries, keys and values with biases."""

    name = "qwen2"
    classes: ClassVar[Sequence[str]] = ("Qwen2ForCausalLM", "Qwen2Model")
    bases: ClassVar[Sequence[str]] = ("Qwen2Model",)


class Qwen3(Architecture):
    """Norms of queries and keys."""

    name = "qwen3"
    classes: ClassVar[Sequence[str]] = ("Qwen3ForCausalLM", "Qwen3Model")
    bases: ClassVar[Sequence[str]] = ("Qwen3Model",)


class Qwen2Moe(Architecture):
    """Experts are modules, or stacks of which gates and what goes up are one tensor."""

    name = "qwen2moe"
    normalizes = False  # what llama.cpp does with the weights of the experts that are chosen
    classes: ClassVar[Sequence[str]] = ("Qwen2MoeForCausalLM",)

    def named(self, name: str, shape: tuple[int, ...]) -> list[Named]:
        original = self.original(name)
        if original.endswith(_DOWN):
            return [Named(self.target(f"{original}.weight"))]
        if original.endswith(_FUSED) and len(shape) == 3:
            before = original[: original.index(".gate_up_proj")]
            half = shape[1] // 2
            return [
                Named(self.target(f"{before}.gate_proj.weight"), part(shape, 1, 0, half)),
                Named(self.target(f"{before}.up_proj.weight"), part(shape, 1, half, 2 * half)),
            ]
        return super().named(name, shape)

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        said, add = self.hyperparameters, metadata.add
        if (said.get("norm_topk_prob") is True) != self.normalizes:
            raise ValueError(
                f"'{said.path}': norm_topk_prob must be {str(self.normalizes).lower()}, as "
                f"llama.cpp computes {self.name} so"
            )
        if (length := said.whole_or_none("moe_intermediate_size")) is not None:
            add.add_expert_feed_forward_length(length)
        if (length := said.whole_or_none("shared_expert_intermediate_size")) is not None:
            add.add_expert_shared_feed_forward_length(length)


class Qwen3Moe(Qwen2Moe):
    """Without experts that all tokens share."""

    name = "qwen3moe"
    normalizes = True
    classes: ClassVar[Sequence[str]] = ("Qwen3MoeForCausalLM",)
