"""A folder that lacks tensors of its model is no model for an engine."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import hf_folders
import ml_dtypes
import numpy as np
import pytest
import quantized_models
from commands import failed, succeeded
from mixture_models import DEEPSEEK, deepseek

import pyarrowquant

FORMATS = ["mlx", "compressed-tensors", "bitsandbytes"]
LAYER = "model.layers.3."
Q_PROJ = f"{LAYER}self_attn.q_proj.weight"
NORM = f"{LAYER}input_layernorm.weight"
E4M3 = ml_dtypes.float8_e4m3fn
Tensors = dict[str, np.ndarray]
# As models have experts that llama.cpp does not know.
UNKNOWN = {"architectures": ["OtherForCausalLM"], "model_type": "other"}


def in_fp8(tensors: Tensors) -> Tensors:
    coded = {}
    for name, array in tensors.items():
        coded[name] = array
        if ".layers." in name and array.ndim == 2:
            coded[name] = array.astype(E4M3)
            coded[f"{name}_scale"] = np.ones((), np.float32)
    return coded


def as_it_is(tensors: Tensors) -> Tensors:
    return tensors


def without(tensors: Tensors, start: str) -> Tensors:
    return {name: array for name, array in tensors.items() if not name.startswith(start)}


def written(path: Path, tensors: Tensors, **config: Any) -> Path:
    said = {**hf_folders.CONFIG, "model_type": "llama", "num_hidden_layers": 4, **config}
    return quantized_models.folder(path, tensors, **said)


def planned(path: Path, to: str) -> list[str]:
    """Plan a conversion, and return its warnings of tensors that are not there."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert pyarrowquant.plan(path, path.parent / "out", to=to).layers
    texts = [str(warning.message) for warning in caught]
    return [text for text in texts if " has no " in text]


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("coded", [as_it_is, in_fp8])
@pytest.mark.parametrize(
    ("start", "named"),
    [
        (LAYER, NORM),
        (Q_PROJ, Q_PROJ),
        (NORM, NORM),
        ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj.weight"),
        ("model.norm", "model.norm.weight"),
        ("model.embed_tokens", "model.embed_tokens.weight"),
        ("lm_head", "lm_head.weight"),
    ],
)
def test_a_tensor_that_is_missing_is_named(
    tmp_path: Path, to: str, coded: Callable[[Tensors], Tensors], start: str, named: str
) -> None:
    tensors = coded(hf_folders.llama(4))
    assert not planned(written(tmp_path / "whole", tensors), to)
    place = written(tmp_path / "model", without(tensors, start))
    with pytest.raises(ValueError, match="Download the folder anew") as caught:
        pyarrowquant.plan(place, tmp_path / "out", to=to)
    assert f"'{named}'" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("to", FORMATS)
def test_what_pyarrowquant_has_written_is_looked_at_too(tmp_path: Path, to: str) -> None:
    whole = hf_folders.write(tmp_path / "whole", hf_folders.llama(2), model_type="llama")
    first = tmp_path / "first"
    pyarrowquant.convert(whole, first, to=to)
    assert not planned(first, "mlx")
    said = json.loads((first / "config.json").read_text())
    (first / "config.json").write_text(json.dumps({**said, "num_hidden_layers": 3}))
    with pytest.raises(ValueError, match=r"no tensor 'model.layers.2.input_layernorm.weight'"):
        pyarrowquant.plan(first, tmp_path / "out", to="mlx")


def test_commands_say_it_in_one_line(tmp_path: Path) -> None:
    place = written(tmp_path / "model", without(in_fp8(hf_folders.llama(4)), Q_PROJ))
    for command in (
        ["quantize", place, tmp_path / "out", "--to", "mlx"],
        ["quantize", place, tmp_path / "out", "--to", "compressed-tensors", "--dry-run"],
        ["dequantize", place, tmp_path / "out"],
    ):
        error = failed(*command)
        assert f"'{place}' has no tensor '{Q_PROJ}', which is part of the model" in error
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["parquet", "onnx"])
def test_formats_of_tensors_take_parts(tmp_path: Path, to: str) -> None:
    place = written(tmp_path / "model", without(hf_folders.llama(4), LAYER))
    assert pyarrowquant.plan(place, tmp_path / f"out.{to}", tensors_only=True).layers


