"""What llama.cpp computes for each architecture, where config.json may say something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyarrowquant.llama_cpp.hyperparameters import Hyperparameters

_SILU = ("silu", "swish")
# llama.cpp approximates all of them by tanh, to the precision of a table.
_GELU = (
    "gelu",
    "gelu_accurate",
    "gelu_fast",
    "gelu_new",
    "gelu_python",
    "gelu_python_tanh",
    "gelu_pytorch_tanh",
)
_FREQUENCIES = ("linear", "yarn")
_FACTORS = (*_FREQUENCIES, "llama3", "longrope")


@dataclass(frozen=True)
class Support:
    """What llama.cpp computes for an architecture.

    Attributes
    ----------
    values : mapping of str to tuple
        Keys of config.json, and the values that they may have; null is one of them.
    rope_types : sequence of str
        How rotary embeddings may be scaled; none for positions of another kind.
    """

    values: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: {"hidden_act": _SILU})
    rope_types: tuple[str, ...] = _FREQUENCIES


_EXPERTS = Support({"hidden_act": _SILU, "decoder_sparse_step": (1,), "mlp_only_layers": ([],)})
SUPPORTED: Mapping[str, Support] = {
    "llama": Support(rope_types=_FACTORS),
    "granite": Support(rope_types=_FACTORS),
    "smollm3": Support(),
    "qwen2": Support(),
    "qwen3": Support(),
    "qwen2moe": _EXPERTS,
    "qwen3moe": _EXPERTS,
    "gemma": Support({"hidden_act": _GELU, "use_bidirectional_attention": (False,)}),
    "gemma2": Support({"hidden_activation": _GELU, "use_bidirectional_attention": (False,)}),
    # Yarn's attention_factor would hold for layers with a window too.
    "gemma3": Support(
        {
            "hidden_activation": _GELU,
            "use_bidirectional_attention": (False,),
            "attn_logit_softcapping": (),
        },
        ("linear",),
    ),
    "phi3": Support(rope_types=("longrope",)),
    "olmo2": Support(),
    "glm4": Support(),
    "gpt-oss": Support({"swiglu_alpha": (1.702,), "swiglu_limit": (7.0,)}),
    # Of frequencies that are scaled otherwise, llama.cpp would scale attention too.
    "deepseek2": Support(
        {"hidden_act": _SILU, "moe_layer_freq": (1,), "rope_interleave": (True,)}, ("yarn",)
    ),
    "bert": Support(
        {
            "hidden_act": _GELU,
            "position_embedding_type": ("absolute",),
            "is_decoder": (False,),
            "add_cross_attention": (False,),
        },
        (),
    ),
    "nomic-bert": Support(
        {
            "hidden_act": _SILU,
            "activation_function": (*_SILU, "swiglu"),
            "causal": (False,),
            "prenorm": (False,),
            "use_rms_norm": (False,),
            "rotary_emb_fraction": (1.0,),
            "rotary_emb_interleaved": (False,),
            "rotary_emb_scale_base": (),
        }
    ),
}


_ENCODERS = ("bert", "nomic-bert")


def check_values(said: Hyperparameters, architecture: str) -> None:
    """Raise a ValueError for a key whose value llama.cpp does not compute with."""
    if architecture not in _ENCODERS and said.get("is_causal") is False:
        raise said.unsupported(
            "is_causal", f"llama.cpp's {architecture} attends to tokens before alone"
        )
    check_known(said, SUPPORTED[architecture].values, architecture)


def check_known(said: Hyperparameters, known: Mapping[str, tuple[Any, ...]], what: str) -> None:
    """Raise a ValueError for a key that is there, and has none of the values that it may have."""
    for key, values in known.items():
        found = said.get(key)
        if found is not None and found not in values:
            text = " or ".join(map(repr, values)) or "none of it"
            raise said.unsupported(key, f"llama.cpp computes {what} with {text} alone")
