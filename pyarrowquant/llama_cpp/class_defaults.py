"""What the classes of transformers take for keys that config.json leaves out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Sizes of which the weights are are said by every config.json but those of Gemma 3 that sees.
_LLAMA: Mapping[str, Any] = {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0}
_MISTRAL: Mapping[str, Any] = {**_LLAMA, "num_key_value_heads": 8, "sliding_window": 4096}
_QWEN: Mapping[str, Any] = {
    **_LLAMA,
    "num_key_value_heads": 32,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
_GEMMA: Mapping[str, Any] = {**_LLAMA, "head_dim": 256}
_DEEPSEEK: Mapping[str, Any] = {
    **_LLAMA,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
_BERT: Mapping[str, Any] = {"layer_norm_eps": 1e-12, "type_vocab_size": 2, "pad_token_id": 0}
_ROBERTA: Mapping[str, Any] = {**_BERT, "pad_token_id": 1}

CLASS_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "Llama": _LLAMA,
    "Mistral": _MISTRAL,
    "Mixtral": {
        "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    "SmolLM3": {
        "rms_norm_eps": 1e-6,
        "rope_theta": 2_000_000.0,
        "num_key_value_heads": 4,
        "use_sliding_window": False,
        "no_rope_layer_interval": 4,
    },
    "Granite": {
        **_LLAMA,
        "attention_multiplier": 1.0,
        "embedding_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
    },
    "Qwen2": _QWEN,
    "Qwen3": {**_QWEN, "head_dim": 128},
    "Qwen2Moe": {
        **_QWEN,
        "num_key_value_heads": 16,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
    },
    "Qwen3Moe": {
        **_LLAMA,
        "num_key_value_heads": 4,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
    },
    "Gemma": {**_GEMMA, "num_key_value_heads": 16},
    "Gemma2": {
        **_GEMMA,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "Gemma3": {
        **_GEMMA,
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131_072,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
    },
    "Phi3": {
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "original_max_position_embeddings": 4096,
    },
    "Olmo2": {"rms_norm_eps": 1e-5, "rope_theta": 10_000.0},
    "Glm4": {
        "rms_norm_eps": 1.5625e-7,
        "rope_theta": 10_000.0,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "partial_rotary_factor": 0.5,
    },
    "GptOss": {
        "rms_norm_eps": 1e-5,
        "rope_theta": 150_000.0,
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 32.0,
            "truncate": False,
            "original_max_position_embeddings": 4096,
        },
        "num_key_value_heads": 8,
        "head_dim": 64,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "sliding_window": 128,
    },
    "DeepseekV2": {
        **_DEEPSEEK,
        "first_k_dense_replace": 0,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "moe_intermediate_size": 1407,
        "routed_scaling_factor": 1.0,
        "norm_topk_prob": False,
        "topk_method": "greedy",
    },
    "DeepseekV3": {
        **_DEEPSEEK,
        "num_key_value_heads": 128,
        "first_k_dense_replace": 3,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "n_group": 8,
        "topk_group": 4,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 2048,
        "routed_scaling_factor": 2.5,
        "norm_topk_prob": True,
    },
    "Bert": _BERT,
    "Roberta": _ROBERTA,
    "XLMRoberta": _ROBERTA,
    "NomicBert": {**_BERT, "rope_theta": 1000.0},
}


def family_of(model_class: str) -> str:
    """Return what the classes of a model with other heads have in common: "Llama" and the like."""
    return re.sub(r"(ForCausalLM|ForConditionalGeneration|ForMaskedLM|Model)$", "", model_class)
