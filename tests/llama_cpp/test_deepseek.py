"""Folders of DeepSeek V2 and V3: attention of low rank, dense layers before those of experts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import hf_folders
import ml_dtypes
import numpy as np
import pytest
from commands import failed, run, succeeded
from mixture_models import DEEPSEEK, deepseek
from quantized_models import save

V2 = {"architectures": ["DeepseekV2ForCausalLM"], "norm_topk_prob": False}
YARN = {
    "type": "yarn",
    "factor": 4.0,
    "mscale": 0.707,
    "mscale_all_dim": 0.707,
    "original_max_position_embeddings": 64,
}


def written(folder: Path, tensors: dict[str, np.ndarray] | None = None, **config: Any) -> Path:
    tensors = deepseek() if tensors is None else tensors
    return hf_folders.write(folder, tensors, **{**DEEPSEEK, **config})


def contents(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    path = folder.parent / "floats.gguf"
    succeeded("dequantize", folder, path)
    reader = gguf.GGUFReader(path)
    keys = {key.removeprefix("deepseek2."): each.contents() for key, each in reader.fields.items()}
    return keys, {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


def test_keys_and_values_are_made_by_stacks_of_their_own(tmp_path: Path) -> None:
    source = deepseek()
    _, found = contents(written(tmp_path / "model", source))
    both = source["model.layers.1.self_attn.kv_b_proj.weight"]
    for head in range(8):
        rows = both[head * 80 : (head + 1) * 80]
        np.testing.assert_array_equal(found["blk.1.attn_k_b.weight"][head], rows[:32].T)
        np.testing.assert_array_equal(found["blk.1.attn_v_b.weight"][head], rows[32:])
    for name, original in {
        "0.attn_q_a.weight": "0.self_attn.q_a_proj.weight",
        "0.attn_q_a_norm.weight": "0.self_attn.q_a_layernorm.weight",
        "0.attn_q_b.weight": "0.self_attn.q_b_proj.weight",
        "0.attn_kv_a_mqa.weight": "0.self_attn.kv_a_proj_with_mqa.weight",
        "0.attn_kv_a_norm.weight": "0.self_attn.kv_a_layernorm.weight",
        "0.ffn_down.weight": "0.mlp.down_proj.weight",
        "1.exp_probs_b.bias": "1.mlp.gate.e_score_correction_bias",
        "1.ffn_gate_inp.weight": "1.mlp.gate.weight",
        "1.ffn_up_shexp.weight": "1.mlp.shared_experts.up_proj.weight",
    }.items():
        np.testing.assert_array_equal(found[f"blk.{name}"], source[f"model.layers.{original}"])
    third = source["model.layers.1.mlp.experts.3.gate_proj.weight"]
    np.testing.assert_array_equal(found["blk.1.ffn_gate_exps.weight"][3], third)
    assert "blk.0.ffn_gate_inp.weight" not in found


def test_keys_of_v3(tmp_path: Path) -> None:
    keys, _ = contents(written(tmp_path / "model"))
    wanted = {
        "attention.head_count": 8,
        "attention.head_count_kv": 1,
        "attention.key_length": 64 + 16,
        "attention.value_length": 64,
        "attention.key_length_mla": 32 + 16,
        "attention.value_length_mla": 48,
        "attention.q_lora_rank": 128,
        "attention.kv_lora_rank": 64,
        "rope.dimension_count": 16,
        "leading_dense_block_count": 1,
        "expert_count": 4,
        "expert_used_count": 2,
        "expert_shared_count": 2,
        "expert_group_count": 2,
        "expert_group_used_count": 1,
        "expert_gating_func": 2,
        "expert_feed_forward_length": 96,
        "expert_weights_scale": 2.5,
        "expert_weights_norm": True,
    }
    assert {key: keys[key] for key in wanted} == wanted


def test_v2_without_a_rank_of_queries(tmp_path: Path) -> None:
    source = deepseek(query_rank=None, has_bias=False)
    keys, found = contents(
        written(tmp_path / "model", source, **V2, q_lora_rank=None, rope_scaling=YARN)
    )
    assert keys["expert_gating_func"] == 1
    assert keys["attention.q_lora_rank"] == 0
    assert keys["expert_weights_norm"] is False
    assert "expert_group_count" not in keys
    assert keys["rope.scaling.yarn_log_multiplier"] == pytest.approx(0.0707)
    queries = source["model.layers.1.self_attn.q_proj.weight"]
    np.testing.assert_array_equal(found["blk.1.attn_q.weight"], queries)


def test_groups_by_their_best_expert_are_said_to_differ(tmp_path: Path) -> None:
    source = deepseek(has_bias=False)
    written(tmp_path / "model", source, **V2, topk_method="group_limited_greedy")
    done = run("quantize", tmp_path / "model", tmp_path / "a.gguf")
    assert done.exit_code == 0
    assert "group_limited_greedy" in done.stderr


def test_fp8_is_decoded_on_the_way(tmp_path: Path) -> None:
    """As V3 is published: a scale for each block of 128 rows and columns."""
    source = deepseek()
    random = np.random.default_rng(3)
    stored: dict[str, np.ndarray] = {}
    values = dict(source)
    for name, array in source.items():
        if ".experts." not in name and "kv_b_proj" not in name:
            stored[name] = array
            continue
        codes = array.astype(ml_dtypes.float8_e4m3fn)
        blocks = tuple(-(-size // 128) for size in array.shape)
        scales = random.uniform(0.5, 2, blocks).astype(np.float32)
        stored[name], stored[f"{name}_scale_inv"] = codes, scales
        each = np.repeat(np.repeat(scales, 128, axis=0), 128, axis=1)
        rows, columns = array.shape
        values[name] = codes.astype(np.float32) * each[:rows, :columns]
    quantization = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    folder = written(tmp_path / "model", quantization_config=quantization)
    save(folder / "model.safetensors", stored)
    _, found = contents(folder)
    both = values["model.layers.0.self_attn.kv_b_proj.weight"].reshape(8, 80, 64)
    np.testing.assert_array_equal(found["blk.0.attn_k_b.weight"], both[:, :32].swapaxes(1, 2))
    np.testing.assert_array_equal(found["blk.0.attn_v_b.weight"], both[:, 32:])
    for expert in range(4):
        wanted = values[f"model.layers.1.mlp.experts.{expert}.down_proj.weight"]
        np.testing.assert_array_equal(found["blk.1.ffn_down_exps.weight"][expert], wanted)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"scoring_func": "softmax"}, ["scoring_func", "softmax", "sigmoid"]),
        ({"rope_interleave": False}, ["rope_interleave"]),
        ({"moe_layer_freq": 2}, ["moe_layer_freq", "2"]),
        ({"n_group": 3}, ["n_routed_experts 4", "3 groups"]),
        ({"topk_group": 3}, ["topk_group 3", "n_group 2"]),
        ({"qk_rope_head_dim": 15}, ["qk_rope_head_dim 15", "even"]),
        ({"v_head_dim": 32}, ["kv_b_proj", "v_head_dim 32"]),
        ({"kv_lora_rank": 32}, ["kv_lora_rank 32"]),
        ({"first_k_dense_replace": 0}, ["model.layers.0.mlp", "no place"]),
        ({"n_shared_experts": 1}, ["n_shared_experts 1", "shared_experts"]),
        ({"num_hidden_layers": 27}, ["q_lora_rank is 128", "27 layers"]),
        ({"rope_scaling": {**YARN, "mscale": 1.0}}, ["mscale", "mscale_all_dim"]),
        ({"rope_scaling": {**YARN, "mscale_all_dim": None}}, ["mscale"]),
        ({"rope_scaling": {**YARN, "attention_factor": 2.0}}, ["attention_factor", "2.0"]),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, ["linear", "yarn"]),
        ({**V2, "topk_method": "noaux_tc"}, ["topk_method", "noaux_tc", "greedy"]),
        ({**V2, "norm_topk_prob": True}, ["norm_topk_prob"]),
        (V2, ["e_score_correction_bias", "no place"]),
    ],
)
def test_another_config_is_refused(
    tmp_path: Path, config: dict[str, Any], words: list[str]
) -> None:
    folder = written(tmp_path / "model", **config)
    error = failed("quantize", folder, tmp_path / "a.gguf", "--dry-run")
    assert error.count("Error: ") == error.count("\n") == 1
    for word in words:
        assert word in error
