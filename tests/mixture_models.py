"""Tensors of small models of experts, as they are published."""

from __future__ import annotations

from typing import Any

import hf_folders
import numpy as np

Tensors = dict[str, np.ndarray]
EXPERTS, COLUMNS, INNER = 4, 256, 256
GPT_OSS: dict[str, Any] = {
    "architectures": ["GptOssForCausalLM"],
    "intermediate_size": INNER,
    "head_dim": 32,
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "sliding_window": 16,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 4.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "original_max_position_embeddings": 64,
    },
}
DEEPSEEK: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "num_key_value_heads": 8,
    "q_lora_rank": 128,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 48,
    "first_k_dense_replace": 1,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 96,
    "n_group": 2,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
}


def _without_mlp() -> Tensors:
    return {name: array for name, array in hf_folders.llama().items() if ".mlp." not in name}


def gpt_oss(coded: bool) -> Tensors:
    """Experts as MXFP4, or as floats whose rows are inputs."""
    shapes: dict[str, tuple[int, ...]] = {}
    codes: Tensors = {}
    random = np.random.default_rng(5)
    for layer in range(2):
        before = f"model.layers.{layer}"
        for name, rows in {"q": 256, "k": 64, "v": 64, "o": 256}.items():
            shapes[f"{before}.self_attn.{name}_proj.bias"] = (rows,)
        shapes |= {
            f"{before}.self_attn.sinks": (8,),
            f"{before}.mlp.router.weight": (EXPERTS, COLUMNS),
            f"{before}.mlp.router.bias": (EXPERTS,),
            f"{before}.mlp.experts.gate_up_proj_bias": (EXPERTS, 2 * INNER),
            f"{before}.mlp.experts.down_proj_bias": (EXPERTS, COLUMNS),
        }
        for name, rows, columns in (
            (f"{before}.mlp.experts.gate_up_proj", 2 * INNER, COLUMNS),
            (f"{before}.mlp.experts.down_proj", COLUMNS, INNER),
        ):
            if not coded:
                shapes[name] = (EXPERTS, columns, rows)
                continue
            groups = (EXPERTS, rows, columns // 32)
            codes[f"{name}_blocks"] = random.integers(0, 256, (*groups, 16), np.uint8)
            codes[f"{name}_scales"] = random.integers(117, 124, groups, np.uint8)
    return {**_without_mlp(), **hf_folders.weights(shapes), **codes}


def deepseek(query_rank: int | None = 128, has_bias: bool = True) -> Tensors:
    """One dense layer and one of experts that are matrices each."""
    tensors = {name: array for name, array in _without_mlp().items() if ".self_attn." not in name}
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(2):
        attention = f"model.layers.{layer}.self_attn"
        if query_rank is None:
            shapes[f"{attention}.q_proj.weight"] = (8 * 48, COLUMNS)
        else:
            shapes |= {
                f"{attention}.q_a_proj.weight": (query_rank, COLUMNS),
                f"{attention}.q_a_layernorm.weight": (query_rank,),
                f"{attention}.q_b_proj.weight": (8 * 48, query_rank),
            }
        shapes |= {
            f"{attention}.kv_a_proj_with_mqa.weight": (64 + 16, COLUMNS),
            f"{attention}.kv_a_layernorm.weight": (64,),
            f"{attention}.kv_b_proj.weight": (8 * (32 + 48), 64),
            f"{attention}.o_proj.weight": (COLUMNS, 8 * 48),
        }
    shapes |= _mlp("model.layers.0.mlp", 512)
    shapes |= _mlp("model.layers.1.mlp.shared_experts", 2 * 96)
    shapes["model.layers.1.mlp.gate.weight"] = (EXPERTS, COLUMNS)
    if has_bias:
        shapes["model.layers.1.mlp.gate.e_score_correction_bias"] = (EXPERTS,)
    for expert in range(EXPERTS):
        shapes |= _mlp(f"model.layers.1.mlp.experts.{expert}", 96)
    return {**tensors, **hf_folders.weights(shapes)}


def _mlp(before: str, inner: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{before}.gate_proj.weight": (inner, COLUMNS),
        f"{before}.up_proj.weight": (inner, COLUMNS),
        f"{before}.down_proj.weight": (COLUMNS, inner),
    }
