"""Mixtures of experts that vLLM loads on the CPU, as `test_vllm` has it of other models."""

from __future__ import annotations

import warnings
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

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "num_experts_per_tok": 4,  # all: of nearly equal ones, rounding would choose
    "norm_topk_prob": True,
}
EXPERTS = {"num_experts": 4, "moe_intermediate_size": 256}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3_moe": ("Qwen3MoeForCausalLM", {**EXPERTS, "head_dim": 64}),
    "qwen2_moe": ("Qwen2MoeForCausalLM", {**EXPERTS, "shared_expert_intermediate_size": 256}),
    "mixtral": ("MixtralForCausalLM", {"num_local_experts": 4, "intermediate_size": 256}),
}
OTHER_ATTENTION = {
    "extends": "W4A16",
    "rules": [{"match": "*self_attn*", "bit_width": 8, "group_size": 32}],
}
# Weights of experts are exact; of layers beside them, W8A8 and FP8_DYNAMIC are vLLM's own.
LOADED: dict[str, tuple[dict[str, Any], float]] = {
    "W4A16": ({"recipe": "W4A16"}, SAME),
    "W8A16": ({"recipe": "W8A16"}, SAME),
    "W8A8": ({"recipe": "W8A8"}, ROUNDED),
    "FP8_DYNAMIC": ({"recipe": "FP8_DYNAMIC"}, ROUNDED),
    "FP8_BLOCK": ({"recipe": "FP8_BLOCK"}, SAME),
    "MXFP8A16": ({"recipe": "MXFP8A16"}, SAME),
    "MXFP4A16": ({"recipe": "MXFP4A16"}, SAME),
    "NVFP4A16": ({"recipe": "NVFP4A16"}, SAME),
    "attention of other bits": ({"recipe": OTHER_ATTENTION}, SAME),
}
CASES = [("qwen3_moe", name) for name in LOADED] + [
    ("mixtral", "NVFP4A16"),
    ("qwen2_moe", "W4A16"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    models: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in models:
            name, sizes = MODELS[kind]
            code = getattr(transformers, name)
            model = code(code.config_class(**{**SIZES, **sizes}))
            models[kind] = saved(tmp_path_factory.mktemp(kind), model)
        return models[kind]

    return of


def converted(model: Path, folder: Path, options: dict[str, Any]) -> tuple[Path, Path]:
    """The folder for vLLM, and the one of the weights that it decodes to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "transformers", UserWarning)  # which is not run here
        done = convert(model, folder / "out", to="compressed-tensors", **options)
    assert not [each.name for each in done.unquantized if ".experts." in each.name]
    return folder / "out", with_decoded(model, folder / "out", folder / "decoded")


@pytest.mark.parametrize("kind", list(MODELS))
def test_the_float_models(made: Any, kind: str) -> None:
    assert distance(of_vllm(made(kind)), of_transformers(made(kind))) < SAME


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_what_is_loaded(made: Any, tmp_path: Path, kind: str, name: str) -> None:
    """vLLM finds the tensors of each expert and joins them; the kernels decode them."""
    options, bound = LOADED[name]
    out, decoded = converted(made(kind), tmp_path, options)
    check(of_vllm(out, "decoding"), of_transformers(decoded), bound)


if "AuthenticAMD" in PROCESSOR and "avx512" in PROCESSOR:  # what vLLM takes zentorch for

    @pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral"])
    @pytest.mark.parametrize("recipe", ["W4A16", "W8A8"])
    def test_kernels_of_zentorch(made: Any, tmp_path: Path, kind: str, recipe: str) -> None:
        """Activations are rounded to 8 bits by both."""
        out, decoded = converted(made(kind), tmp_path, {"recipe": recipe})
        check(of_vllm(out, "zen"), of_transformers(decoded), ROUNDED)
