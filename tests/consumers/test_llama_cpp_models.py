"""Each architecture that folders may have: llama.cpp computes what transformers does.

`make test-llama-cpp` runs these, in an environment that has both.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf
import hf_folders
import numpy as np
import pytest
import transformers
from commands import succeeded
from mixture_models import GPT_OSS as PUBLISHED
from mixture_models import gpt_oss
from safetensors.numpy import load_file, save_file
from test_llama_cpp_folders import (
    GEMMA,
    LINEAR,
    LLAMA_3,
    LONG,
    ROUNDING,
    ROWS,
    SIZES,
    TABLES,
    TOKENS,
    YARN,
    check_logits,
    computed,
)

from pyarrowquant.formats.registry import FORMATS
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.models import open_model

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 256}
DEEPSEEK: dict[str, Any] = {
    "num_key_value_heads": 8,
    "moe_intermediate_size": 256,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
    "q_lora_rank": 128,
    "kv_lora_rank": 256,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 48,
    "first_k_dense_replace": 1,
}
GPT_OSS: dict[str, Any] = {
    "head_dim": 32,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 16,
    "rope_parameters": YARN,
}
MODELS: dict[str, tuple[str, str, dict[str, Any], float]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", {}, ROUNDING),
    "llama 3": ("LlamaForCausalLM", "LlamaConfig", {"rope_scaling": LLAMA_3}, ROUNDING),
    "yarn": ("LlamaForCausalLM", "LlamaConfig", {"rope_parameters": YARN}, ROUNDING),
    "linear": ("LlamaForCausalLM", "LlamaConfig", {"rope_parameters": LINEAR}, ROUNDING),
    "biases, one matrix of embeddings": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {"attention_bias": True, "tie_word_embeddings": True},
        ROUNDING,
    ),
    "biases everywhere": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {"attention_bias": True, "mlp_bias": True},
        ROUNDING,
    ),
    "granite with biases": (
        "GraniteForCausalLM",
        "GraniteConfig",
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        ROUNDING,
    ),
    "heads of their own size": ("LlamaForCausalLM", "LlamaConfig", {"head_dim": 64}, ROUNDING),
    "mistral": ("MistralForCausalLM", "MistralConfig", {}, ROUNDING),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", {"num_local_experts": 4}, ROUNDING),
    "smollm3": ("SmolLM3ForCausalLM", "SmolLM3Config", {"num_hidden_layers": 4}, ROUNDING),
    "granite": (
        "GraniteForCausalLM",
        "GraniteConfig",
        {
            "attention_multiplier": 0.1,
            "embedding_multiplier": 2.0,
            "residual_multiplier": 0.5,
            "logits_scaling": 3.0,
        },
        ROUNDING,
    ),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {}, ROUNDING),
    "tied qwen2": ("Qwen2ForCausalLM", "Qwen2Config", {"tie_word_embeddings": True}, ROUNDING),
    "tied qwen2moe": (
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        {**EXPERTS, "shared_expert_intermediate_size": 256, "tie_word_embeddings": True},
        ROUNDING,
    ),
    "qwen2moe without biases": (
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        {**EXPERTS, "shared_expert_intermediate_size": 256, "qkv_bias": False},
        ROUNDING,
    ),
    "tied olmo2": ("Olmo2ForCausalLM", "Olmo2Config", {"tie_word_embeddings": True}, ROUNDING),
    "tied phi3": (
        "Phi3ForCausalLM",
        "Phi3Config",
        {"original_max_position_embeddings": 256, "tie_word_embeddings": True},
        ROUNDING,
    ),
    "glm4 without biases, tied": (
        "Glm4ForCausalLM",
        "Glm4Config",
        {"head_dim": 64, "attention_bias": False, "tie_word_embeddings": True},
        ROUNDING,
    ),
    "untied smollm3": (
        "SmolLM3ForCausalLM",
        "SmolLM3Config",
        {"num_hidden_layers": 4, "tie_word_embeddings": False},
        ROUNDING,
    ),
    "untied gemma3": (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**GEMMA, "num_hidden_layers": 7, "tie_word_embeddings": False},
        TABLES,
    ),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {"head_dim": 64}, ROUNDING),
    "qwen2moe": (
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        {**EXPERTS, "shared_expert_intermediate_size": 256},
        ROUNDING,
    ),
    "qwen3moe": (
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        {**EXPERTS, "head_dim": 64, "norm_topk_prob": True},
        ROUNDING,
    ),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", {"head_dim": 32}, TABLES),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", GEMMA, TABLES),
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**GEMMA, "num_hidden_layers": 7}, TABLES),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", {"original_max_position_embeddings": 256}, ROUNDING),
    "long phi3": ("Phi3ForCausalLM", "Phi3Config", LONG, ROUNDING),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", {}, ROUNDING),
    "glm4": ("Glm4ForCausalLM", "Glm4Config", {"head_dim": 32}, ROUNDING),
    "deepseek v3": ("DeepseekV3ForCausalLM", "DeepseekV3Config", DEEPSEEK, ROUNDING),
    "deepseek v3, yarn": (
        "DeepseekV3ForCausalLM",
        "DeepseekV3Config",
        {**DEEPSEEK, "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}},
        ROUNDING,
    ),
    "deepseek v2": (
        "DeepseekV2ForCausalLM",
        "DeepseekV2Config",
        {**DEEPSEEK, "q_lora_rank": None, "routed_scaling_factor": 16.0},
        ROUNDING,
    ),
    "deepseek v2, yarn": (
        "DeepseekV2ForCausalLM",
        "DeepseekV2Config",
        {**DEEPSEEK, "rope_parameters": {**YARN, "mscale": 0.707, "mscale_all_dim": 0.707}},
        ROUNDING,
    ),
    "gpt-oss": ("GptOssForCausalLM", "GptOssConfig", GPT_OSS, ROUNDING),
}


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    model_class, config_class, changes, bound = MODELS[name]
    config = getattr(transformers, config_class)(**{**SIZES, **changes})
    check_logits(tmp_path, model_class, config, bound)


def _opened(folder: Path) -> Any:
    return FORMATS["gguf"].viewed(open_model(locate(folder, None)), None)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_missing_or_of_another_shape_is_refused(tmp_path: Path, name: str) -> None:
    model_class, config_class, changes, _ = MODELS[name]
    config = getattr(transformers, config_class)(**{**SIZES, **changes})
    getattr(transformers, model_class)(config).save_pretrained(tmp_path)
    hf_folders.bpe(rows=ROWS).save(str(tmp_path / "tokenizer.json"))
    _opened(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    for changed, array in tensors.items():
        if ".layers.2." not in changed and ".layers." in changed:
            continue
        without = {other: each for other, each in tensors.items() if other != changed}
        other_shape = {**without, changed: np.ones([size + 2 for size in array.shape], np.float32)}
        for wrong in (without, other_shape):
            save_file(wrong, file)
            with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
                _opened(tmp_path)


def _likeness(found: np.ndarray, wanted: np.ndarray) -> float:
    """The cosine of the logits of most tokens; of some, rounding changes which experts they get."""
    products = (found * wanted).sum(axis=1)
    sizes = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(np.median(products / sizes))


@pytest.mark.parametrize("recipe", ["Q4_K_M", "MXFP4_MOE"])
def test_published_gpt_oss_runs(tmp_path: Path, recipe: str) -> None:
    """Beside the same file with its weights as floats."""
    folder = hf_folders.write(tmp_path / "model", gpt_oss(coded=True), **PUBLISHED)
    succeeded("quantize", folder, tmp_path / "a.gguf", "--recipe", recipe)
    succeeded("dequantize", tmp_path / "a.gguf", tmp_path / "floats.gguf")
    rows = hf_folders.ROWS
    found = computed(tmp_path / "a.gguf", TOKENS, rows)
    assert _likeness(found, computed(tmp_path / "floats.gguf", TOKENS, rows)) > 0.999
    if recipe == "MXFP4_MOE":
        succeeded("dequantize", folder, tmp_path / "source.gguf")
        assert _likeness(found, computed(tmp_path / "source.gguf", TOKENS, rows)) > 0.999
        tensors = {each.name: each for each in gguf.GGUFReader(tmp_path / "a.gguf").tensors}
        assert tensors["blk.0.ffn_up_exps.weight"].tensor_type.name == "MXFP4"


def test_a_model_in_several_files(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model", gpt_oss(coded=True), **PUBLISHED)
    succeeded("quantize", folder, tmp_path / "whole.gguf")
    succeeded("quantize", folder, tmp_path / "parts.gguf", "--split", "300K")
    first, *others = sorted(tmp_path.glob("parts-*.gguf"))
    assert len(others) > 2
    found, wanted = (
        computed(path, TOKENS, hf_folders.ROWS) for path in (first, tmp_path / "whole.gguf")
    )
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", ["deepseek v3", "deepseek v2"])
def test_quantized_deepseek_runs(tmp_path: Path, name: str) -> None:
    model_class, config_class, changes, _ = MODELS[name]
    config = getattr(transformers, config_class)(**{**SIZES, **changes})
    folder = tmp_path / "model"
    getattr(transformers, model_class)(config).save_pretrained(folder)
    hf_folders.bpe(rows=ROWS).save(str(folder / "tokenizer.json"))
    succeeded("quantize", folder, tmp_path / "a.gguf")
    succeeded("dequantize", tmp_path / "a.gguf", tmp_path / "floats.gguf")
    found, wanted = (computed(tmp_path / f"{each}.gguf", TOKENS, ROWS) for each in ("a", "floats"))
    assert _likeness(found, wanted) > 0.999
