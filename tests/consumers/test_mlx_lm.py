"""Folders that mlx-lm loads and runs: modes, and experts of mixtures.

mlx-lm needs transformers, so `make test-mlx-lm` runs these in an environment of their own.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.utils import load_model
from safetensors.numpy import load_file, save_file

from pyarrowquant import Recipe, Rule, convert

COMMON = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-5,
    "vocab_size": 96,
    "tie_word_embeddings": False,
    "max_position_embeddings": 128,
    "rope_theta": 10000.0,
}
QWEN = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 96,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3_moe": QWEN,
    "qwen2_moe": {**QWEN, "shared_expert_intermediate_size": 64},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "ernie4_5_moe": {
        **{"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 96, "use_bias": False},
        **{"moe_layer_start_index": 0, "moe_num_shared_experts": 1},
    },
    "deepseek_v3": {
        **{"moe_intermediate_size": 96, "n_routed_experts": 4, "n_shared_experts": 1},
        **{"num_experts_per_tok": 2, "first_k_dense_replace": 1, "moe_layer_freq": 1},
        **{"kv_lora_rank": 32, "q_lora_rank": 64, "qk_rope_head_dim": 16, "v_head_dim": 32},
        **{"qk_nope_head_dim": 32, "n_group": 1, "topk_group": 1, "num_key_value_heads": 4},
    },
    "gpt_oss": {
        **{"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 96},
        **{"sliding_window": 32, "layer_types": ["full_attention", "sliding_attention"]},
    },
    "qwen3_5_moe": {
        "text_config": {
            **{**COMMON, **QWEN, "model_type": "qwen3_5_moe_text", "partial_rotary_factor": 0.5},
            **{"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 32},
            **{"linear_value_head_dim": 32, "linear_conv_kernel_dim": 4},
            **{"shared_expert_intermediate_size": 64, "full_attention_interval": 2},
        }
    },
    "lfm2_moe": {
        **{**QWEN, "use_expert_bias": True, "num_dense_layers": 0, "norm_eps": 1e-5},
        **{"conv_bias": False, "conv_L_cache": 3, "layer_types": ["conv", "full_attention"]},
    },
    "minimax": {
        **{"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 64},
        "rotary_dim": 16,
    },
    "mellum": {
        **{**QWEN, "sliding_window": 32, "layer_types": ["full_attention"] * 2},
        "rope_parameters": {"full_attention": {"rope_theta": 10000.0}},
    },
    "llama4": {
        "text_config": {
            **{**COMMON, "model_type": "llama4_text", "attention_bias": False},
            **{"attention_chunk_size": 64, "interleave_moe_layer_step": 1, "rope_scaling": None},
            **{"intermediate_size_mlp": 128, "num_local_experts": 4, "num_experts_per_tok": 1},
            **{"use_qk_norm": True, "num_hidden_layers": 4},
        }
    },
    "qwen3_vl_moe": {"text_config": {**COMMON, **QWEN, "model_type": "qwen3_vl_moe_text"}},
}
# What their files have in other orders than their code does.
FUSED = {"gpt_oss", "llama4", "qwen3_5_moe", "qwen3_vl_moe"}
NUMBERED = {"mixtral", "lfm2_moe", "minimax"}  # w1 and so on
EXACT: Any = {"scale_dtype": "float32"}  # in which MLX computes then
TOKENS = mx.array([[1, 2, 3, 50, 7, 9, 11, 13]])


class Made:
    """A random model, as code and as a folder of Hugging Face."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        module = importlib.import_module(f"mlx_lm.models.{kind}")
        config = {"model_type": kind, **COMMON, **MODELS[kind], "dtype": "float32"}
        self.model = module.Model(module.ModelArgs.from_dict(config))
        random = np.random.default_rng(0)
        arrays = {}
        for name, array in tree_flatten(self.model.parameters()):
            values = random.standard_normal(array.shape).astype(np.float32) / 8
            arrays[name] = 1 + values / 4 if "norm" in name else values
        self.model.update(tree_unflatten([(name, mx.array(a)) for name, a in arrays.items()]))
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        files = stored(kind, arrays)
        save_file(
            {n: np.ascontiguousarray(a) for n, a in files.items()}, folder / "model.safetensors"
        )


