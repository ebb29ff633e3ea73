"""Folders whose config.json has a model_type that its class, or its tensors, contradict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import pytest
from commands import failed, succeeded
from mixture_models import GPT_OSS, gpt_oss
from quantized_models import folder

TARGETS = ["mlx", "compressed-tensors", "bitsandbytes", "gguf"]


def of(path: Path, **said: Any) -> Path:
    """Write the folder of a model of which all tensors can be quantized."""
    layers = {f"model.layers.{i}.mlp.up_proj.weight": np.eye(64, dtype=np.float32) for i in (0, 1)}
    return folder(path, layers, **said)


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_experts_of_gpt_oss_as_llama(tmp_path: Path, to: str, options: list[str]) -> None:
    """They stayed decoded for MLX, where nothing said so."""
    source = hf_folders.write(tmp_path / "model", gpt_oss(coded=True), **GPT_OSS)
    path = source / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "llama"}))
    error = failed("quantize", source, tmp_path / "out.gguf", "--to", to, *options, code=2)
    assert f"'{path}' has model_type 'llama' and architectures ['GptOssForCausalLM']" in error
    assert "Take the config.json that came with the weights, or correct it" in error
    assert not (tmp_path / "out.gguf").exists()


def test_dequantize_says_it_too(tmp_path: Path) -> None:
    source = hf_folders.write(tmp_path / "model", gpt_oss(coded=True), **GPT_OSS)
    path = source / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "llama"}))
    error = failed("dequantize", source, tmp_path / "plain", code=2)
    assert f"'{path}' has model_type 'llama' and architectures" in error
    succeeded("dequantize", source, tmp_path / "plain.safetensors")


@pytest.mark.parametrize(
    ("model_type", "classes"),
    [
        ("qwen3", ["Qwen3MoeForCausalLM"]),
        ("qwen3_moe", ["Qwen3ForCausalLM"]),
        ("llama", "MixtralForCausalLM"),
        ("gpt_neo", ["GPTNeoXForCausalLM"]),
        ("gemma3_text", ["Gemma2ForCausalLM"]),
        ("mistral", ["MixtralForCausalLM", "GptOssForCausalLM"]),
    ],
)
def test_classes_of_other_models(tmp_path: Path, model_type: str, classes: Any) -> None:
    source = of(tmp_path / "model", model_type=model_type, architectures=classes)
    error = failed("quantize", source, tmp_path / "out", "--to", "mlx", code=2)
    assert f"has model_type '{model_type}' and architectures [" in error


@pytest.mark.filterwarnings("ignore:.*does not load")  # by mlx-lm
@pytest.mark.parametrize(
    ("model_type", "classes", "more"),
    [
        ("kimi_k2", ["DeepseekV3ForCausalLM"], {}),
        ("exaone", ["LlamaForCausalLM"], {}),
        ("gpt-sw3", ["GPT2LMHeadModel"], {}),
        ("shieldgemma2", ["Gemma3ForConditionalGeneration"], {}),
        ("mistral", ["LlamaForCausalLM"], {}),
        ("gemma3_text", ["Gemma3ForSequenceClassification"], {}),
        ("llama4_text", ["Llama4ForCausalLM"], {}),
        ("gemma3_text", ["Gemma3TextModel"], {}),
        ("ernie4_5", ["Ernie4_5_ForCausalLM"], {}),
        ("phimoe", ["PhiMoEForCausalLM"], {}),
        ("qwen2", ["Qwen2ForProcessRewardModel"], {}),
        ("qwen3", ["LlamaForCausalLMEagle3"], {}),
        ("qwen2_5_vl", ["Qwen2_5_VLForConditionalGeneration"], {}),
        ("llava", ["LlavaMistralForCausalLM"], {}),
        ("llama", ["GptOssForCausalLM", "LlamaForCausalLM"], {}),
        ("llama", ["MixtralForCausalLM"], {"auto_map": {"AutoModelForCausalLM": "own.Own"}}),
        ("llama", None, {}),
        ("llama", [], {}),
        ("llama", [5], {}),
    ],
)
def test_classes_that_models_have(
    tmp_path: Path, model_type: str, classes: Any, more: dict[str, Any]
) -> None:
    source = of(tmp_path / "model", model_type=model_type, architectures=classes, **more)
    succeeded("quantize", source, tmp_path / "out", "--to", "mlx")


def test_experts_of_a_model_that_has_none(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.experts.0.up_proj.weight"
    tensors = {name: np.eye(64, dtype=np.float32)}
    source = folder(tmp_path / "model", tensors, model_type="qwen3")
    error = failed("quantize", source, tmp_path / "out", "--to", "mlx", code=2)
    assert f"'{source}/config.json' has model_type 'qwen3', and models of that have no" in error
    assert f"such as '{name}'" in error
    succeeded("quantize", source, tmp_path / "out", "--to", "mlx", "--tensors-only")
    other = folder(tmp_path / "other", tensors, model_type="qwen3_moe")
    succeeded("quantize", other, tmp_path / "out-other", "--to", "mlx")