def test_bits_and_groups_that_make_other_shapes(tmp_path: Path) -> None:
    """Half the columns in groups half as long have as many scales."""
    whole = hf_folders.write(tmp_path / "whole", hf_folders.llama(2), model_type="llama")
    first = tmp_path / "first"
    said: Any = {"to": "mlx", "bit_width": 4, "group_size": 64}
    recipe = pyarrowquant.Recipe([pyarrowquant.Rule("*embed*", skip=True)])
    pyarrowquant.convert(whole, first, **said, recipe=recipe)
    said = json.loads((first / "config.json").read_text())
    for key in ("quantization", "quantization_config"):
        said[key] |= {"bits": 8, "group_size": 32}
    (first / "config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match="has shape") as caught:
        pyarrowquant.plan(first, tmp_path / "out", to="mlx")
    told = "'lm_head.weight' has shape [320, 128], and by its config.json (vocab_size 320, "
    assert f"{told}hidden_size 256) it is [320, 256]" in str(caught.value)


def experts(numbers: Iterable[int]) -> Tensors:
    """Two layers of a mixture, of which the last has these experts."""
    tensors = hf_folders.llama(2)
    for layer, found in ((0, range(4)), (1, numbers)):
        block = f"model.layers.{layer}.mlp"
        dense = [f"{block}.{matrix}_proj.weight" for matrix in ("gate", "up", "down")]
        shapes = [tensors.pop(name).shape for name in dense]
        for number in found:
            for matrix, shape in zip(("gate", "up", "down"), shapes, strict=True):
                name = f"{block}.experts.{number}.{matrix}_proj.weight"
                tensors[name] = np.ones(shape, np.float32)
        tensors[f"{block}.gate.weight"] = np.ones((4, 256), np.float32)
        for norm in ("q_norm", "k_norm"):
            tensors[f"model.layers.{layer}.self_attn.{norm}.weight"] = np.ones(32, np.float32)
    return tensors


MOE: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_hidden_layers": 2,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 512,
    "head_dim": 32,
    "norm_topk_prob": True,
}


def test_an_expert_that_is_missing(tmp_path: Path) -> None:
    assert not planned(written(tmp_path / "whole", experts(range(4)), **MOE), "mlx")
    place = written(tmp_path / "model", experts([0, 1, 3]), **MOE)
    with pytest.raises(ValueError, match=r"no tensor 'model.layers.1.mlp.experts.2.gate_proj"):
        pyarrowquant.plan(place, tmp_path / "out", to="compressed-tensors")


@pytest.mark.parametrize("key", ["num_experts", "num_local_experts"])
@pytest.mark.parametrize("count", [2, 3])
def test_a_router_of_more_experts(tmp_path: Path, key: str, count: int) -> None:
    said = {name: value for name, value in MOE.items() if name != "num_experts"}
    sizes = {"intermediate_size": 512, "vocab_size": 320}
    whole = written(tmp_path / "whole", experts(range(4)), **said, **sizes, **{key: 4})
    assert not planned(whole, "mlx")
    place = written(tmp_path / "model", experts(range(4)), **said, **sizes, **{key: count})
    with pytest.raises(ValueError, match=rf"has shape \[4, 256\], and by .* \[{count}, 256\]"):
        pyarrowquant.plan(place, tmp_path / "out", to="compressed-tensors")


@pytest.mark.parametrize("key", [{"mlp_only_layers": [0]}, {"decoder_sparse_step": 2}])
def test_mixtures_may_have_layers_without_experts(tmp_path: Path, key: dict[str, Any]) -> None:
    tensors = without(experts(range(4)), "model.layers.0.mlp")
    dense = {name: array for name, array in hf_folders.llama(1).items() if ".mlp." in name}
    assert not planned(written(tmp_path / "model", {**tensors, **dense}, **{**MOE, **key}), "mlx")


def test_experts_that_mlx_has_joined_are_all_there(tmp_path: Path) -> None:
    whole = written(tmp_path / "whole", experts(range(4)), **MOE)
    pyarrowquant.convert(whole, tmp_path / "first", to="mlx")
    assert not planned(tmp_path / "first", "mlx")


