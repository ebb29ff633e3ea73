"""Folders that llama.cpp could not load: found out before any work, and said of file and key."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import pytest
from commands import failed, succeeded

from pyarrowquant import plan


@pytest.mark.parametrize(
    ("config", "without", "words"),
    [
        (
            {"architectures": ["NewForCausalLM"]},
            [],
            ["NewForCausalLM", "LlamaForCausalLM", "safetensors"],
        ),
        ({"architectures": []}, [], ["architectures", "LlamaForCausalLM"]),
        ({}, ["num_attention_heads"], ["num_attention_heads"]),
        ({}, ["num_hidden_layers"], ["num_hidden_layers"]),
        ({"num_hidden_layers": 3}, [], ["layer 2"]),
        ({"num_hidden_layers": "2"}, [], ["num_hidden_layers", "'2'"]),
        ({"hidden_size": -1}, [], ["hidden_size", "-1"]),
        ({"num_attention_heads": 7}, [], ["num_attention_heads 7", "num_key_value_heads 2"]),
        ({"rms_norm_eps": "tiny"}, [], ["rms_norm_eps", "tiny"]),
        ({"rms_norm_eps": -1e-6}, [], ["rms_norm_eps", "0 or more"]),
        ({"rms_norm_eps": math.inf}, [], ["rms_norm_eps", "inf"]),
        ({"architectures": ["GraniteForCausalLM"], "logits_scaling": math.inf}, [], ["logits_"]),
        ({"rope_scaling": [1]}, [], ["rope_scaling"]),
        ({"rope_scaling": {"rope_type": "spiral"}}, [], ["spiral", "yarn"]),
        ({"rope_scaling": {"rope_type": "yarn"}}, [], ["factor"]),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, [], ["low_freq_factor"]),
        ({"architectures": "NewForCausalLM"}, [], ["NewForCausalLM"]),
        ({"num_hidden_layers": True}, [], ["num_hidden_layers"]),
        ({"max_position_embeddings": 2**40}, [], ["max_position_embeddings"]),
    ],
)
def test_configs(
    tmp_path: Path, config: dict[str, Any], without: list[str], words: list[str]
) -> None:
    folder = hf_folders.write(tmp_path / "model", without=without, **config)
    _refused(folder, "config.json", *words)


@pytest.mark.parametrize("part", [-1.0, 0, 1.5, 7, 2.0**31, math.inf, 0.001, 0.29])
def test_parts_of_heads_that_are_turned(tmp_path: Path, part: float) -> None:
    """Of 32 columns, and of 128, 0.001 is none, and 0.29 an odd number."""
    for model_class in ("Phi3ForCausalLM", "Glm4ForCausalLM"):
        folder = hf_folders.write(
            tmp_path / model_class / "model",
            architectures=[model_class],
            partial_rotary_factor=part,
        )
        _refused(folder, "config.json", "partial_rotary_factor")


_OF_EXPERTS = {"architectures": ["Qwen2MoeForCausalLM"], "num_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize("said", [1, "yes", [], 0])
def test_flags_are_true_or_false(tmp_path: Path, said: Any) -> None:
    """transformers takes 1 for true and [] for false; what is meant is not guessed."""
    folder = hf_folders.write(tmp_path / "model", **_OF_EXPERTS, norm_topk_prob=said)
    _refused(folder, "config.json", "norm_topk_prob", "true or false")


def test_keys_are_called_as_the_class_has_them(tmp_path: Path) -> None:
    shapes = {f"mlp.experts.{i}.{x}_proj": (256, 256) for i in range(4) for x in ("gate", "up")}
    shapes |= {f"mlp.experts.{i}.down_proj": (256, 256) for i in range(4)} | {"mlp.gate": (4, 256)}
    shapes |= {f"mlp.shared_expert.{x}_proj": (256, 256) for x in ("gate", "up", "down")}
    shapes |= {"mlp.shared_expert_gate": (1, 256)}
    tensors = {name: array for name, array in hf_folders.llama().items() if ".mlp." not in name}
    for layer in range(2):
        before = f"model.layers.{layer}"
        tensors |= hf_folders.weights({f"{before}.{k}.weight": v for k, v in shapes.items()})
        biases = {"q": (256,), "k": (64,), "v": (64,)}
        tensors |= hf_folders.weights(
            {f"{before}.self_attn.{k}_proj.bias": v for k, v in biases.items()}
        )
    config = {**_OF_EXPERTS, "moe_intermediate_size": 256, "shared_expert_intermediate_size": 256}
    folder = hf_folders.write(tmp_path / "null", tensors, **{**config, "num_experts": None})
    _refused(folder, "config.json' lacks num_experts,")
    folder = hf_folders.write(tmp_path / "usual" / "m", tensors, without=["num_experts"], **config)
    _refused(folder, "config.json (num_experts 60,")


def test_a_way_of_splitting_that_is_none(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model")
    out = tmp_path / "out.gguf"
    error = failed("quantize", folder, out, "--pre-tokenizer", "none", code=2)
    assert "--pre-tokenizer none is none that llama.cpp knows" in error
    pieces = hf_folders.write(tmp_path / "pieces", tokenizer=hf_folders.pieces())
    error = failed("quantize", pieces, out, "--pre-tokenizer", "gpt-2", code=2)
    assert "--pre-tokenizer gpt-2 is for BPE of bytes" in error


def test_floats_of_a_folder_without_a_class(tmp_path: Path) -> None:
    """The message is of what is missing, as that of quantize is."""
    folder = hf_folders.write(tmp_path / "model")
    said = json.loads((folder / "config.json").read_text())
    del said["architectures"]
    (folder / "config.json").write_text(json.dumps(said))
    error = failed("dequantize", folder, tmp_path / "out.gguf")
    assert "config.json' names no class of models (architectures)" in error
    (folder / "config.json").unlink()
    error = failed("dequantize", folder, tmp_path / "out.gguf")
    assert "config.json' is missing" in error
    assert "--to safetensors" in error


def _refused(folder: Path, *words: str) -> None:
    """A dry run says it too, in one line, and nothing is written."""
    for options in ([], ["--dry-run"]):
        error = failed("quantize", folder, folder.parent / "out.gguf", *options)
        assert error.count("Error: ") == 1
        assert error.count("\n") == 1
        for word in words:
            assert word in error
    assert {path.name for path in folder.parent.iterdir()} == {folder.name}


def _changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        path = folder / "tokenizer.json"
        said = json.loads(path.read_text())
        change(said)
        path.write_text(json.dumps(said))

    return apply


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), ["tokenizer.model"]),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), ["not valid JSON"]),
        (lambda folder: (folder / "tokenizer.json").write_text("[]"), ["must be a JSON object"]),
        (lambda folder: (folder / "tokenizer_config.json").write_text("[]"), ["tokenizer"]),
        (
            lambda folder: (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}'),
            ["tokenizer_config.json", "eos_token", "</s>"],
        ),
        (
            lambda folder: (folder / "tokenizer_config.json").write_text(
                '{"chat_template": ["x"]}'
            ),
            ["templates"],
        ),
        (_changed(lambda said: said.pop("model")), ["model"]),
        (_changed(lambda said: said["model"].update(type="Lattice")), ["Lattice", "WordPiece"]),
        (_changed(lambda said: said["model"].update(vocab=[])), ["model.vocab"]),
        (_changed(lambda said: said["model"]["vocab"].update(x=-1)), ["model.vocab", "-1"]),
        (_changed(lambda said: said["model"]["vocab"].update(zzz=0)), ["number 0", "zzz"]),
        (_changed(lambda said: said["model"]["vocab"].update(zzz=10**6)), ["zzz", "320 rows"]),
        (_changed(lambda said: said["model"].update(merges=["a"])), ["model.merges"]),
        (_changed(lambda said: said["model"].update(merges=[["a", 1]])), ["model.merges"]),
        (_changed(lambda said: said.update(added_tokens=[{"id": "1"}])), ["added_tokens"]),
        (_changed(lambda said: said.update(added_tokens=7)), ["added_tokens"]),
        (_changed(lambda said: said.update(normalizer={"type": "Lowercase"})), ["Lowercase"]),
        (_changed(lambda said: said.update(pre_tokenizer={"type": "Nothing"})), ["tokenizers"]),
        (_changed(lambda said: said.update(pre_tokenizer=None)), ["pre_tokenizer", "ByteLevel"]),
    ],
)
def test_tokenizers(tmp_path: Path, change: Callable[[Path], object], words: list[str]) -> None:
    folder = hf_folders.write(tmp_path / "model")
    change(folder)
    _refused(folder, str(folder), *words)


def test_a_tensor_of_another_model(tmp_path: Path) -> None:
    tensors = {**hf_folders.llama(), "model.layers.0.extra.weight": np.ones((4, 4), np.float32)}
    folder = hf_folders.write(tmp_path / "model", tensors)
    _refused(folder, "model.layers.0.extra.weight", "with --tensors-only")
    file, out = folder / "model.safetensors", tmp_path / "out.gguf"
    assert "Tensors alone" in succeeded("quantize", file, out, "--tensors-only")


def test_the_way_out_for_an_unknown_class(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model", architectures=["NewForCausalLM"])
    _refused(folder, "NewForCausalLM", "with --tensors-only")
    file, out = folder / "model.safetensors", tmp_path / "out.gguf"
    assert "Tensors alone" in succeeded("quantize", file, out, "--tensors-only")


def test_no_embeddings(tmp_path: Path) -> None:
    tensors = hf_folders.llama()
    del tensors["model.embed_tokens.weight"]
    _refused(hf_folders.write(tmp_path / "model", tensors), "embeddings")


def test_two_tensors_of_one_place(tmp_path: Path) -> None:
    tensors = hf_folders.llama()
    tensors["language_model.model.norm.weight"] = tensors["model.norm.weight"]
    _refused(hf_folders.write(tmp_path / "model", tensors), "output_norm.weight", "both")


def test_experts_that_llama_cpp_weighs_otherwise(tmp_path: Path) -> None:
    folder = hf_folders.write(
        tmp_path / "model",
        architectures=["Qwen3MoeForCausalLM"],
        norm_topk_prob=False,
        num_experts=4,
        num_experts_per_tok=2,
    )
    _refused(folder, "norm_topk_prob")


def test_a_pooling_module_without_its_config(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model")
    module = {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    (folder / "modules.json").write_text(json.dumps([module]))
    _refused(folder, "1_Pooling/config.json' is missing", "modules.json")


def test_pooling_that_llama_cpp_has_not(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model")
    kinds = {"1_Pooling": "Pooling", "2_Dense": "Dense", "3_Normalize": "Normalize"}
    modules = [
        {"path": path, "type": f"sentence_transformers.models.{kind}"}
        for path, kind in kinds.items()
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    with pytest.warns(UserWarning, match=r"modules\.json': llama\.cpp does without .*\.Dense,"):
        plan(folder, tmp_path / "out.gguf")
    pooling.write_text(
        json.dumps({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True})
    )
    (folder / "modules.json").write_text(json.dumps(modules[:1]))
    _refused(folder, "1_Pooling/config.json", "2 ways of pooling")