def stored(kind: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What files of a model have, given what its code in mlx-lm has."""
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if name.startswith("language_model.") and kind != "llama4":
            name = name.removeprefix("language_model.")
            name = name.replace("model.", "model.language_model.", 1)
        if name.endswith(("conv1d.weight", "conv.conv.weight")):
            array = np.moveaxis(array, 1, 2)
        if kind == "qwen3_5_moe" and "norm" in name and "linear_attn" not in name:
            array = array - 1
        block, _, matrix = name.partition(".switch_mlp.")
        if kind in ("gpt_oss", "llama4"):
            block, _, matrix = name.partition(".experts.")
        if not matrix:
            found[name] = array
        elif kind not in FUSED:
            matrices = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
            part = matrices[matrix.partition(".")[0]] if kind in NUMBERED else None
            part = matrix if part is None else f"{part}.weight"
            found |= {f"{block}.experts.{i}.{part}": each for i, each in enumerate(array)}
        else:
            found[f"{block}.experts.{matrix}"] = array
    if kind in FUSED:
        fuse(kind, found)
    if kind == "deepseek_v3":
        for name in [name for name in found if name.endswith("embed_q.weight")]:
            block = name.removesuffix("embed_q.weight")
            parts = found.pop(name).swapaxes(1, 2), found.pop(f"{block}unembed_out.weight")
            joined = np.concatenate(parts, axis=1)
            found[f"{block}kv_b_proj.weight"] = joined.reshape(-1, joined.shape[-1])
    return found


def fuse(kind: str, found: dict[str, np.ndarray]) -> None:
    """Join gates and what they multiply, as transformers has them."""
    for name in [name for name in found if ".experts.gate_proj." in name]:
        block, end = name.split(".gate_proj.")
        gate, up = found.pop(name), found.pop(f"{block}.up_proj.{end}")
        down = found.pop(f"{block}.down_proj.{end}")
        joined = np.concatenate([gate, up], axis=1)
        if kind == "gpt_oss":
            joined[:, 0::2], joined[:, 1::2] = gate, up
        if kind != "qwen3_5_moe" and end == "weight":
            joined, down = joined.swapaxes(1, 2), down.swapaxes(1, 2)
        suffix = "" if end == "weight" else "_bias"
        found |= {f"{block}.gate_up_proj{suffix}": joined, f"{block}.down_proj{suffix}": down}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    models: dict[str, Made] = {}

    def of(kind: str) -> Made:
        if kind not in models:
            models[kind] = Made(tmp_path_factory.mktemp("models") / kind, kind)
        return models[kind]

    return of


def logits(model: Any) -> np.ndarray:
    return np.array(model(TOKENS).astype(mx.float32)).astype(np.float64)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def decoded(folder: Path, target: Path) -> Path:
    """The same model with weights that MLX has decoded."""
    config = json.loads((folder / "config.json").read_text())
    usual = config.pop("quantization")
    config.pop("quantization_config")
    tensors = mx.load(str(folder / "model.safetensors"))
    for name in [name for name in tensors if name.endswith(".scales")]:
        module = name.removesuffix(".scales")
        said = usual.get(module, usual)
        scales, biases = tensors.pop(name), tensors.pop(f"{module}.biases", None)
        if biases is not None:
            scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
        tensors[f"{module}.weight"] = mx.dequantize(
            tensors[f"{module}.weight"],
            scales,
            biases,
            said["group_size"],
            said["bits"],
            said["mode"],
            dtype=mx.float32,
        )
    target.mkdir()
    mx.save_safetensors(str(target / "model.safetensors"), tensors)
    (target / "config.json").write_text(json.dumps(config))
    return target


def checked(source: Made, folder: Path, least: float) -> None:
    """Demand the logits of the decoded weights, and those of the source nearly."""
    found = logits(load_model(folder)[0])
    exact = logits(load_model(decoded(folder, folder.with_name("decoded")))[0])
    assert np.abs(found - exact).max() <= 1e-3 * np.abs(exact).max()
    assert cosine(found, logits(source.model)) >= least


@pytest.mark.parametrize(
    ("encoding", "least"), [("mxfp4", 0.8), ("mxfp8", 0.99), ("nvfp4", 0.85), ("int", 0.85)]
)
@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
def test_modes(made: Any, tmp_path: Path, kind: str, encoding: str, least: float) -> None:
    source = made(kind)
    said = {"group_size": 32, **EXACT} if encoding == "int" else {}
    convert(source.folder, tmp_path / "out", to="mlx", encoding=encoding, **said)
    checked(source, tmp_path / "out", least)


def test_modes_mix(made: Any, tmp_path: Path) -> None:
    recipe = Recipe(
        [
            Rule(["*.down_proj.weight", "*.w2.weight"], encoding="mxfp8"),
            Rule("*.v_proj.weight", bit_width=8, group_size=32),
            Rule("*.q_proj.weight", encoding="nvfp4"),
        ]
    )
    for kind in ("llama", "qwen3_moe", "mixtral"):
        out = tmp_path / kind / "out"
        out.parent.mkdir()
        convert(made(kind).folder, out, to="mlx", recipe=recipe, group_size=32, **EXACT)
        checked(made(kind), out, 0.85)


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "llama"])
def test_experts(made: Any, tmp_path: Path, kind: str) -> None:
    source = made(kind)
    done = convert(source.folder, tmp_path / "out", to="mlx", bit_width=8, group_size=32, **EXACT)
    checked(source, tmp_path / "out", 0.999)
    assert not [
        each.name for each in done.unquantized if "experts" in each.name and "bias" not in each.name
    ]
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    experts = [name for name in tensors if "experts." in name or "switch_mlp." in name]
    shared = [name for name in experts if "shared_expert" in name]
    assert {
        tensors[name].dtype.name for name in set(experts) - set(shared) if name.endswith(".weight")
    } == {"uint32"}


def test_experts_may_stay(made: Any, tmp_path: Path) -> None:
    for kind in ("qwen3_moe", "gpt_oss", "qwen3_5_moe"):
        out = tmp_path / kind / "out"
        out.parent.mkdir()
        recipe = Recipe([Rule("*.experts.*", skip=True)], default={"bit_width": 8})
        convert(made(kind).folder, out, to="mlx", recipe=recipe, group_size=32, **EXACT)
        checked(made(kind), out, 0.999)


def test_native_mxfp4(made: Any, tmp_path: Path) -> None:
    """gpt-oss as it is published: its codes are decoded, and the same values found again."""
    source = made("gpt_oss")
    tensors = load_file(source.folder / "model.safetensors")
    weights = {}
    for name in [name for name in tensors if name.endswith("_proj") and "experts" in name]:
        rows = mx.array(np.ascontiguousarray(tensors.pop(name).swapaxes(1, 2)))
        codes, scales = mx.quantize(rows, mode="mxfp4")
        weights[name] = np.array(mx.dequantize(codes, scales, mode="mxfp4", dtype=mx.float32))
        blocks = np.array(codes).view(np.uint8)
        tensors[f"{name}_blocks"] = blocks.reshape(*blocks.shape[:-1], -1, 16)
        tensors[f"{name}_scales"] = np.array(scales)
    folder = tmp_path / "native"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((source.folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4"}
    (folder / "config.json").write_text(json.dumps(config))
    recipe = Recipe([Rule("*.experts.*", encoding="mxfp4")], default={"skip": True})
    with pytest.warns(UserWarning, match="decoded first: 24 of MXFP4"):
        convert(folder, tmp_path / "out", to="mlx", recipe=recipe)
    out = mx.load(str(tmp_path / "out" / "model.safetensors"))
    for name, wanted in weights.items():
        block, matrix = name.rsplit(".", 1)
        parts = {"down_proj": wanted}
        if matrix == "gate_up_proj":
            parts = {"gate_proj": wanted[:, 0::2], "up_proj": wanted[:, 1::2]}
        for part, values in parts.items():
            packed = out[f"{block}.{part}.weight"], out[f"{block}.{part}.scales"]
            found = mx.dequantize(*packed, mode="mxfp4", dtype=mx.float32)
            np.testing.assert_array_equal(np.array(found), values)
    found = logits(load_model(tmp_path / "out")[0])
    exact = logits(load_model(folder)[0])
    assert np.abs(found - exact).max() <= 1e-3 * np.abs(exact).max()


@pytest.mark.parametrize(("rule", "bits"), [({"bit_width": 8}, 8), ({"skip": True}, None)])
def test_experts_of_a_block_are_alike(
    made: Any, tmp_path: Path, rule: dict[str, Any], bits: int | None
) -> None:
    """A rule for one of them is for all that mlx-lm joins with it."""
    recipe = Recipe([Rule("*.layers.0.*.experts.1.up_proj.*", **rule)])
    with pytest.warns(UserWarning, match="Engines of mlx join these"):
        done = convert(made("qwen3_moe").folder, tmp_path / "out", to="mlx", recipe=recipe)
    found = {
        each.name: None if each.settings is None else each.settings.bit_width
        for each in done.tensors
        if each.name.endswith("up_proj.weight")
    }
    assert found == {name: bits if ".layers.0." in name else 4 for name in found}
    assert len(found) == 8
    assert np.isfinite(logits(load_model(tmp_path / "out")[0])).all()
