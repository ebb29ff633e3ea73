"""The decoders whose layers are known well enough to move factors between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Norms:
    """What attention and feed-forward read.

    Attributes
    ----------
    before_attention : str or None
        The norm whose output it reads, and nothing else does; None where there is none.
    before_feed_forward : str or None
        Likewise.
    add_one : bool
        Whether norms are stored without the 1 that is added to them.
    """

    before_attention: str | None
    before_feed_forward: str | None
    add_one: bool = False


_USUAL = Norms("input_layernorm", "post_attention_layernorm")
_AFTER = Norms(None, None)  # which come behind, so that layers read the sums of all before
_GEMMA = Norms("input_layernorm", "pre_feedforward_layernorm", add_one=True)

# By the classes of transformers.
KNOWN: Mapping[str, Norms] = {
    **dict.fromkeys(
        (
            "LlamaForCausalLM",
            "MistralForCausalLM",
            "MixtralForCausalLM",
            "Qwen2ForCausalLM",
            "Qwen2MoeForCausalLM",
            "Qwen3ForCausalLM",
            "Qwen3MoeForCausalLM",
            "Phi3ForCausalLM",
            "SmolLM3ForCausalLM",
            "GraniteForCausalLM",
            "DeepseekV2ForCausalLM",
            "DeepseekV3ForCausalLM",
        ),
        _USUAL,
    ),
    "Olmo2ForCausalLM": _AFTER,
    "Olmo3ForCausalLM": _AFTER,
    "GemmaForCausalLM": Norms("input_layernorm", "post_attention_layernorm", add_one=True),
    "Gemma2ForCausalLM": _GEMMA,
    "Gemma3ForCausalLM": _GEMMA,
}


def norms_of(config: Mapping[str, Any]) -> Norms | None:
    """Return the norms of a model's layers; None where its architecture is not known."""
    named = config.get("architectures")
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        return None
    return KNOWN.get(named[0])
