"""Folders whose tensors and config.json are not of one model, or not of one that llama.cpp has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import hf_folders
import numpy as np
import pytest
from commands import failed, run, succeeded

Tensors = dict[str, np.ndarray]
_QUERIES = "model.layers.1.self_attn.q_proj.weight"
_DOWN = "model.layers.0.mlp.down_proj.weight"


def refused(folder: Path, *words: str) -> None:
    """A dry run says it too, in one line, and nothing is written."""
    for options in ([], ["--dry-run"]):
        error = failed("quantize", folder, folder.parent / "out.gguf", *options)
        assert error.count("Error: ") == error.count("\n") == 1
        for word in (str(folder), *words):
            assert word in error
    assert {path.name for path in folder.parent.iterdir()} == {folder.name}


def converted(folder: Path) -> tuple[Tensors, dict[str, str]]:
    """The tensors of the GGUF of a folder as floats, and their types."""
    path = folder.parent / "floats.gguf"
    succeeded("dequantize", folder, path, "--dtype", "bfloat16", "--overwrite")
    tensors = gguf.GGUFReader(path).tensors
    types = {tensor.name: tensor.tensor_type.name for tensor in tensors}
    succeeded("dequantize", folder, path, "--overwrite")
    floats = {t.name: np.array(t.data) for t in gguf.GGUFReader(path).tensors}
    return floats, types


@pytest.mark.parametrize("name", [name for name in hf_folders.llama() if ".0." not in name])
def test_any_missing_tensor_is_named(tmp_path: Path, name: str) -> None:
    tensors = hf_folders.llama()
    del tensors[name]
    word = "embeddings" if "embed_tokens" in name else name
    word = {"lm_head.weight": "output.weight", "model.norm.weight": "output_norm"}.get(name, word)
    refused(hf_folders.write(tmp_path / "model", tensors), word)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"hidden_size": 512}, ["hidden_size 512", "embed_tokens"]),
        ({"vocab_size": 300}, ["vocab_size 300", "[300, 256]", "[320, 256]"]),
        ({"intermediate_size": 640}, ["intermediate_size 640", "[640, 256]", "gate_proj"]),
        ({"num_attention_heads": 16}, ["num_attention_heads 16", "k_proj", "[32, 256]"]),
        ({"num_key_value_heads": 4}, ["num_key_value_heads 4", "k_proj"]),
        ({"num_key_value_heads": 3}, ["num_attention_heads 8", "num_key_value_heads 3"]),
        ({"num_attention_heads": 6, "num_key_value_heads": 2}, ["hidden_size 256", "6 heads"]),
        ({"num_attention_heads": 256, "num_key_value_heads": 64}, ["even", "1"]),
        ({"head_dim": 64}, ["head_dim 64", "q_proj"]),
        ({"num_hidden_layers": 10**9}, ["num_hidden_layers 1000000000"]),
        ({"num_local_experts": 4, "num_experts_per_tok": 5}, ["num_experts_per_tok 5"]),
        ({"num_local_experts": 4, "num_experts_per_tok": 2}, ["down_proj", "no place"]),
        ({"attention_bias": True}, ["attn_q.bias"]),
        ({"attention_bias": 1}, ["attention_bias must be true or false"]),
        ({"tie_word_embeddings": "no"}, ["tie_word_embeddings must be true or false"]),
        ({"architectures": ["Qwen3ForCausalLM"], "head_dim": 32}, ["attn_q_norm.weight"]),
        ({"architectures": ["Qwen2ForCausalLM"], "head_dim": 64}, ["head_dim 64"]),
        ({"architectures": ["Olmo2ForCausalLM"], "head_dim": 64}, ["head_dim 64"]),
        (
            {"architectures": ["GemmaForCausalLM"], "head_dim": 32, "tie_word_embeddings": False},
            ["tie_word_embeddings is false"],
        ),
    ],
)
def test_another_config(tmp_path: Path, config: dict[str, Any], words: list[str]) -> None:
    refused(hf_folders.write(tmp_path / "model", **config), "config.json", *words)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        (_QUERIES, np.ones((0, 256), np.float32), ["[0, 256]", "[256, 256]"]),
        (_QUERIES, np.array(1, np.float32), ["[]", "[256, 256]"]),
        (_QUERIES, np.ones((256, 256), np.int8), ["dtype I8"]),
        (_DOWN, np.ones((256, 512), np.int8), ["dtype I8"]),
        ("model.norm.weight", np.ones(256, np.int32), ["dtype I32"]),
        (_QUERIES.replace("weight", "bias"), np.ones(256, np.float32), ["no place"]),
        (_DOWN.replace("weight", "bias"), np.ones(256, np.float32), ["no place"]),
    ],
)
def test_another_tensor(tmp_path: Path, name: str, array: np.ndarray, words: list[str]) -> None:
    tensors = {**hf_folders.llama(), name: array}
    refused(hf_folders.write(tmp_path / "model", tensors), name, *words)


def test_biases_that_an_architecture_lacks(tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.o_proj.bias"
    tensors = {**hf_folders.llama(), name: np.ones(256, np.float32)}
    folder = hf_folders.write(
        tmp_path / "model",
        tensors,
        architectures=["SmolLM3ForCausalLM"],
        attention_bias=True,
    )
    refused(folder, name, "'smollm3'")


@pytest.mark.parametrize("model_class", ["LlamaModel", "MistralModel"])
def test_models_without_a_head(tmp_path: Path, model_class: str) -> None:
    tensors = hf_folders.llama()
    wanted, _ = converted(hf_folders.write(tmp_path / "whole", tensors))
    bare = {name.removeprefix("model."): array for name, array in tensors.items()}
    del bare["lm_head.weight"]
    config = {"architectures": [model_class], "vocab_size": len(bare["embed_tokens.weight"])}
    found, _ = converted(hf_folders.write(tmp_path / "bare", bare, **config))
    assert wanted.keys() - found.keys() == {"output.weight"}
    for name, array in found.items():
        np.testing.assert_array_equal(array, wanted[name])


def test_tied_embeddings_are_the_head(tmp_path: Path) -> None:
    tensors = hf_folders.llama()
    del tensors["lm_head.weight"]
    folder = hf_folders.write(tmp_path / "model", tensors, tie_word_embeddings=True)
    assert "output.weight" not in converted(folder)[0]


def test_a_head_is_copied_where_llama_cpp_asks_for_it(tmp_path: Path) -> None:
    tensors = {
        name.replace("input_layernorm", "post_feedforward_layernorm"): array
        for name, array in hf_folders.llama().items()
        if name != "lm_head.weight"
    }
    for layer in range(2):
        for norm, size in (("q_norm", 256), ("k_norm", 64)):
            name = f"model.layers.{layer}.self_attn.{norm}.weight"
            tensors[name] = np.ones(size, np.float32)
    folder = hf_folders.write(
        tmp_path / "model",
        tensors,
        architectures=["Olmo2ForCausalLM"],
        tie_word_embeddings=True,
    )
    floats, _ = converted(folder)
    np.testing.assert_array_equal(floats["output.weight"], tensors["model.embed_tokens.weight"])


def test_layers_beyond_those_of_the_config_are_left_out(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model", hf_folders.llama(layers=3))
    told = json.loads(succeeded("quantize", folder, tmp_path / "a.gguf", "--json"))
    left = [tensor for tensor in told["unquantized"] if not tensor["kept"]]
    assert len(left) == 9
    assert all(tensor["name"].startswith("model.layers.2.") for tensor in left)
    assert {tensor["reason"] for tensor in left} == {"of layers beyond the 2 that config.json says"}
    names = {tensor.name for tensor in gguf.GGUFReader(tmp_path / "a.gguf").tensors}
    assert not any(name.startswith("blk.2.") for name in names)


def test_float64_becomes_float32(tmp_path: Path) -> None:
    tensors = hf_folders.llama()
    doubles = {name: array.astype(np.float64) for name, array in tensors.items()}
    wanted, _ = converted(hf_folders.write(tmp_path / "singles", tensors))
    found, types = converted(hf_folders.write(tmp_path / "doubles", doubles))
    assert types["blk.0.attn_q.weight"] == "BF16"
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_norm_that_is_not_finite_is_an_error(tmp_path: Path, value: float) -> None:
    tensors = hf_folders.llama()
    tensors["model.layers.1.input_layernorm.weight"][7] = value
    folder = hf_folders.write(tmp_path / "model", tensors)
    error = failed("quantize", folder, tmp_path / "a.gguf")
    for word in (str(folder), "blk.1.attn_norm.weight", "NaN or Inf at index 7"):
        assert word in error
    assert not (tmp_path / "a.gguf").exists()


def _experts(count: int, fused: bool) -> Tensors:
    tensors = {name: array for name, array in hf_folders.llama().items() if ".mlp." not in name}
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(2):
        before = f"model.layers.{layer}.mlp" if fused else f"model.layers.{layer}.block_sparse_moe"
        shapes[f"{before}.gate.weight"] = (count, 256)
        if fused:
            shapes[f"{before}.experts.gate_up_proj"] = (count, 1024, 256)
            shapes[f"{before}.experts.down_proj"] = (count, 256, 512)
            continue
        for expert in range(count):
            for matrix, shape in {"w1": (512, 256), "w2": (256, 512), "w3": (512, 256)}.items():
                shapes[f"{before}.experts.{expert}.{matrix}.weight"] = shape
    return {**tensors, **hf_folders.weights(shapes)}


def _mixtral(folder: Path, tensors: Tensors, **config: Any) -> Path:
    said = {"num_local_experts": 4, "num_experts_per_tok": 2, **config}
    return hf_folders.write(folder, tensors, architectures=["MixtralForCausalLM"], **said)


@pytest.mark.parametrize("count", [3, 5])
def test_fewer_and_more_experts_than_the_config_says(tmp_path: Path, count: int) -> None:
    folder = _mixtral(tmp_path / "model", _experts(count, fused=False))
    refused(folder, "num_local_experts 4", f"[{count}, ", "block_sparse_moe")


def test_experts_of_several_dtypes_are_float32(tmp_path: Path) -> None:
    tensors = _experts(4, fused=False)
    wanted, _ = converted(_mixtral(tmp_path / "one", tensors))
    halves = [name for name in tensors if ".experts.1." in name or ".experts.2.w2" in name]
    mixed = {**tensors, **{name: tensors[name].astype(np.float16) for name in halves}}
    found, _ = converted(_mixtral(tmp_path / "mixed", mixed))
    stack = found["blk.0.ffn_down_exps.weight"]
    whole = wanted["blk.0.ffn_down_exps.weight"]
    np.testing.assert_array_equal(stack[[0, 3]], whole[[0, 3]])
    np.testing.assert_array_equal(stack[[1, 2]], whole[[1, 2]].astype(np.float16))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda array: array[:, :1023], ["gate_up_proj", "[4, 511, 256]", "[4, 512, 256]"]),
        (lambda array: array[0], ["gate_up_proj", "[4, 512, 256]"]),
        (lambda array: array[0, 0], ["gate_up_proj", "[256]"]),
    ],
)
def test_fused_experts_of_another_shape(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], words: list[str]
) -> None:
    tensors = _experts(4, fused=True)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    tensors[name] = np.ascontiguousarray(change(tensors[name]))
    refused(_mixtral(tmp_path / "model", tensors), *words)


def test_fused_experts_of_mixtral_are_taken_apart(tmp_path: Path) -> None:
    tensors = _experts(4, fused=True)
    found, _ = converted(_mixtral(tmp_path / "model", tensors))
    fused = tensors["model.layers.1.mlp.experts.gate_up_proj"]
    np.testing.assert_array_equal(found["blk.1.ffn_gate_exps.weight"], fused[:, :512])
    np.testing.assert_array_equal(found["blk.1.ffn_up_exps.weight"], fused[:, 512:])


def test_floats_name_what_is_left_out(tmp_path: Path) -> None:
    tensors = hf_folders.llama()
    tensors["model.layers.2.mlp.up_proj.weight"] = tensors["model.layers.1.mlp.up_proj.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(16, np.float32)
    folder = hf_folders.write(tmp_path / "model", tensors)
    result = run("dequantize", folder, tmp_path / "m.gguf")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "Left out, which llama.cpp computes itself: model.layers.0.self_attn.rotary_emb.inv_freq",
        "Left out, of layers beyond the 2 that config.json says: model.layers.2.mlp.up_proj.weight",
    ]
