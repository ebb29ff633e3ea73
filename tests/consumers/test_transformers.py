"""Folders that transformers loads and runs, and compressed-tensors decodes.

These need torch and transformers, so `make test-transformers` runs them in an environment of
their own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationScheme
from safetensors.torch import load_file, save_file

from pyarrowquant import (
    Recipe,
    Rule,
    dequantize_batch_arrow,
    quantize_batch_arrow,
    quantize_stream,
    read_weights,
)
from pyarrowquant.formats import write_compressed_tensors

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# The least cosine between logits and those of the float model; these models are random and tiny.
COSINE = {2: 0.9, 3: 0.96, 4: 0.985, 5: 0.995, 6: 0.998, 8: 0.9999}
TEXT = Recipe.preset("text")
SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
ENCODER = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
EXPERTS = {**SIZES, "num_local_experts": 4, "num_experts_per_tok": 2}
TOKENS = torch.arange(12)[None]
Weights = dict[str, torch.Tensor]


def with_(recipe: Recipe, *rules: Rule) -> Recipe:
    return Recipe([*rules, *recipe.rules])


def saved(
    folder: Path, name: str, dtype: str, sizes: dict[str, Any] = SIZES, **options: Any
) -> Path:
    """Save a random model with transformers; `name` is that of its class."""
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    model = kind(kind.config_class(**sizes, **options)).to(DTYPES[dtype])
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):
                parameter.normal_(std=0.1)
    model.save_pretrained(folder)
    return folder


def write(model: Path, folder: Path, dtype: str, recipe: Recipe = TEXT, **options: Any) -> Weights:
    """Quantize and write; returns what `dequantize_batch_arrow` decodes."""
    usual = {"group_size": 32, "zero_point": "symmetric", "method": "mse", "scale_dtype": dtype}
    options = {**usual, **options}
    results = quantize_batch_arrow(read_weights(model), recipe=recipe, **options)
    write_compressed_tensors(results, folder, model=model)
    return decoded_of(results, dtype)


def decoded_of(results: pa.Table, dtype: str) -> Weights:
    return {
        row["layer_name"]: torch.tensor(row["weights"]).reshape(row["shape"]).to(DTYPES[dtype])
        for row in dequantize_batch_arrow(results).to_pylist()
    }


def load(folder: Path, kind: Any = transformers.AutoModelForCausalLM) -> Any:
    """Load as a user does, and see that no tensor is missing or left over."""
    model, report = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS)[0].float()


def with_decoded(model: Path, folder: Path, decoded: Weights) -> Path:
    """Copy the float model with decoded weights put in."""
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, **decoded}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.ravel(), b.ravel(), dim=0))


def check(model: Path, folder: Path, decoded: Weights, kind: Any, least_cosine: float) -> Any:
    """Logits are those of decoded weights, and near those of the float model."""
    loaded = load(folder, kind)
    found = logits(loaded)
    expected = logits(load(with_decoded(model, folder.with_name("decoded"), decoded), kind))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert cosine(found, logits(load(model, kind))) >= least_cosine
    for name, weights in decoded.items():
        if "experts" not in name:  # which transformers joins to other tensors
            assert torch.equal(loaded.get_parameter(name), weights), name
    return loaded


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {}),
    "tied": ("LlamaForCausalLM", {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2ForCausalLM", {}),
}
CAUSAL = transformers.AutoModelForCausalLM


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize(
    ("bits", "zero_point"),
    [*((bits, "symmetric") for bits in COSINE), (3, "integer"), (4, "integer"), (8, "integer")],
)
def test_models_load_and_run(
    tmp_path: Path, bits: int, zero_point: str, name: str, dtype: str
) -> None:
    kind, options = MODELS[name]
    model = saved(tmp_path / "model", kind, dtype, **options)
    decoded = write(model, tmp_path / "out", dtype, bit_width=bits, zero_point=zero_point)
    assert len(decoded) == 14
    loaded = check(model, tmp_path / "out", decoded, CAUSAL, COSINE[bits])
    generated = loaded.generate(TOKENS, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert generated.shape == (1, TOKENS.shape[1] + 4)


@pytest.mark.parametrize("group_size", [8, 16, 64, -1])
@pytest.mark.parametrize("zero_point", ["symmetric", "integer"])
def test_groups(tmp_path: Path, group_size: int, zero_point: str) -> None:
    model = saved(tmp_path / "model", "LlamaForCausalLM", "float16")
    options = {"group_size": group_size, "zero_point": zero_point}
    decoded = write(model, tmp_path / "out", "float16", **options)
    check(model, tmp_path / "out", decoded, CAUSAL, 0.98)


def test_the_head_may_be_packed(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", "LlamaForCausalLM", "bfloat16")
    recipe = Recipe([Rule(["*embed*", "*norm*"], skip=True)])
    decoded = write(model, tmp_path / "out", "bfloat16", recipe)
    assert "lm_head.weight" in decoded
    check(model, tmp_path / "out", decoded, CAUSAL, 0.98)


MIXED = with_(
    TEXT,
    Rule("*.down_proj.*", bit_width=8, group_size=-1),
    Rule("*.0.self_attn.*", ndim=2, bit_width=3, group_size=16),
    Rule("*.up_proj.*", skip=True),
)


@pytest.mark.parametrize("kind", ["AutoModelForCausalLM", "AutoModel"])
def test_mixed_settings(tmp_path: Path, kind: str) -> None:
    """Also under the names that the model without a head has."""
    model = saved(tmp_path / "model", "Qwen2ForCausalLM", "bfloat16", tie_word_embeddings=True)
    decoded = write(model, tmp_path / "out", "bfloat16", MIXED)
    if kind == "AutoModel":
        shutil.copytree(tmp_path / "out", tmp_path / "same")
        base = load(tmp_path / "same", transformers.AutoModel)
        expected = load(with_decoded(model, tmp_path / "x", decoded), transformers.AutoModel)
        assert torch.equal(logits(base), logits(expected))
    else:
        check(model, tmp_path / "out", decoded, CAUSAL, 0.97)


@pytest.mark.parametrize("zero_point", ["symmetric", "integer"])
def test_ragged_layers_stay_float(tmp_path: Path, zero_point: str) -> None:
    sizes = {**SIZES, "intermediate_size": 120}
    model = saved(tmp_path / "model", "LlamaForCausalLM", "bfloat16", sizes)
    options = {"zero_point": zero_point}
    with pytest.raises(ValueError, match="120 columns are no multiple of group_size 32"):
        write(model, tmp_path / "out", "bfloat16", **options)
    recipe = with_(TEXT, Rule("*.down_proj.*", skip=True))
    decoded = write(model, tmp_path / "out", "bfloat16", recipe, **options)
    assert len(decoded) == 12
    check(model, tmp_path / "out", decoded, CAUSAL, 0.98)


def test_shards_and_streams(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", "LlamaForCausalLM", "bfloat16")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    loaded.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    results = quantize_stream(
        read_weights(tmp_path / "shards", batch_bytes=1),
        recipe=TEXT,
        group_size=32,
        zero_point="symmetric",
        method="mse",
        scale_dtype="bfloat16",
    )
    write_compressed_tensors(results, tmp_path / "out", model=tmp_path / "shards")
    decoded = write(model, tmp_path / "one", "bfloat16")
    check(model, tmp_path / "out", decoded, CAUSAL, 0.98)


@pytest.mark.parametrize("zero_point", ["symmetric", "integer"])
@pytest.mark.parametrize(
    ("name", "kind", "sizes", "options"),
    [
        ("BertForMaskedLM", "AutoModelForMaskedLM", ENCODER, {}),
        ("BertModel", "AutoModel", ENCODER, {}),
        ("RobertaForMaskedLM", "AutoModelForMaskedLM", ENCODER, {}),
        ("ElectraForMaskedLM", "AutoModelForMaskedLM", ENCODER, {"embedding_size": 64}),
        ("ModernBertForMaskedLM", "AutoModelForMaskedLM", ENCODER, {}),
        ("FalconForCausalLM", "AutoModelForCausalLM", ENCODER, {}),
        ("BioGptForCausalLM", "AutoModelForCausalLM", ENCODER, {}),
        ("LlamaModel", "AutoModel", SIZES, {}),
        ("T5EncoderModel", "T5EncoderModel", {}, {"d_model": 64, "d_ff": 128, "d_kv": 16,
            "num_layers": 2, "num_heads": 4, "vocab_size": 96}),
    ],
)  # fmt: skip
def test_encoders_and_others(
    tmp_path: Path, name: str, kind: str, sizes: dict[str, Any], options: dict[str, Any],
    zero_point: str,
) -> None:  # fmt: skip
    model = saved(tmp_path / "model", name, "bfloat16", sizes, **options)
    recipe = with_(TEXT, Rule(["*layer.1.*.query*", "*layers.1.*.q_proj*"], skip=True))
    decoded = write(model, tmp_path / "out", "bfloat16", recipe, zero_point=zero_point)
    check(model, tmp_path / "out", decoded, getattr(transformers, kind), 0.98)


def test_a_model_without_its_head_gets_a_prefix(tmp_path: Path) -> None:
    """Names in the file are "layers.0...", in the loaded model "model.layers.0..."."""
    tied = {"tie_word_embeddings": True}
    model = saved(tmp_path / "model", "LlamaModel", "bfloat16", **tied)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps({**config, "architectures": ["LlamaForCausalLM"]})
    )
    for i, recipe in enumerate((MIXED, with_(TEXT, Rule("*.1.*.q_proj.*", skip=True)))):
        out = tmp_path / str(i) / "out"
        out.parent.mkdir()
        decoded = write(model, out, "bfloat16", recipe)
        expected = load(with_decoded(model, out.with_name("decoded"), decoded))
        assert torch.equal(logits(load(out)), logits(expected))


@pytest.mark.parametrize("zero_point", ["symmetric", "integer"])
def test_models_for_text_and_images(tmp_path: Path, zero_point: str) -> None:
    """Their layers have other names in the files than in the loaded model."""
    torch.manual_seed(0)
    vision = {**ENCODER, "image_size": 28, "patch_size": 14}
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**SIZES),
        vision_config=transformers.CLIPVisionConfig(**vision),
        image_token_index=95,
    )
    model = transformers.LlavaForConditionalGeneration(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "model")
    recipe = with_(TEXT, Rule(["*layers.1.*.q_proj.*", "vision_tower.*", "*position*"], skip=True))
    options = {"zero_point": zero_point}
    decoded = write(tmp_path / "model", tmp_path / "out", "bfloat16", recipe, **options)
    expected = with_decoded(tmp_path / "model", tmp_path / "decoded", decoded)
    kind = transformers.AutoModelForImageTextToText
    assert torch.equal(logits(load(tmp_path / "out", kind)), logits(load(expected, kind)))


@pytest.mark.parametrize("name", ["MixtralForCausalLM", "PhimoeForCausalLM"])
@pytest.mark.parametrize(
    "rule", [None, Rule("*.experts.*", bit_width=8), Rule("*attn*", skip=True)]
)
def test_experts(tmp_path: Path, name: str, rule: Rule | None) -> None:
    model = saved(tmp_path / "model", name, "bfloat16", EXPERTS)
    recipe = TEXT if rule is None else with_(TEXT, rule)
    decoded = write(model, tmp_path / "out", "bfloat16", recipe)
    check(model, tmp_path / "out", decoded, CAUSAL, 0.98)


@pytest.mark.parametrize("zero_point", ["symmetric", "integer"])
@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("bits", list(COSINE))
def test_compressed_tensors_decodes_the_same_values(
    tmp_path: Path, bits: int, dtype: str, zero_point: str
) -> None:
    sizes = {**SIZES, "hidden_size": 72, "intermediate_size": 120, "vocab_size": 8}
    sizes["num_attention_heads"] = sizes["num_key_value_heads"] = 3
    model = saved(tmp_path / "model", "LlamaForCausalLM", dtype, sizes)
    options = {"bit_width": bits, "group_size": 24, "zero_point": zero_point}
    decoded = write(model, tmp_path / "out", dtype, **options)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    scheme = QuantizationScheme.model_validate(config["config_groups"]["group_0"])
    compressor = BaseCompressor.get_value_from_registry(config["format"])
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    for name, weights in decoded.items():
        parts = ("packed", "scale", "shape", "zero_point")
        state = {f"weight_{p}": tensors[f"{name}_{p}"] for p in parts if f"{name}_{p}" in tensors}
        found = compressor.decompress(state, scheme)["weight"]
        assert found.dtype == DTYPES[dtype]
        np.testing.assert_array_equal(found.float().numpy(), weights.float().numpy())


@pytest.mark.parametrize("zero_point", ["symmetric", "integer"])
def test_what_the_command_line_writes(tmp_path: Path, zero_point: str) -> None:
    model = saved(tmp_path / "model", "LlamaForCausalLM", "bfloat16")
    command = [sys.executable, "-m", "pyarrowquant", "quantize", "model", "packed"]
    options = ["--to", "compressed-tensors", "--group-size", "32", "--zero-point", zero_point]
    subprocess.run([*command, *options], cwd=tmp_path, check=True)
    decoded = write(model, tmp_path / "written", "bfloat16", zero_point=zero_point)
    written = load_file(tmp_path / "written" / "model.safetensors")
    packed = load_file(tmp_path / "packed" / "model.safetensors")
    assert packed.keys() == written.keys()
    assert all(torch.equal(packed[name], written[name]) for name in written)
    check(model, tmp_path / "packed", decoded, transformers.AutoModelForCausalLM, COSINE[4])
