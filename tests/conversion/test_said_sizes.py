"""A config.json that says sizes that no model has, or more or fewer layers than there are."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import pytest
from commands import failed

import pyarrowquant

LLAMA = {"model_type": "llama"}
OTHER = {"architectures": ["OtherForCausalLM"], "model_type": "other"}
FORMATS = ["mlx", "compressed-tensors", "bitsandbytes"]


def warned(place: Path, to: str = "compressed-tensors") -> list[str]:
    """Plan a conversion, and return its warnings of layers."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert pyarrowquant.plan(place, place.parent / "out", to=to).layers
    return [text for warning in caught if "_hidden_layers" in (text := str(warning.message))]


@pytest.mark.parametrize("said", [LLAMA, OTHER])
@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("num_attention_heads", 0, "0"),
        ("num_attention_heads", -8, "-8"),
        ("num_attention_heads", "8", '"8"'),
        ("num_attention_heads", 0.5, "0.5"),
        ("n_head", 0, "0"),
        ("num_hidden_layers", -1, "-1"),
        ("num_hidden_layers", "2", '"2"'),
        ("num_hidden_layers", True, "true"),
        ("hidden_size", 0, "0"),
        ("d_model", "256", '"256"'),
        ("num_hidden_layers", 10**30, f"1{'0' * 30}"),
        ("num_attention_heads", 1e18, "1e+18"),
        ("num_key_value_heads", 0, "0"),
        ("n_heads", "8" * 99, f'"{"8" * 39}...'),
    ],
)
def test_sizes_that_no_model_has(
    tmp_path: Path, said: dict[str, Any], key: str, value: Any, shown: str
) -> None:
    place = hf_folders.write(tmp_path / "model", hf_folders.llama(), **{**said, key: value})
    bounds = "0 to 9999" if key == "num_hidden_layers" else "1 to 2147483647"
    for command in (
        *(["quantize", place, tmp_path / "out", "--to", to] for to in FORMATS),
        ["quantize", place, tmp_path / "out", "--to", "mlx", "--dry-run"],
    ):
        error = failed(*command)
        assert f"'{place}/config.json' says {key} {shown}, which must be a whole number" in error
        assert f"of {bounds}. Take the config.json that came with the weights" in error
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("said", [LLAMA, OTHER])
def test_columns_that_no_tensor_has(tmp_path: Path, said: dict[str, Any]) -> None:
    place = hf_folders.write(tmp_path / "model", hf_folders.llama(), **said, hidden_size=258)
    error = failed("quantize", place, tmp_path / "out", "--to", "bitsandbytes")
    told = "says hidden_size 258, and no tensor has so many rows or columns: '"
    assert f"'{place}/config.json' {told}" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("key", ["head_dim", "intermediate_size", "vocab_size"])
def test_sizes_that_may_be_0(tmp_path: Path, key: str) -> None:
    said = {**OTHER, key: -1}
    wrong = hf_folders.write(tmp_path / "wrong", hf_folders.llama(), **said)
    with pytest.raises(ValueError, match=f"says {key} -1, which must be a whole number of 0 to"):
        pyarrowquant.plan(wrong, tmp_path / "out", to="mlx")
    assert not warned(hf_folders.write(tmp_path / "m", hf_folders.llama(), **{**OTHER, key: 0}))


def test_sizes_of_a_folder_that_is_decoded(tmp_path: Path) -> None:
    whole = hf_folders.write(tmp_path / "whole", hf_folders.llama(), **OTHER)
    coded, file = tmp_path / "coded", tmp_path / "coded" / "config.json"
    pyarrowquant.convert(whole, coded, to="compressed-tensors")
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_attention_heads": 0}))
    error = failed("dequantize", coded, tmp_path / "out")
    assert f"'{file}' says num_attention_heads 0, which must be a whole number" in error
    assert not (tmp_path / "out").exists()


def test_sizes_of_the_text_model(tmp_path: Path) -> None:
    text = {**hf_folders.CONFIG, **OTHER}
    said = {**OTHER, "text_config": text, "hidden_size": 1024}
    right = hf_folders.write(tmp_path / "right", hf_folders.llama(), **said)
    assert not warned(right)
    said["text_config"] = {**text, "num_attention_heads": 0}
    wrong = hf_folders.write(tmp_path / "wrong", hf_folders.llama(), **said)
    with pytest.raises(ValueError, match=r"says text_config\.num_attention_heads 0, which must"):
        pyarrowquant.plan(wrong, tmp_path / "out", to="mlx")