def test_layers_of_an_unknown_model_are_counted(tmp_path: Path) -> None:
    place = written(tmp_path / "model", hf_folders.llama(3), **UNKNOWN)
    with pytest.raises(ValueError, match="says num_hidden_layers 4") as caught:
        pyarrowquant.plan(place, tmp_path / "out", to="mlx")
    assert "has no tensors of 'model.layers.3'" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"num_hidden_layers": 2},
        {"num_hidden_layers": None},
        {"num_hidden_layers": 9, "is_encoder_decoder": True},
        {"num_hidden_layers": 9, "block_configs": [{}]},
    ],
)
def test_layers_that_config_does_not_count(tmp_path: Path, config: dict[str, Any]) -> None:
    place = written(tmp_path / "model", hf_folders.llama(3), **UNKNOWN, **config)
    assert not planned(place, "mlx")


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("model.layers.1.", "has no tensors of model.layers.1, and has such of the next layer"),
        (
            "model.layers.1.self_attn.q_proj",
            "has no model.layers.1.self_attn.q_proj.weight, which its other layers have",
        ),
    ],
)
def test_what_an_unknown_model_seems_to_lack_is_told(tmp_path: Path, start: str, told: str) -> None:
    config = {**UNKNOWN, "num_hidden_layers": None}
    place = written(tmp_path / "model", without(hf_folders.llama(4), start), **config)
    (text,) = planned(place, "mlx")
    assert text == f"'{place}' {told}. If the model is not so by nature, download it anew"


def dense_first() -> Tensors:
    """As models whose first layers have no experts."""
    tensors = hf_folders.llama(4)
    for layer in (1, 2, 3):
        for matrix in ("gate", "up", "down"):
            array = tensors.pop(f"model.layers.{layer}.mlp.{matrix}_proj.weight")
            tensors[f"model.layers.{layer}.mlp.experts.0.{matrix}_proj.weight"] = array
    return tensors


def shared_keys() -> Tensors:
    """As models whose last layers attend to keys of others."""
    tensors = without(hf_folders.llama(4), "model.layers.2.self_attn.k_proj")
    return without(tensors, "model.layers.3.self_attn.k_proj")


def no_first_norm() -> Tensors:
    """As ModernBERT."""
    return without(hf_folders.llama(4), "model.layers.0.input_layernorm")


def two_kinds() -> Tensors:
    """As models of which some layers attend, and some do something else."""
    tensors = hf_folders.llama(4)
    for name in list(tensors):
        if name.startswith("model.layers.2.self_attn"):
            tensors[name.replace("self_attn", "linear_attn")] = tensors.pop(name)
    return tensors


@pytest.mark.parametrize("kind", [dense_first, shared_keys, no_first_norm, two_kinds])
def test_models_whose_layers_differ_by_nature(tmp_path: Path, kind: Callable[[], Tensors]) -> None:
    assert not planned(written(tmp_path / "model", kind(), **UNKNOWN), "mlx")


@pytest.mark.parametrize("to", ["mlx", "compressed-tensors", "bitsandbytes"])
def test_an_expert_of_another_shape(tmp_path: Path, to: str) -> None:
    tensors = deepseek()
    name = "model.layers.1.mlp.experts.2.down_proj.weight"
    tensors[name] = tensors[name][:, :64].copy()
    said = {**DEEPSEEK, "model_type": "deepseek_v3", "dtype": "float32"}
    source = hf_folders.write(tmp_path / "model", tensors, **said)
    error = failed("quantize", source, tmp_path / "out", "--to", to, "--dry-run")
    assert f"'{name}' has shape [256, 64], and other experts" in error


def test_experts_that_fit_no_blocks_name_what_works(tmp_path: Path) -> None:
    said = {**DEEPSEEK, "model_type": "deepseek_v3", "dtype": "float32"}  # of 96 rows
    source = hf_folders.write(tmp_path / "model", deepseek(), **said)
    command = ["quantize", source, tmp_path / "out", "--to", "compressed-tensors", "--recipe"]
    assert "fp8 by row (FP8_DYNAMIC)" in failed(*command, "FP8_BLOCK")
    succeeded(*command, "FP8_DYNAMIC")
