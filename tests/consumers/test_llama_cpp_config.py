"""What config.json says and leaves out, as GGUF files that llama.cpp computes the same with.

`make test-llama-cpp` runs these, in an environment that has transformers and llama.cpp.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from test_llama_cpp_folders import (
    GEMMA,
    LINEAR,
    LONG,
    ROUNDING,
    SIZES,
    TABLES,
    YARN,
    check_logits,
)

from pyarrowquant.llama_cpp.class_defaults import CLASS_DEFAULTS

_YARN_ATTENTION = {"rope_parameters": {**YARN, "attention_factor": 1.7}}
_YARN_SCALES = {"rope_parameters": {**YARN, "mscale": 2.0, "mscale_all_dim": 0.5}}
_LOCAL = {"rope_type": "default", "rope_theta": 500.0}
_LINEAR_GLOBAL = {"full_attention": LINEAR, "sliding_attention": _LOCAL}
_LAYERS = {"num_hidden_layers": 7}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, attention of yarn": ("Llama", _YARN_ATTENTION),
    "llama, scales of yarn": ("Llama", _YARN_SCALES),
    "llama, longrope": ("Llama", LONG),
    "granite, longrope": ("Granite", {**LONG, "attention_multiplier": 0.2}),
    "granite, yarn": ("Granite", {**_YARN_ATTENTION, "attention_multiplier": 0.2}),
    "smollm3, yarn": ("SmolLM3", {**_YARN_ATTENTION, "num_hidden_layers": 4}),
    "qwen2, yarn": ("Qwen2", _YARN_ATTENTION),
    "qwen3, yarn": ("Qwen3", _YARN_SCALES),
    "olmo2, yarn": ("Olmo2", _YARN_ATTENTION),
    "glm4, yarn": (
        "Glm4",
        {"head_dim": 32, "rope_parameters": {**YARN, "partial_rotary_factor": 0.5}},
    ),
    "glm4, turned whole": (
        "Glm4",
        {"head_dim": 32, "rope_parameters": {**_LOCAL, "partial_rotary_factor": 1.0}},
    ),
    "phi3, turned in part": ("Phi3", {"rope_parameters": {**_LOCAL, "partial_rotary_factor": 0.5}}),
    "gemma2, linear": ("Gemma2", {**GEMMA, "rope_parameters": LINEAR}),
    "gemma2, yarn": ("Gemma2", {**GEMMA, "rope_parameters": YARN}),
    "gemma3, linear": ("Gemma3", {**GEMMA, **_LAYERS, "rope_parameters": _LINEAR_GLOBAL}),
    "gemma3, without windows": (
        "Gemma3",
        {**GEMMA, "layer_types": ["full_attention"] * 3},
    ),
    "gemma3, capped without windows": (
        "Gemma3",
        {**GEMMA, "final_logit_softcapping": 2.0, "layer_types": ["full_attention"] * 3},
    ),
}


def config_class(family: str) -> Any:
    return getattr(transformers, "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config")


@pytest.mark.parametrize("name", MODELS)
def test_what_is_said(tmp_path: Path, name: str) -> None:
    family, changes = MODELS[name]
    config = config_class(family)(**{**SIZES, **changes})
    bound = TABLES if "Gemma" in family else ROUNDING
    check_logits(tmp_path, f"{family}ForCausalLM", config, bound)


_ENCODERS = ("Bert", "Roberta", "XLMRoberta", "NomicBert")
# What gpt-oss has for yarn, truncate: false, is what llama.cpp does not compute.
_FAMILIES = [family for family in CLASS_DEFAULTS if family not in (*_ENCODERS, "GptOss")]
_SMALL_EXPERTS = {
    "num_experts": 8,
    "moe_intermediate_size": 256,
    "shared_expert_intermediate_size": 256,
}
_SMALL_DEEPSEEK = {
    "num_key_value_heads": 32,
    "num_hidden_layers": 4,
    "n_routed_experts": 16,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
}


@pytest.mark.parametrize("family", _FAMILIES)
def test_what_is_left_out(tmp_path: Path, family: str) -> None:
    kind = config_class(family)
    sizes = {
        **SIZES,
        "num_attention_heads": 32,
        "num_key_value_heads": kind.num_key_value_heads,
        "num_hidden_layers": 2,
    }
    if "Moe" in family:
        sizes |= {**_SMALL_EXPERTS, "norm_topk_prob": family == "Qwen3Moe"}
    left_out = {"rope_parameters", "layer_types", "no_rope_layers", "num_key_value_heads"}
    left_out |= CLASS_DEFAULTS[family].keys() - SIZES.keys() - _SMALL_EXPERTS.keys()
    if "Deepseek" in family:
        sizes |= _SMALL_DEEPSEEK
        left_out -= _SMALL_DEEPSEEK.keys()
    bound = TABLES if "Gemma" in family else ROUNDING
    check_logits(tmp_path, f"{family}ForCausalLM", kind(**sizes), bound, sorted(left_out))


@pytest.mark.parametrize("family", CLASS_DEFAULTS)
def test_what_classes_take(family: str) -> None:
    kind = config_class(family)
    usual = kind()
    rope = usual.to_dict().get("rope_parameters") or {}
    elsewhere = {
        "rope_theta": rope.get("full_attention", rope).get("rope_theta"),
        "rope_local_base_freq": rope.get("sliding_attention", {}).get("rope_theta"),
        "partial_rotary_factor": rope.get("partial_rotary_factor"),
        "sliding_window_pattern": getattr(usual, "_sliding_window_pattern", None),
    }
    if said := CLASS_DEFAULTS[family].get("rope_parameters"):
        elsewhere["rope_parameters"] = {key: rope.get(key) for key in said}
    for key, value in CLASS_DEFAULTS[family].items():
        assert value == (elsewhere[key] if key in elsewhere else getattr(kind, key)), key
