"""What config.json says that llama.cpp computes otherwise is refused; of windows it warns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import hf_folders
import pytest
from commands import failed, run

from pyarrowquant.llama_cpp.architectures.qwen import Qwen3Moe
from pyarrowquant.llama_cpp.class_defaults import CLASS_DEFAULTS
from pyarrowquant.llama_cpp.hyperparameters import Hyperparameters
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.rope import describe_rope, describe_rope_of_windows, turned_columns
from pyarrowquant.llama_cpp.windows import describe_windows

LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FACTORS = [1.0] * 16
LONG = {"rope_type": "longrope", "short_factor": FACTORS, "long_factor": FACTORS}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32}
LINEAR_WINDOWS = {
    "full_attention": {"rope_type": "default"},
    "sliding_attention": {"rope_type": "linear", "factor": 2.0},
}
FULL, SLIDING = "full_attention", "sliding_attention"
WITHOUT_FACTORS = ("SmolLM3", "Qwen2", "Qwen3", "Qwen2Moe", "Gemma", "Gemma2", "Olmo2", "Glm4")
WITHOUT_FACTORS_CASES = [
    (family, {**GEMMA, "rope_scaling": rope}, ["rope_type", rope["rope_type"], "yarn"])
    for family in WITHOUT_FACTORS
    for rope in (LLAMA_3, LONG)
]


def refused(tmp_path: Path, family: str, config: dict[str, Any], *words: str) -> None:
    """A dry run says it too, in one line, and nothing is written."""
    kind = "Model" if family.endswith(("Bert", "Roberta")) else "ForCausalLM"
    folder = hf_folders.write(tmp_path / "model", architectures=[f"{family}{kind}"], **config)
    for options in ([], ["--dry-run"]):
        error = failed("quantize", folder, tmp_path / "out.gguf", *options)
        assert error.count("Error: ") == error.count("\n") == 1
        for word in (str(folder / "config.json"), *words):
            assert word in error
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


@pytest.mark.parametrize(
    ("family", "config", "words"),
    [
        *WITHOUT_FACTORS_CASES,
        ("Phi3", {"rope_scaling": {"rope_type": ["yarn"]}}, ["rope_type", "['yarn']"]),
        ("Phi3", {"rope_scaling": LLAMA_3}, ["rope_type", "llama3", "longrope"]),
        ("Llama", {"rope_scaling": {**LONG, "long_factor": [1.0]}}, ["long_factor", "16 numbers"]),
        ("Gemma3", {**GEMMA, "rope_scaling": YARN}, ["rope_type", "yarn", "linear"]),
        ("Gemma3", {**GEMMA, "rope_parameters": LINEAR_WINDOWS}, [SLIDING, "linear"]),
        ("Gemma3", {**GEMMA, "rope_parameters": YARN}, ["rope_parameters", SLIDING]),
        ("Llama", {"rope_parameters": LINEAR_WINDOWS}, ["rope_parameters", SLIDING]),
        ("Llama", {"rope_parameters": {FULL: 7}}, ["full_attention", "7"]),
        ("Llama", {"rope_scaling": {**YARN, "beta_fast": 64}}, ["beta_fast", "64", "32"]),
        ("Qwen3", {"rope_scaling": {**YARN, "beta_slow": 2.0}}, ["beta_slow", "2.0", "with 1"]),
        ("Llama", {"rope_scaling": {**YARN, "truncate": False}}, ["truncate", "False"]),
        ("Llama", {"rope_scaling": {**YARN, "factor": 0}}, ["factor", "above 0"]),
        ("Llama", {"rope_scaling": {**LLAMA_3, "low_freq_factor": 0}}, ["low_freq_factor"]),
        ("Llama", {"rope_theta": -1.0}, ["rope_theta", "-1.0"]),
    ],
)
def test_rotary_embeddings(
    tmp_path: Path, family: str, config: dict[str, Any], words: list[str]
) -> None:
    refused(tmp_path, family, config, *words)


SIZES = {"hidden_size": 256, "num_attention_heads": 8, "max_position_embeddings": 4096}
OLD_LONG = {"type": "su", "short_factor": FACTORS, "long_factor": FACTORS, "factor": 16.0}
NESTED = {FULL: {"rope_type": "linear", "factor": 8.0}, SLIDING: {"rope_theta": 500.0}}


# 0.1 ln 4 is 0.13862944; the square root of 1 + ln 16 / ln 256 is 1.2247449
YARN_KEYS = {"type": "yarn", "factor": 4.0, "original_context_length": 32, "freq_base": 1e4}
LONG_KEYS = {"type": "longrope", "original_context_length": 256, "freq_base": 1e4}
LINEAR_KEYS = {"type": "linear", "factor": 8.0, "freq_base": 1e6}


@pytest.mark.parametrize(
    ("family", "architecture", "config", "keys"),
    [
        ("Llama", "llama", {}, {"freq_base": 1e4}),
        ("SmolLM3", "smollm3", {}, {"freq_base": 2e6}),
        ("Mixtral", "llama", {"rope_parameters": {"rope_theta": 7}}, {"freq_base": 7.0}),
        ("NomicBert", "nomic-bert", {}, {"freq_base": 1000.0}),
        ("NomicBert", "nomic-bert", {"rotary_emb_base": 5}, {"freq_base": 5.0}),
        ("Bert", "bert", {}, {}),
        (
            "Llama",
            "llama",
            {"rope_scaling": {**YARN, "attention_factor": 1.7}},
            {**YARN_KEYS, "attn_factor": pytest.approx(1.7 / 1.13862944)},
        ),
        (
            "Qwen2",
            "qwen2",
            {"rope_scaling": {**YARN, "mscale": 2, "mscale_all_dim": 0.5}},
            {**YARN_KEYS, "attn_factor": pytest.approx(1.27725887 / 1.06931472 / 1.13862944)},
        ),
        (
            "Qwen3",
            "qwen3",
            {"rope_scaling": {"type": "yarn", "factor": 4.0}},
            {**YARN_KEYS, "original_context_length": 4096},
        ),
        (
            "Phi3",
            "phi3",
            {"rope_scaling": OLD_LONG, "original_max_position_embeddings": 256},
            {**LONG_KEYS, "attn_factor": pytest.approx(1.2247449)},
        ),
        ("Gemma3", "gemma3", {"rope_parameters": NESTED}, {**LINEAR_KEYS, "freq_base_swa": 500.0}),
        (
            "Gemma3",
            "gemma3",
            {"rope_scaling": NESTED[FULL], "rope_local_base_freq": 5.0},
            {**LINEAR_KEYS, "freq_base_swa": 5.0},
        ),
    ],
)
def test_keys_of_rotary_embeddings(
    family: str, architecture: str, config: dict[str, Any], keys: dict[str, Any]
) -> None:
    said = Hyperparameters({**SIZES, **config}, "config.json").completed(CLASS_DEFAULTS[family])
    metadata = Metadata(architecture)
    describe_rope(said, metadata)
    if family == "Gemma3":
        describe_rope_of_windows(said, metadata)
    found = {
        key.split(".")[-1]: metadata.value(key)
        for key, _ in metadata.encoded_keys()
        if ".rope." in key
    }
    assert found == keys


@pytest.mark.parametrize(
    ("family", "config", "columns"),
    [
        ("Glm4", {}, 64),
        ("Glm4", {"head_dim": 32, "rope_parameters": {"partial_rotary_factor": 0.25}}, 8),
        ("Phi3", {}, 32),
        ("Phi3", {"partial_rotary_factor": 0.75}, 24),
    ],
)
def test_columns_that_are_turned(family: str, config: dict[str, Any], columns: int) -> None:
    said = Hyperparameters({**SIZES, **config}, "config.json").completed(CLASS_DEFAULTS[family])
    assert turned_columns(said) == columns


@pytest.mark.parametrize(
    ("family", "config", "words"),
    [
        ("Llama", {"hidden_act": "gelu"}, ["hidden_act", "gelu", "silu"]),
        ("Mixtral", {"hidden_act": "relu"}, ["hidden_act", "relu", "silu"]),
        ("Gemma", {**GEMMA, "hidden_act": "relu"}, ["hidden_act", "relu", "gelu"]),
        ("Gemma2", {**GEMMA, "hidden_activation": "silu"}, ["hidden_activation", "silu"]),
        ("Gemma3", {**GEMMA, "hidden_activation": "quick_gelu"}, ["hidden_activation"]),
        ("Gemma", {**GEMMA, "use_bidirectional_attention": True}, ["use_bidirectional_attention"]),
        ("Gemma3", {**GEMMA, "use_bidirectional_attention": True}, ["use_bidirectional_attention"]),
        ("Gemma3", {**GEMMA, "attn_logit_softcapping": 50.0}, ["attn_logit_softcapping", "50.0"]),
        ("Gemma3", {**GEMMA, "final_logit_softcapping": 30.0}, ["final_logit_softcapping", "30.0"]),
        ("Gemma2", {**GEMMA, "attn_logit_softcapping": None}, ["attn_logit_softcapping", "None"]),
        ("Gemma2", {**GEMMA, "final_logit_softcapping": None}, ["final_logit_softcapping", "None"]),
        ("Gemma2", {"head_dim": 32}, ["query_pre_attn_scalar", "256", "32"]),
        ("Gemma3", {**GEMMA, "query_pre_attn_scalar": 24}, ["query_pre_attn_scalar", "24", "32"]),
        (
            "Gemma3",
            {"head_dim": 64, "query_pre_attn_scalar": 64, "num_hidden_layers": 62},
            ["query_pre_attn_scalar", "64", "32"],
        ),
        ("Bert", {"hidden_act": "relu"}, ["hidden_act", "relu", "gelu"]),
        ("Bert", {"position_embedding_type": "relative_key"}, ["position_embedding_type"]),
        ("XLMRoberta", {"is_decoder": True}, ["is_decoder", "True"]),
        ("Roberta", {"add_cross_attention": True}, ["add_cross_attention"]),
        ("NomicBert", {"activation_function": "gelu"}, ["activation_function", "gelu", "swiglu"]),
        ("NomicBert", {"rotary_emb_fraction": 0.5}, ["rotary_emb_fraction", "0.5"]),
        ("Granite", {"attention_multiplier": 0.0}, ["attention_multiplier", "0.0"]),
        ("Granite", {"residual_multiplier": 0}, ["residual_multiplier", "0"]),
        ("Qwen3Moe", {"mlp_only_layers": [0]}, ["mlp_only_layers", "[0]"]),
    ],
)
def test_values(tmp_path: Path, family: str, config: dict[str, Any], words: list[str]) -> None:
    refused(tmp_path, family, config, *words)


@pytest.mark.parametrize(
    ("family", "config", "words"),
    [
        ("SmolLM3", {"no_rope_layers": [1, 0]}, ["no_rope_layers", "layer 1"]),
        ("SmolLM3", {"no_rope_layers": [1]}, ["no_rope_layers", "2 layers"]),
        ("SmolLM3", {"no_rope_layer_interval": 2}, ["no_rope_layer_interval", "layer 1"]),
        ("Gemma2", {**GEMMA, "layer_types": [FULL, SLIDING]}, ["layer_types", "layer 0"]),
        ("Gemma3", {**GEMMA, "layer_types": [SLIDING, FULL]}, ["layer_types", "layer 1"]),
        ("Gemma3", {**GEMMA, "sliding_window_pattern": 2}, ["sliding_window_pattern", "layer 1"]),
        ("Gemma3", {**GEMMA, "layer_types": [SLIDING, "chunked_attention"]}, ["chunked_attention"]),
        ("Gemma3", {**GEMMA, "layer_types": [SLIDING]}, ["layer_types", "2 layers"]),
    ],
)
def test_patterns(tmp_path: Path, family: str, config: dict[str, Any], words: list[str]) -> None:
    refused(tmp_path, family, config, *words)


@pytest.mark.parametrize(
    ("family", "config", "layers"),
    [
        ("Mistral", {}, 32),
        ("Mistral", {"use_sliding_window": False}, 32),
        ("Mistral", {"sliding_window": None}, 0),
        ("Mistral", {"sliding_window": 32768}, 0),
        ("Mixtral", {}, 0),
        ("Mixtral", {"sliding_window": 4096}, 32),
        ("Phi3", {"sliding_window": 2047}, 32),
        ("Phi3", {}, 0),
        ("Qwen2", {"use_sliding_window": True}, 4),
        ("Qwen2", {"use_sliding_window": True, "max_window_layers": 32}, 0),
        ("Qwen2", {"use_sliding_window": None}, 0),
        ("Qwen2", {}, 0),
        ("Qwen3", {"use_sliding_window": True, "layer_types": [FULL, SLIDING] * 16}, 16),
        ("Qwen2Moe", {"use_sliding_window": True}, 14),
        ("Qwen3Moe", {"use_sliding_window": True}, 32),
        ("SmolLM3", {"use_sliding_window": True, "sliding_window": 512}, 8),
        ("SmolLM3", {"sliding_window": 512}, 0),
        ("Llama", {"sliding_window": 512}, 0),
    ],
)
def test_windows_that_llama_cpp_lacks(
    recwarn: pytest.WarningsRecorder, family: str, config: dict[str, Any], layers: int
) -> None:
    said = {"num_hidden_layers": 32, "max_position_embeddings": 32768, **config}
    usual = CLASS_DEFAULTS[family]
    metadata = Metadata("llama")
    describe_windows(Hyperparameters(said, "config.json").completed(usual), family, metadata)
    texts = [str(warning.message) for warning in recwarn]
    assert len(texts) == (layers > 0)
    assert all(f"{layers} of 32 layers attend to a sliding_window" in text for text in texts)


@pytest.mark.parametrize("key", ["rope_theta", "rms_norm_eps"])
@pytest.mark.parametrize("number", [1e39, 1e300, 10**400])
def test_numbers_beyond_float32_are_refused(tmp_path: Path, key: str, number: float) -> None:
    refused(tmp_path, "Llama", {key: number}, key, "at most 3.403e+38")


def test_a_window_is_said_once(tmp_path: Path) -> None:
    folder = hf_folders.write(
        tmp_path / "model", architectures=["MistralForCausalLM"], sliding_window=64
    )
    for options in (["--dry-run"], []):
        result = run("quantize", folder, tmp_path / "a.gguf", *options)
        assert result.exit_code == 0
        assert result.stderr.count("sliding_window of 64 tokens") == 1


@pytest.mark.parametrize("name", ["", "./", "/", "owner/", "-", " "])
def test_a_model_without_a_name_has_that_of_its_folder(tmp_path: Path, name: str) -> None:
    folder = hf_folders.write(tmp_path / "my-model", _name_or_path=name)
    assert run("quantize", folder, tmp_path / "a.gguf").exit_code == 0
    header = gguf.GGUFReader(tmp_path / "a.gguf")
    assert header.fields["general.name"].contents() == "my-model"


def test_attention_to_later_tokens_is_refused(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model", is_causal=False)
    assert "config.json': is_causal is False" in failed("quantize", folder, tmp_path / "a.gguf")


def test_no_columns_of_shared_experts_are_none_of_them() -> None:
    said = Hyperparameters(
        {
            **hf_folders.CONFIG,
            "norm_topk_prob": True,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 0,
        },
        "config.json",
    )
    metadata = Metadata("qwen3moe")
    Qwen3Moe(said, "Qwen3MoeForCausalLM").describe(metadata)
    assert metadata.value("qwen3moe.expert_shared_feed_forward_length") is None
