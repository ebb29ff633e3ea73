"""Folders of NF4 that transformers loads and runs with bitsandbytes, on the CPU.

These need what `test_transformers` needs, and bitsandbytes.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import bitsandbytes
import pyarrow as pa
import pytest
import torch
import transformers
from bitsandbytes.functional import create_dynamic_map, dequantize_4bit
from consumers.test_transformers import (
    DTYPES,
    EXPERTS,
    SIZES,
    TEXT,
    Weights,
    cosine,
    load,
    logits,
    saved,
    with_decoded,
)
from safetensors.torch import load_file

from pyarrowquant import (
    convert,
    dequantize_batch_arrow,
    quantize_batch_arrow,
    read_weights,
)

ENCODER = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
T5 = {"vocab_size": 96, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
MODELS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "llama": ("LlamaForCausalLM", SIZES, transformers.AutoModelForCausalLM),
    "tied": (
        "LlamaForCausalLM",
        {**SIZES, "tie_word_embeddings": True},
        transformers.AutoModelForCausalLM,
    ),
    "qwen2": ("Qwen2ForCausalLM", SIZES, transformers.AutoModelForCausalLM),
    "phi3": ("Phi3ForCausalLM", SIZES, transformers.AutoModelForCausalLM),
    "opt": (
        "OPTForCausalLM",
        {**ENCODER, "ffn_dim": 128, "word_embed_proj_dim": 64},
        transformers.AutoModelForCausalLM,
    ),
    "bert": ("BertForMaskedLM", ENCODER, transformers.AutoModelForMaskedLM),
    "mixtral": ("MixtralForCausalLM", EXPERTS, transformers.AutoModelForCausalLM),
    "biogpt": ("BioGptForCausalLM", ENCODER, transformers.AutoModelForCausalLM),
    "phimoe": ("PhimoeForCausalLM", EXPERTS, transformers.AutoModelForCausalLM),
    "t5": ("T5EncoderModel", T5, transformers.T5EncoderModel),
}


def decoded_by_bitsandbytes(model: Any) -> Weights:
    return {
        f"{name}.weight": decoded(module.weight)
        for name, module in model.named_modules()
        if isinstance(module, bitsandbytes.nn.Linear4bit)
    }


def decoded(weight: Any) -> torch.Tensor:
    """Decode as one row: with AVX-512 it takes scales of others where rows are no whole blocks."""
    state = copy.copy(weight.quant_state)
    shape, state.shape = state.shape, torch.Size([state.shape.numel()])
    return dequantize_4bit(weight.data, state).reshape(shape)


def multiplied_by_torch(model: Any) -> Any:
    """Have no layer multiply in bfloat16, as bitsandbytes does where the processor can."""
    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    return model


def read_again(folder: Path, dtype: str) -> Weights:
    """What our own reader decodes, rounded to the dtype of the model."""
    table = pa.Table.from_batches(read_weights(folder))
    return {
        row["layer_name"]: torch.frombuffer(bytearray(row["weights"]), dtype=torch.float32)
        .reshape(row["shape"])
        .to(DTYPES[dtype])
        for row in table.to_pylist()
        if row["dtype"] == "F32"
    }


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("name", list(MODELS))
def test_models(tmp_path: Path, name: str, dtype: str, double: bool) -> None:
    kind, sizes, loader = MODELS[name]
    model, out = saved(tmp_path / "model", kind, dtype, sizes), tmp_path / "out"
    done = convert(model, out, to="bitsandbytes", double=double)
    loaded = load(out, loader)
    assert next(loaded.parameters()).device.type == "cpu"
    found, again = decoded_by_bitsandbytes(loaded), read_again(out, dtype)
    assert len(found) == done.layers > 3
    for each, weights in found.items():
        assert torch.equal(weights, again[each]), each
    if not double:
        results = quantize_batch_arrow(
            read_weights(model), recipe=TEXT, method="mse", encoding="nf4"
        )
        for row in dequantize_batch_arrow(results).to_pylist():
            if row["layer_name"] in found:
                ours = torch.tensor(row["weights"]).reshape(row["shape"]).to(DTYPES[dtype])
                assert torch.equal(found[row["layer_name"]], ours), row["layer_name"]
    expected = logits(load(with_decoded(model, tmp_path / "decoded", found), loader))
    # bitsandbytes may multiply otherwise than torch does, to the precision of the dtype
    near = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    products = logits(multiplied_by_torch(load(out, loader)))
    torch.testing.assert_close(products, expected, rtol=near, atol=near)
    assert cosine(logits(loaded), expected) >= 0.999
    assert cosine(logits(loaded), logits(load(model, loader))) >= 0.98


@pytest.mark.parametrize("double", [False, True])
def test_the_same_tensors_and_config_as_transformers_writes(tmp_path: Path, double: bool) -> None:
    model = saved(tmp_path / "model", "LlamaForCausalLM", "bfloat16")
    convert(model, tmp_path / "out", to="bitsandbytes", double=double)
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=double,
    )
    theirs = transformers.AutoModelForCausalLM.from_pretrained(model, quantization_config=config)
    theirs.save_pretrained(tmp_path / "theirs")
    ours, wanted = (load_file(tmp_path / each / "model.safetensors") for each in ("out", "theirs"))
    assert ours.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert ours[name].dtype == tensor.dtype, name
        if "quant_state" in name:
            mine, said = (json.loads(bytes(each[name].numpy())) for each in (ours, wanted))
            assert mine | {"nested_offset": 0} == said | {"nested_offset": 0}
        else:
            assert ours[name].shape == tensor.shape, name
        if name.endswith("quant_map"):
            assert torch.equal(ours[name], tensor), name
    if double:
        name = "model.layers.0.mlp.up_proj.weight.nested_quant_map"
        assert torch.equal(ours[name], create_dynamic_map())
    mine, said = (
        json.loads((tmp_path / each / "config.json").read_text())["quantization_config"]
        for each in ("out", "theirs")
    )
    for key, value in mine.items():
        assert key == "llm_int8_skip_modules" or said[key] == value, key
    # less error than rounding, also with scales that are codes
    original = load_file(model / "model.safetensors")
    mine, rounded = (read_again(tmp_path / each, "float32") for each in ("out", "theirs"))
    for name, weights in rounded.items():
        assert (mine[name] - original[name]).norm() < 0.95 * (weights - original[name]).norm()


def test_their_folders_are_read(tmp_path: Path) -> None:
    """FP4, blocks of other sizes, rows that are no whole blocks, and codes stored as bfloat16."""
    sizes = {**SIZES, "hidden_size": 80, "intermediate_size": 72}
    model = saved(tmp_path / "model", "LlamaForCausalLM", "bfloat16", sizes)
    for number, options in enumerate(
        (
            {"bnb_4bit_quant_type": "fp4"},
            {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
            {"bnb_4bit_quant_type": "nf4", "bnb_4bit_quant_storage": "bfloat16"},
        )
    ):
        config = transformers.BitsAndBytesConfig(load_in_4bit=True, **options)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            model, quantization_config=config
        )
        theirs.save_pretrained(tmp_path / str(number))
        again = read_again(tmp_path / str(number), "bfloat16")
        found = decoded_by_bitsandbytes(theirs)
        assert again.keys() == found.keys()
        for name, weights in found.items():
            assert torch.equal(again[name], weights.to(torch.bfloat16)), name


def test_layers_that_a_recipe_leaves_out(tmp_path: Path) -> None:
    model, out = saved(tmp_path / "model", "LlamaForCausalLM", "bfloat16"), tmp_path / "out"
    recipe = {"extends": "text", "rules": [{"match": ["*layers.1.mlp*", "*v_proj*"], "skip": True}]}
    convert(model, out, to="bitsandbytes", recipe=recipe)
    loaded = load(out)
    found = decoded_by_bitsandbytes(loaded)
    assert len(found) == 14 - 5
    expected = logits(load(with_decoded(model, tmp_path / "decoded", found)))
    torch.testing.assert_close(logits(loaded), expected, rtol=2e-2, atol=2e-2)
    generated = loaded.generate(torch.arange(4)[None], max_new_tokens=4, min_new_tokens=4)
    assert generated.shape == (1, 8)
