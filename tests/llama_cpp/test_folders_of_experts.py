"""Hugging Face folders of mixtures to GGUF: experts are stacked."""

from __future__ import annotations

from pathlib import Path

import hf_folders
import numpy as np
from commands import failed
from folders_to_gguf import floats


def _with_experts(count: int) -> dict[str, np.ndarray]:
    tensors = {name: array for name, array in hf_folders.llama().items() if ".mlp." not in name}
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(2):
        before = f"model.layers.{layer}.block_sparse_moe"
        shapes[f"{before}.gate.weight"] = (count, 256)
        for expert in range(count):
            for matrix, shape in {"w1": (512, 256), "w2": (256, 512), "w3": (512, 256)}.items():
                shapes[f"{before}.experts.{expert}.{matrix}.weight"] = shape
    return {**tensors, **hf_folders.weights(shapes)}


def _mixtral(folder: Path, weights: dict[str, np.ndarray], count: int) -> Path:
    return hf_folders.write(
        folder,
        weights,
        architectures=["MixtralForCausalLM"],
        num_local_experts=count,
        num_experts_per_tok=2,
    )


def test_experts_are_stacked(tmp_path: Path) -> None:
    weights = _with_experts(12)  # of which 10 comes before 2 in the order of names
    folder = _mixtral(tmp_path / "model", weights, 12)
    keys, tensors = floats(folder)
    assert (keys["llama.expert_count"], keys["llama.expert_used_count"]) == (12, 2)
    for name, matrix in {"ffn_gate": "w1", "ffn_down": "w2", "ffn_up": "w3"}.items():
        stack = tensors[f"blk.1.{name}_exps.weight"]
        for expert in range(12):
            original = f"model.layers.1.block_sparse_moe.experts.{expert}.{matrix}.weight"
            np.testing.assert_array_equal(stack[expert], weights[original])


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    weights = _with_experts(4)
    del weights["model.layers.1.block_sparse_moe.experts.2.w2.weight"]
    folder = _mixtral(tmp_path / "model", weights, 4)
    error = failed("quantize", folder, tmp_path / "a.gguf")
    assert "blk.1.ffn_down_exps.weight" in error
    assert "experts 0 to 2" in error


def test_fused_experts_are_taken_apart(tmp_path: Path) -> None:
    tensors = {name: array for name, array in hf_folders.llama().items() if ".mlp." not in name}
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(2):
        before = f"model.layers.{layer}"
        shapes |= {
            f"{before}.mlp.gate.weight": (4, 256),
            f"{before}.mlp.experts.gate_up_proj": (4, 2 * 96, 256),
            f"{before}.mlp.experts.down_proj": (4, 256, 96),
            f"{before}.self_attn.q_norm.weight": (32,),
            f"{before}.self_attn.k_norm.weight": (32,),
        }
    weights = {**tensors, **hf_folders.weights(shapes)}
    folder = hf_folders.write(
        tmp_path / "model",
        weights,
        architectures=["Qwen3MoeForCausalLM"],
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=96,
        norm_topk_prob=True,
        head_dim=32,
    )
    keys, found = floats(folder)
    assert keys["qwen3moe.expert_feed_forward_length"] == 96
    fused = weights["model.layers.0.mlp.experts.gate_up_proj"]
    np.testing.assert_array_equal(found["blk.0.ffn_gate_exps.weight"], fused[:, :96])
    np.testing.assert_array_equal(found["blk.0.ffn_up_exps.weight"], fused[:, 96:])
    down = weights["model.layers.0.mlp.experts.down_proj"]
    np.testing.assert_array_equal(found["blk.0.ffn_down_exps.weight"], down)
    # Queries are not paired: Qwen's code turns halves, as llama.cpp does for it.
    queries = weights["model.layers.0.self_attn.q_proj.weight"]
    np.testing.assert_array_equal(found["blk.0.attn_q.weight"], queries)
