"""How much the tensors of a language model matter for what it predicts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from pyarrowquant._core.shapes import product
from pyarrowquant.reading.gguf import GgufModel
from pyarrowquant.reading.model import Model

# The KL divergence that noise adds to predictions, for a weight of the tensor and for noise of the
# same size relative to the weights, beside that of ffn_up. Measured on SmolLM2 135M, rounded.
_HEAD = 3.0  # of what makes logits
_SENSITIVITY = {
    "attn_v": 12.0,
    "attn_k": 3.0,
    "attn_qkv": 6.0,  # which has all three
    "attn_kv_b": 6.0,
    "attn_q": 1.0,
    "attn_output": 1.0,
    "ffn_gate": 0.5,
    "ffn_up": 1.0,
    "ffn_down": 2.0,
}


def error_weights(model: Model) -> Callable[[str, Sequence[int]], float]:
    """Return what squared relative errors of layers weigh: sensitivity, for all their weights."""
    head = "output.weight"
    if all(tensor.name != head for tensor in model.all_tensors):
        head = "token_embd.weight"
    sensitivities = {head: _HEAD} if isinstance(model, GgufModel) else {}

    def weight(name: str, shape: Sequence[int]) -> float:
        kind = re.fullmatch(r"blk\.\d+\.(\w+)\.weight", name)
        usual = _SENSITIVITY.get(kind[1], 1.0) if kind else 1.0
        return product(shape) * sensitivities.get(name, usual)

    return weight
