"""Folders of gpt-oss: experts as MXFP4, which stay as they are, or as floats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import hf_folders
import numpy as np
import pytest
from commands import failed, run, succeeded
from mixture_models import GPT_OSS, gpt_oss
from quantized_models import E2M1

STACKS = {
    "ffn_gate_exps": ("gate_up_proj", slice(0, None, 2)),
    "ffn_up_exps": ("gate_up_proj", slice(1, None, 2)),
    "ffn_down_exps": ("down_proj", slice(None)),
}


def written(folder: Path, coded: bool = True, **config: Any) -> dict[str, np.ndarray]:
    tensors = gpt_oss(coded)
    hf_folders.write(folder, tensors, **{**GPT_OSS, **config})
    return tensors


def tensors_of(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def decoded(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Codes are pairs of neighbours, the first in the lower bits."""
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*scales.shape, 32)
    return (E2M1[codes] * np.ldexp(1.0, scales.astype(int) - 127)[..., None]).reshape(
        *scales.shape[:-1], -1
    )


def test_experts_that_are_mxfp4_stay_so_bit_for_bit(tmp_path: Path) -> None:
    source = written(tmp_path / "model")
    done = run("quantize", tmp_path / "model", tmp_path / "a.gguf", "--recipe", "MXFP4_MOE")
    assert done.exit_code == 0
    assert "Kept, MXFP4 already: blk.0.ffn_down_exps.weight" in done.stdout
    assert "Decoded" not in done.stdout
    assert "Less than half" not in done.stdout
    found = tensors_of(tmp_path / "a.gguf")
    for layer in range(2):
        for name, (original, rows) in STACKS.items():
            tensor = found[f"blk.{layer}.{name}.weight"]
            assert tensor.tensor_type.name == "MXFP4"
            before = f"model.layers.{layer}.mlp.experts.{original}"
            pairs, scales = source[f"{before}_blocks"][:, rows], source[f"{before}_scales"][:, rows]
            blocks = np.asarray(tensor.data).reshape(*scales.shape, 17)
            np.testing.assert_array_equal(blocks[..., 0], scales)
            codes = np.concatenate([blocks[..., 1:] & 15, blocks[..., 1:] >> 4], axis=-1)
            np.testing.assert_array_equal(codes[..., 0::2], pairs & 15)
            np.testing.assert_array_equal(codes[..., 1::2], pairs >> 4)
    others = {name: tensor.tensor_type.name for name, tensor in found.items()}
    assert others["blk.0.attn_q.weight"] == "Q8_0"
    assert gguf.GGUFReader(tmp_path / "a.gguf").fields["general.file_type"].contents() == 38


def test_what_is_planned_is_what_is_written(tmp_path: Path) -> None:
    written(tmp_path / "model")
    command = ("quantize", tmp_path / "model", tmp_path / "a.gguf", "--recipe", "MXFP4_MOE")
    planned = json.loads(succeeded(*command, "--dry-run", "--json"))
    assert not (tmp_path / "a.gguf").exists()
    done = json.loads(succeeded(*command, "--json"))
    assert done["unquantized"] == planned["unquantized"]
    kept = {each["name"]: each["kept_bytes"] for each in done["unquantized"]}
    assert kept["blk.0.ffn_up_exps.weight"] == 4 * 256 * 256 // 32 * 17


def test_another_mix_decodes_experts(tmp_path: Path) -> None:
    source = written(tmp_path / "model")
    done = run("quantize", tmp_path / "model", tmp_path / "a.gguf")
    assert done.exit_code == 0
    assert "Decoded from MXFP4 (6 layers)" in done.stdout
    found = tensors_of(tmp_path / "a.gguf")
    for name, (original, rows) in STACKS.items():
        tensor = found[f"blk.1.{name}.weight"]
        assert tensor.tensor_type.name in ("Q4_K", "Q6_K")
        before = f"model.layers.1.mlp.experts.{original}"
        wanted = decoded(source[f"{before}_blocks"], source[f"{before}_scales"])[:, rows]
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        error = np.linalg.norm(weights - wanted) / np.linalg.norm(wanted)
        assert 0 < error < 0.1


