"""Models whose factors are moved between layers, beside the model itself in transformers.

`make test-transformers` runs these, in an environment that has torch.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from pyarrowquant import Recipe, Rule, convert
from pyarrowquant.conversion.rescaling import rescaled
from pyarrowquant.formats.registry import FORMATS
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.models import open_model

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
EXPERTS = {
    **SIZES,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "decoder_sparse_step": 1,
}
LATENT = {
    **SIZES,
    "num_key_value_heads": 4,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 24,
    "head_dim": 8,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
MODELS: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {**SIZES, "attention_bias": True, "mlp_bias": True},
    "MistralForCausalLM": SIZES,
    "MixtralForCausalLM": {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen2ForCausalLM": SIZES,
    "Qwen2MoeForCausalLM": {**EXPERTS, "shared_expert_intermediate_size": 32},
    "Qwen3ForCausalLM": SIZES,
    "Qwen3MoeForCausalLM": EXPERTS,
    "Phi3ForCausalLM": SIZES,
    "SmolLM3ForCausalLM": SIZES,
    "GraniteForCausalLM": SIZES,
    "DeepseekV2ForCausalLM": {**LATENT, "q_lora_rank": 32},
    "DeepseekV3ForCausalLM": {**LATENT, "q_lora_rank": None},
    "Olmo2ForCausalLM": SIZES,
    "Olmo3ForCausalLM": SIZES,
    "GemmaForCausalLM": SIZES,
    "Gemma2ForCausalLM": SIZES,
    "Gemma3ForCausalLM": SIZES,
}
WITHOUT_NORMS_BEFORE = ("Olmo2ForCausalLM", "Olmo3ForCausalLM")
ADDING_ONE = ("GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM")
TOKENS = torch.arange(1, 25)[None]


def saved(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> Path:
    """Save a random model of which no two columns, and no two numbers of a norm, are alike."""
    torch.manual_seed(5)
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**MODELS[name]))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):
                parameter.normal_(std=0.1)
            elif parameter.dim() == 1:
                parameter.uniform_(-0.5, 1.5)
            elif "embed" not in key:
                parameter *= torch.exp(torch.randn(parameter.shape[-1:]))
                parameter *= torch.exp(torch.randn(parameter.shape[:-1]))[..., None]
    model.to(dtype).save_pretrained(folder)
    return folder


def hidden(folder: Path, name: str) -> torch.Tensor:
    """What comes to the head."""
    options = {"experts_implementation": "eager", "attn_implementation": "eager"}
    model = getattr(transformers, name).from_pretrained(folder, dtype="auto", **options)
    with torch.no_grad():
        return model.eval().model(input_ids=TOKENS, use_cache=False)[0]


def written(source: Path) -> Path:
    """Write the model with the weights that are quantized instead of its own, as float32."""
    model = rescaled(open_model(locate(source, None)), FORMATS["compressed-tensors"], "on")
    folder = source.with_name("rescaled")
    shutil.copytree(source, folder)
    tensors = {}
    for row in model.reader(only_floats=False).read_all().to_pylist():
        array = np.frombuffer(row["weights"], np.float32).reshape(row["shape"])
        tensors[row["layer_name"]] = torch.from_numpy(array.copy())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def changed(source: Path, folder: Path) -> set[str]:
    """The last parts of names of tensors of layers that are not what they were."""
    before, now = (load_file(path / "model.safetensors") for path in (source, folder))
    return {
        name.split(".", 3)[3]
        for name in before
        if name in now and not torch.equal(before[name].float(), now[name].float())
    }


@pytest.mark.parametrize("name", MODELS)
def test_a_model_computes_the_same(tmp_path: Path, name: str) -> None:
    source = saved(tmp_path / "model", name)
    folder = written(source)
    expected, found = hidden(source, name), hidden(folder, name)
    assert (found - expected).norm() <= 1e-6 * expected.norm()
    if name not in ADDING_ONE:
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    names = changed(source, folder)
    assert any(each.endswith("o_proj.weight") for each in names)
    assert any(each.endswith(("down_proj.weight", "w2.weight")) for each in names)
    norms = {each for each in names if each.endswith("layernorm.weight")}
    assert bool(norms) == (name not in WITHOUT_NORMS_BEFORE)


def test_the_folder_has_what_is_left_as_float(tmp_path: Path) -> None:
    """Only the head becomes codes, so that all that comes before is what it was made."""
    source, name = saved(tmp_path / "model", "LlamaForCausalLM", torch.bfloat16), "LlamaForCausalLM"
    head = Recipe([Rule(match="lm_head.weight", bit_width=8, group_size=32)], Rule(skip=True))
    folder = tmp_path / "codes"
    convert(source, folder, to="compressed-tensors", recipe=head, rescale="on")
    assert "input_layernorm.weight" in changed(source, folder)
    torch.testing.assert_close(hidden(folder, name), hidden(source, name), rtol=0, atol=0)
