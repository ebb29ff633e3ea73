"""How much errors of kinds of layers add to what language models predict wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from pyarrowquant._core.shapes import product

# The KL divergence that noise adds to predictions, for a weight of the tensor and for noise of the
# same size relative to the weights, beside that of ffn_up, by names of GGUF. Measured on
# SmolLM2 135M, then chosen by what budgets do to the predictions of SmolLM2 135M and Gemma 3 270M;
# rounded.
_SENSITIVITY = {
    "attn_v": 6.0,
    "attn_k": 2.0,
    "attn_qkv": 3.0,  # which has all three
    "attn_kv_b": 4.0,
    "attn_q": 1.0,
    "attn_output": 2.0,
    "ffn_gate": 0.7,
    "ffn_up": 1.0,
    "ffn_down": 2.0,
}
_HEAD = 3.0  # of what makes logits

# Modules of decoders in Hugging Face's checkpoints.
_MODULES = {
    "v_proj": "attn_v",
    "k_proj": "attn_k",
    "qkv_proj": "attn_qkv",
    "kv_b_proj": "attn_kv_b",
    "q_proj": "attn_q",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
_OF_VALUES = {"attn_v", "attn_qkv", "attn_kv_b"}
_IN_LAYER = re.compile(r"(?:^|\.)layers\.\d+\.(?:self_attn|mlp)\.(\w+)\.weight")
_HEAD_NAME = "lm_head.weight"


def decoder_weights(names: Iterable[str]) -> Callable[[str, Sequence[int]], float] | None:
    """Return what squared relative errors of a decoder's layers weigh, or None of other models.

    Parameters
    ----------
    names : iterable of str
        Of tensors, as Hugging Face's checkpoints have them.
    """
    found = {_kind_of(name) for name in names}
    if "ffn_down" not in found or found.isdisjoint(_OF_VALUES):
        return None
    return weights_by_kind(_kind_of, _HEAD_NAME)


def weights_by_kind(
    kind_of: Callable[[str], str | None], head: str | None
) -> Callable[[str, Sequence[int]], float]:
    """Return what squared relative errors of layers weigh: sensitivity, for all their weights.

    Parameters
    ----------
    kind_of : callable
        Returns the kind of a layer, by its name, as GGUF calls it.
    head : str or None
        The layer that makes logits.
    """

    def weight(name: str, shape: Sequence[int]) -> float:
        sensitivity = _HEAD if name == head else _SENSITIVITY.get(kind_of(name) or "", 1.0)
        return product(shape) * sensitivity

    return weight


def _kind_of(name: str) -> str | None:
    module = _IN_LAYER.search(name)
    return _MODULES.get(module[1]) if module else None