@pytest.mark.parametrize(
    "more",
    [
        {"num_hidden_layers": 2.0},
        {"num_attention_heads": [8, 8]},
        {"num_attention_heads": None},
        {"n_head": None, "hidden_size": None},
    ],
)
def test_sizes_that_models_may_have(tmp_path: Path, more: dict[str, Any]) -> None:
    place = hf_folders.write(tmp_path / "model", hf_folders.llama(), **OTHER, **more)
    assert not warned(place)


def test_a_model_without_attention_has_no_heads(tmp_path: Path) -> None:
    tensors = {name.replace("self_attn", "mixer"): a for name, a in hf_folders.llama().items()}
    said = {**OTHER, "num_attention_heads": 0}
    assert not warned(hf_folders.write(tmp_path / "model", tensors, **said))


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("said", [LLAMA, OTHER])
@pytest.mark.parametrize("count", [0, 1])
def test_layers_beyond_those_that_are_said(
    tmp_path: Path, to: str, said: dict[str, Any], count: int
) -> None:
    if said is LLAMA and count == 0:
        said = {**said, "tie_word_embeddings": False}
    place = hf_folders.write(
        tmp_path / "model", hf_folders.llama(3), **said, num_hidden_layers=count
    )
    (text,) = [each for each in warned(place, to) if "engines leave" in each]
    first = "model.layers.0, " * (count == 0) + "model.layers.1, model.layers.2"
    assert text.startswith(f"'{place}' has tensors of {first}, and its config.json says num_hid")
    assert f"num_hidden_layers {count}: engines leave the others out, or refuse the model" in text


@pytest.mark.parametrize("key", ["num_nextn_predict_layers", "mtp_num_hidden_layers"])
def test_layers_that_predict_more_tokens(tmp_path: Path, key: str) -> None:
    said = {**OTHER, "num_hidden_layers": 2}
    assert not warned(hf_folders.write(tmp_path / "m", hf_folders.llama(3), **said, **{key: 1}))
    (text,) = warned(hf_folders.write(tmp_path / "more", hf_folders.llama(4), **said, **{key: 1}))
    assert "has tensors of model.layers.3, and" in text


@pytest.mark.parametrize("before", ["bert.encoder.layer", "vit.encoder.layer", "transformer.block"])
def test_layers_of_encoders(tmp_path: Path, before: str) -> None:
    shapes = {f"{before}.{i}.dense.weight": (256, 256) for i in range(3)}
    tensors = {**hf_folders.weights(shapes), "embeddings.weight": np.ones((9, 256), np.float32)}
    said: dict[str, Any] = {"architectures": ["OtherModel"], "model_type": "other"}
    assert not warned(hf_folders.write(tmp_path / "m", tensors, **said, num_hidden_layers=3))
    (text,) = warned(hf_folders.write(tmp_path / "few", tensors, **said, num_hidden_layers=2))
    assert f"has tensors of {before}.2, and" in text
    place = hf_folders.write(tmp_path / "many", tensors, **said, num_hidden_layers=4)
    with pytest.raises(ValueError, match=f"has no tensors of '{before}.3', and its config.json"):
        pyarrowquant.plan(place, tmp_path / "out", to="compressed-tensors")


def test_layers_of_the_towers_of_others_are_not_counted(tmp_path: Path) -> None:
    shapes = {f"vision_tower.encoder.layers.{i}.dense.weight": (256, 256) for i in range(5)}
    tensors = {**hf_folders.llama(2), **hf_folders.weights(shapes)}
    assert not warned(hf_folders.write(tmp_path / "m", tensors, **OTHER, num_hidden_layers=2))


def test_layers_behind_an_encoder_are_not_counted(tmp_path: Path) -> None:
    """As ESMFold has blocks beside the layers that config.json counts."""
    shapes = {f"esm.encoder.layer.{i}.dense.weight": (256, 256) for i in range(2)}
    shapes |= {f"trunk.blocks.{i}.dense.weight": (256, 256) for i in range(3)}
    said: dict[str, Any] = {"architectures": ["OtherModel"], "model_type": "other"}
    tensors = hf_folders.weights(shapes)
    assert not warned(hf_folders.write(tmp_path / "m", tensors, **said, num_hidden_layers=2))