@pytest.mark.parametrize("coded", [True, False])
def test_tensors_as_floats(tmp_path: Path, coded: bool) -> None:
    source = written(tmp_path / "model", coded)
    succeeded("dequantize", tmp_path / "model", tmp_path / "a.gguf")
    found = {name: np.array(each.data) for name, each in tensors_of(tmp_path / "a.gguf").items()}
    before = "model.layers.1.mlp.experts"
    for name, (original, rows) in STACKS.items():
        if coded:
            stack = decoded(
                source[f"{before}.{original}_blocks"], source[f"{before}.{original}_scales"]
            )
        else:
            stack = source[f"{before}.{original}"].swapaxes(1, 2)
        np.testing.assert_array_equal(found[f"blk.1.{name}.weight"], stack[:, rows])
        biases = source[f"{before}.{original}_bias"]
        np.testing.assert_array_equal(found[f"blk.1.{name}.bias"], biases[:, rows])
    for name, original in {
        "attn_sinks.weight": "self_attn.sinks",
        "attn_output.bias": "self_attn.o_proj.bias",
        "ffn_gate_inp.weight": "mlp.router.weight",
        "ffn_gate_inp.bias": "mlp.router.bias",
        "post_attention_norm.weight": "post_attention_layernorm.weight",
        "attn_q.weight": "self_attn.q_proj.weight",
    }.items():
        wanted = source[f"model.layers.1.{original}"]
        np.testing.assert_array_equal(found[f"blk.1.{name}"], wanted)


def test_keys(tmp_path: Path) -> None:
    written(tmp_path / "model")
    succeeded("dequantize", tmp_path / "model", tmp_path / "a.gguf")
    fields = gguf.GGUFReader(tmp_path / "a.gguf").fields
    said = {key: field.contents() for key, field in fields.items() if key.startswith("gpt-oss.")}
    assert said == {
        "gpt-oss.block_count": 2,
        "gpt-oss.context_length": 128,
        "gpt-oss.embedding_length": 256,
        "gpt-oss.feed_forward_length": 256,
        "gpt-oss.attention.head_count": 8,
        "gpt-oss.attention.head_count_kv": 2,
        "gpt-oss.attention.key_length": 32,
        "gpt-oss.attention.value_length": 32,
        "gpt-oss.attention.layer_norm_rms_epsilon": pytest.approx(1e-5),
        "gpt-oss.attention.sliding_window": 16,
        "gpt-oss.expert_count": 4,
        "gpt-oss.expert_used_count": 2,
        "gpt-oss.expert_feed_forward_length": 256,
        "gpt-oss.rope.freq_base": 10000.0,
        "gpt-oss.rope.scaling.type": "yarn",
        "gpt-oss.rope.scaling.factor": 4.0,
        "gpt-oss.rope.scaling.original_context_length": 64,
    }


def test_frequencies_that_are_not_truncated_are_said(tmp_path: Path) -> None:
    scaling = {**GPT_OSS["rope_scaling"], "truncate": False}
    written(tmp_path / "model", rope_scaling=scaling)
    done = run("dequantize", tmp_path / "model", tmp_path / "a.gguf")
    assert done.exit_code == 0
    assert "truncate is false" in done.stderr


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"swiglu_limit": 5.0}, ["swiglu_limit", "5.0", "7.0"]),
        ({"layer_types": ["full_attention"] * 2}, ["layer_types", "layer 0"]),
        ({"num_local_experts": 8}, ["num_local_experts 8", "[4, 256]"]),
        ({"intermediate_size": 128}, ["intermediate_size 128"]),
        ({"sliding_window": None}, ["sliding_window"]),
    ],
)
def test_another_config_is_refused(
    tmp_path: Path, config: dict[str, Any], words: list[str]
) -> None:
    written(tmp_path / "model", **config)
    error = failed("quantize", tmp_path / "model", tmp_path / "a.gguf", "--dry-run")
    for word in words:
        assert word in error


@pytest.mark.parametrize("end", ["_scales", "_blocks", "_bias"])
def test_a_part_of_experts_that_is_missing_is_refused(tmp_path: Path, end: str) -> None:
    tensors = gpt_oss(coded=True)
    del tensors[f"model.layers.1.mlp.experts.down_proj{end}"]
    hf_folders.write(tmp_path / "model", tensors, **GPT_OSS)
    error = failed("quantize", tmp_path / "model", tmp_path / "a.gguf")
    assert "down_proj" in error
    assert not (tmp_path / "a.gguf").exists()
