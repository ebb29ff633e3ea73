"""Experts of mixtures that transformers joins while it loads a folder of packed layers.

These need torch and transformers, so `make test-transformers` runs them in an environment of
their own.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import hf_folders
import pytest
import torch
import transformers
from mixture_models import GPT_OSS, gpt_oss
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from pyarrowquant import Recipe, Rule, convert, read_weights

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 96,
    "shared_expert_intermediate_size": 64,
    "norm_topk_prob": True,
    "pad_token_id": 0,
}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "layer_types": ["linear_attention", "full_attention"],
}
LATENT = {
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 32,
    "q_lora_rank": 64,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "n_group": 1,
    "topk_group": 1,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2_moe": ("Qwen2MoeForCausalLM", {}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {"head_dim": 16}),
    "qwen3_5_moe": ("Qwen3_5MoeForCausalLM", {"head_dim": 16, **LINEAR}),
    "deepseek_v3": ("DeepseekV3ForCausalLM", LATENT),
}
TOKENS = torch.arange(12)[None]
Model = tuple[Any, Path, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A random model, its folder of single experts, and one of the stacks that the code has."""
    models: dict[str, Model] = {}

    def of(kind: str) -> Model:
        if kind not in models:
            folder = tmp_path_factory.mktemp(kind)
            name, sizes = MODELS[kind]
            torch.manual_seed(0)
            code = getattr(transformers, name)
            model = code(code.config_class(**{**SIZES, **sizes})).eval()
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=0.1)
            model.save_pretrained(folder / "single")
            shutil.copytree(folder / "single", folder / "stacked")
            tensors = {name: t.contiguous().clone() for name, t in model.state_dict().items()}
            assert any(name.endswith("experts.gate_up_proj") for name in tensors)
            save_file(tensors, folder / "stacked" / "model.safetensors", {"format": "pt"})
            models[kind] = model, folder / "single", folder / "stacked"
        return models[kind]

    return of


def load(code: Any, folder: Path) -> Any:
    model, report = code.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS).logits.float()


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.ravel(), b.ravel(), dim=0))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"bit_width": 4}, 0.9),
        ({"bit_width": 8}, 0.995),
        ({"bits_per_weight": 5.2}, 0.85),
        ({"bits_per_weight": 6.6, "quality_floor": {"relative_error": 0.2}}, 0.95),
    ],
)
def test_experts(
    made: Any, tmp_path: Path, kind: str, options: dict[str, Any], least: float
) -> None:
    """Stacks give the same files as single experts, and these the logits of decoded weights."""
    model, single, stacked = made(kind)
    for source, out in ((single, tmp_path / "single"), (stacked, tmp_path / "stacked")):
        done = convert(source, out, to="compressed-tensors", group_size=32, **options)
        assert done.bits_per_weight <= options.get("bits_per_weight", 9)
        assert not [each.name for each in done.unquantized if ".experts." in each.name]
    written = load_file(tmp_path / "single" / "model.safetensors")
    others = load_file(tmp_path / "stacked" / "model.safetensors")
    assert written.keys() == others.keys()
    assert all(torch.equal(tensor, others[name]) for name, tensor in written.items())
    shutil.copytree(single, tmp_path / "decoded")
    tensors = load_file(single / "model.safetensors")
    weights = read_weights(tmp_path / "single").read_all().to_pylist()
    for row in weights:
        values = torch.frombuffer(bytearray(row["weights"]), dtype=torch.float32)
        tensors[row["layer_name"]] = values.reshape(row["shape"])
    save_file(tensors, tmp_path / "decoded" / "model.safetensors", {"format": "pt"})
    found = logits(load(type(model), tmp_path / "stacked"))
    expected = logits(load(type(model), tmp_path / "decoded"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert cosine(found, logits(model)) >= least


def test_stacks_may_stay(made: Any, tmp_path: Path) -> None:
    recipe = Recipe([Rule("*.experts.*", skip=True), *Recipe.preset("text").rules])
    for kind in MODELS:
        model, _, stacked = made(kind)
        said: dict[str, Any] = {"bit_width": 8, "group_size": 32, "recipe": recipe}
        convert(stacked, tmp_path / kind, to="compressed-tensors", **said)
        found = logits(load(type(model), tmp_path / kind))
        assert cosine(found, logits(model)) >= 0.995


def test_stacks_of_mxfp4(tmp_path: Path) -> None:
    """Experts of gpt-oss, which stay float, are those that transformers makes of the codes."""
    tensors = gpt_oss(coded=True)
    said = {"model_type": "gpt_oss", "dtype": "float32", **GPT_OSS}
    source = hf_folders.write(tmp_path / "model", tensors, **said)
    convert(source, tmp_path / "out", to="compressed-tensors", bit_width=8, group_size=32)
    decoded = {name: torch.from_numpy(array) for name, array in tensors.items()}
    for row in read_weights(tmp_path / "out").read_all().to_pylist():
        if ".self_attn." in row["layer_name"]:
            raw = torch.frombuffer(bytearray(row["weights"]), dtype=torch.float32)
            decoded[row["layer_name"]] = raw.reshape(row["shape"])
    for name in [name for name in decoded if name.endswith("_blocks")]:
        stack = name.removesuffix("_blocks")
        codes, scales = decoded.pop(name), decoded.pop(f"{stack}_scales")
        decoded[stack] = convert_moe_packed_tensors(codes, scales, dtype=torch.float32)
    shutil.copytree(source, tmp_path / "floats")
    save_file(decoded, tmp_path / "floats" / "model.safetensors", {"format": "pt"})
    code = transformers.GptOssForCausalLM
    found, expected = (logits(load(code, tmp_path / name)) for name in ("out", "floats"))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
