"""Schemes of floats and of 8-bit activations: folders that transformers loads and runs.

What compressed-tensors calls a scheme is taken from its own presets, and its own decompress decodes
the tensors. These need what `test_transformers` needs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import transformers
from commands import succeeded
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.quantization import QuantizationScheme, preset_name_to_scheme
from consumers.test_transformers import (
    CAUSAL,
    DTYPES,
    SIZES,
    TEXT,
    Weights,
    cosine,
    decoded_of,
    load,
    logits,
    saved,
    with_decoded,
)
from safetensors.torch import load_file

from pyarrowquant import convert, quantize_batch_arrow, read_weights
from pyarrowquant.formats import write_compressed_tensors

LARGE = {**SIZES, "hidden_size": 256, "intermediate_size": 384}
# Settings of each scheme, and the least cosine of logits to those of the float model.
SCHEMES: dict[str, tuple[dict[str, Any], float]] = {
    "FP8_DYNAMIC": ({"encoding": "fp8"}, 0.995),
    "FP8_BLOCK": ({"encoding": "fp8", "group_size": "block"}, 0.995),
    "MXFP8A16": ({"encoding": "mxfp8"}, 0.998),
    "MXFP4A16": ({"encoding": "mxfp4"}, 0.97),
    "NVFP4A16": ({"encoding": "nvfp4"}, 0.98),
    "W4A16": ({"bit_width": 4, "zero_point": "symmetric"}, 0.98),
    "W4A16_ASYM": ({"bit_width": 4, "zero_point": "integer"}, 0.98),
    "W8A16": ({"bit_width": 8, "zero_point": "symmetric"}, 0.998),
    "W8A8": ({"bit_width": 8, "group_size": -1, "zero_point": "symmetric"}, 0.995),
}


def written(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    return config, load_file(folder / "model.safetensors")


def decompressed(folder: Path, names: Weights) -> Weights:
    """What compressed-tensors itself decodes, of folders with one scheme."""
    config, tensors = written(folder)
    scheme = QuantizationScheme.model_validate(config["config_groups"]["group_0"])
    compressor = BaseCompressor.get_value_from_registry(config["format"])
    parts = compressor.compression_param_names(scheme)
    found = {}
    for name in names:
        module = name.removesuffix("weight")
        state = {part: tensors.pop(module + part) for part in parts}
        found[name] = compressor.decompress(state, scheme)["weight"]
    assert not [name for name in tensors if "scale" in name or "packed" in name]
    return found


def read_again(folder: Path, dtype: torch.dtype) -> Weights:
    """What our own reader decodes."""
    table = pa.Table.from_batches(read_weights(folder))
    return {
        row["layer_name"]: torch.frombuffer(
            bytearray(row["weights"]), dtype=torch.float32 if row["dtype"] == "F32" else dtype
        )
        .reshape(row["shape"])
        .to(dtype)
        for row in table.to_pylist()
    }


def assert_equal(found: Weights, wanted: Weights, dtype: torch.dtype) -> None:
    for name, weights in wanted.items():
        assert torch.equal(found[name].to(dtype), weights), name


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("name", list(SCHEMES))
def test_schemes(tmp_path: Path, name: str, dtype: str) -> None:
    options, least = SCHEMES[name]
    model, out = saved(tmp_path / "model", "LlamaForCausalLM", dtype, LARGE), tmp_path / "out"
    # what a table has that was quantized by settings
    scales = {} if name.startswith(("MX", "NV")) else {"scale_dtype": dtype}
    results = quantize_batch_arrow(
        read_weights(model), recipe=TEXT, method="mse", **options, **scales
    )
    decoded = decoded_of(results, dtype)
    if name == "NVFP4A16":  # of which conversions choose a scale for layers together
        write_compressed_tensors(results, out, model=model)
    else:
        convert(model, out, to="compressed-tensors", recipe=name.lower())
    config, _ = written(out)
    (group,) = config["config_groups"].values()
    scheme = preset_name_to_scheme(name, ["Linear"])
    assert QuantizationScheme.model_validate(group) == scheme
    assert config["format"] == infer_module_format(torch.nn.Linear, scheme)
    kind = DTYPES[dtype]
    assert_equal(decompressed(out, decoded), decoded, kind)
    assert_equal(read_again(out, kind), decoded, kind)
    dequantize = transformers.CompressedTensorsConfig(dequantize=True)
    loaded = CAUSAL.from_pretrained(out, quantization_config=dequantize)
    for each, weights in decoded.items():
        assert torch.equal(loaded.get_parameter(each), weights), each
    expected = logits(load(with_decoded(model, tmp_path / "decoded", decoded)))
    torch.testing.assert_close(logits(loaded), expected, rtol=0, atol=1e-5)
    succeeded("dequantize", out, tmp_path / "plain")
    assert torch.equal(logits(load(tmp_path / "plain")), expected)
    # as it is, with activations that transformers rounds where the scheme has it so
    assert cosine(logits(load(out)), logits(load(model))) >= least


def test_one_scale_a_layer(tmp_path: Path) -> None:
    """The weights of the scheme FP8, whose activations have scales from data there."""
    model = saved(tmp_path / "model", "LlamaForCausalLM", "bfloat16", LARGE)
    options: dict[str, Any] = {"encoding": "fp8", "group_size": "tensor"}
    convert(model, tmp_path / "out", to="compressed-tensors", **options)
    results = quantize_batch_arrow(
        read_weights(model), recipe=TEXT, method="mse", scale_dtype="bfloat16", **options
    )
    decoded = decoded_of(results, "bfloat16")
    (group,) = written(tmp_path / "out")[0]["config_groups"].values()
    scheme = QuantizationScheme.model_validate(group)
    assert scheme.weights == preset_name_to_scheme("FP8", ["Linear"]).weights
    assert_equal(decompressed(tmp_path / "out", decoded), decoded, torch.bfloat16)
    assert_equal(read_again(tmp_path / "out", torch.bfloat16), decoded, torch.bfloat16)
    assert cosine(logits(load(tmp_path / "out")), logits(load(model))) >= 0.995


@pytest.mark.parametrize(
    ("extends", "rule", "least"),
    [
        ("text", {"match": "*self_attn*", "encoding": "fp8"}, 0.998),
        ("NVFP4A16", {"match": "*down_proj*", "encoding": "mxfp8"}, 0.99999),
        ("W8A8", {"match": "*mlp*", "bit_width": 4, "group_size": 64}, 0.998),
    ],
)
def test_mixed_formats(tmp_path: Path, extends: str, rule: dict[str, Any], least: float) -> None:
    recipe = {"extends": extends, "rules": [rule]}
    model = saved(tmp_path / "model", "LlamaForCausalLM", "bfloat16", LARGE)
    convert(model, tmp_path / "out", to="compressed-tensors", recipe=recipe)
    config, _ = written(tmp_path / "out")
    assert config["format"] == "mixed-precision"
    assert len(config["config_groups"]) == 2
    again = read_again(tmp_path / "out", torch.bfloat16)
    decoded = {name: again[name] for name in again if name.endswith("proj.weight")}
    expected = logits(load(with_decoded(model, tmp_path / "decoded", decoded)))
    # transformers decodes all layers by one scheme where it is told to dequantize
    assert cosine(logits(load(tmp_path / "out")), expected) >= least


@pytest.mark.parametrize("recipe", ["FP8_DYNAMIC", "NVFP4A16", "MXFP4A16", "W8A8"])
def test_encoders(tmp_path: Path, recipe: str) -> None:
    """Their layers are decoded while they are loaded."""
    sizes = {key: value for key, value in LARGE.items() if key != "num_key_value_heads"}
    model = saved(tmp_path / "model", "BertForMaskedLM", "bfloat16", sizes)
    convert(model, tmp_path / "out", to="compressed-tensors", recipe=recipe)
    again = read_again(tmp_path / "out", torch.bfloat16)
    coded = [name for name in written(tmp_path / "out")[1] if name.endswith("weight_scale")]
    decoded = {each: again[each] for name in coded if (each := name.removesuffix("_scale"))}
    assert len(decoded) == 12
    kind = transformers.AutoModelForMaskedLM
    expected = logits(load(with_decoded(model, tmp_path / "decoded", decoded), kind))
    torch.testing.assert_close(logits(load(tmp_path / "out", kind)), expected, rtol=0, atol=1e-5)
