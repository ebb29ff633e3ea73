"""Folders that llama.cpp could not load: found out before any work, and said of file and key."""

from __future__ import annotations

import json
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
