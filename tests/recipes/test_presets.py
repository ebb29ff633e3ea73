"""Profiles and presets, on the layers of real architectures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pyarrowquant import Recipe, Rule
from pyarrowquant.recipes.presets import SENSITIVE

# All tensors of small configurations, named as transformers 5.24 and diffusers 0.42 save them.
# "quantize" was set from the models' structure, not from names: false for fewer than two
# dimensions, embeddings and norms by the class of their module, and the modules listed by hand
# that come before or after the blocks or take in the time step.
ARCHITECTURES = Path(__file__).parent / "architectures"
PRESET_OF = {
    "bert": "text",
    "gpt2": "text",
    "llama": "text",
    "mixtral": "text",
    "mixtral_stacked": "text",
    "t5_encoder": "text",
    "whisper": "text",
    "flux": "diffusion",
    "pixart": "diffusion",
    "qwen_image": "diffusion",
    "sd3": "diffusion",
    "unet_sd15": "diffusion",
    "unet_sdxl": "diffusion",
    "wan": "diffusion",
    "clip_vision": "vision",
    "dinov2": "vision",
    "swin": "vision",
    "vit": "vision",
}


def architecture(name: str) -> dict[str, dict[str, Any]]:
    layers: dict[str, dict[str, Any]] = json.loads((ARCHITECTURES / f"{name}.json").read_text())
    return layers


def kept(recipe: Recipe, layers: dict[str, dict[str, Any]]) -> list[str]:
    """Names of the layers that a recipe leaves out."""
    return [name for name in layers if recipe.settings_of(name, layers[name]["shape"]) is None]


def test_profiles() -> None:
    said = {
        name: Recipe.profile(name).settings_of("a", (8,)) for name in ("edge", "local", "cloud")
    }
    assert said == {
        "edge": {"bit_width": 2, "group_size": 256, "method": "mse"},
        "local": {"bit_width": 4, "group_size": 128, "method": "mse"},
        "cloud": {"bit_width": 8, "group_size": 64, "method": "mse"},
    }
    assert Recipe.profile("edge").name == "edge"


@pytest.mark.parametrize("profile", [None, "edge", "local", "cloud"])
@pytest.mark.parametrize("preset", ["text", "diffusion", "vision"])
def test_presets_with_profiles(preset: str, profile: str | None) -> None:
    recipe = Recipe.preset(preset, profile)
    assert recipe.rules == Recipe.preset(preset).rules
    assert recipe.default == (Rule() if profile is None else Recipe.profile(profile).default)
    assert recipe.name == (preset if profile is None else f"{preset}-{profile}")
    assert Recipe.from_json(recipe.to_json()) == recipe == Recipe.from_yaml(recipe.to_yaml())


def test_every_architecture_has_its_preset() -> None:
    assert {path.stem for path in ARCHITECTURES.glob("*.json")} == set(PRESET_OF)


@pytest.mark.parametrize("prefix", ["", "wrapped.inner_model."])
@pytest.mark.parametrize("name", PRESET_OF)
def test_presets_keep_what_must_stay(name: str, prefix: str) -> None:
    layers = {prefix + layer: value for layer, value in architecture(name).items()}
    stay = [layer for layer, value in layers.items() if not value["quantize"]]
    assert stay
    assert len(stay) < len(layers)
    assert kept(Recipe.preset(PRESET_OF[name]), layers) == stay


@pytest.mark.parametrize(
    ("name", "modulation"),
    [
        (
            "flux",
            [
                "transformer_blocks.0.norm1.linear.weight",
                "transformer_blocks.0.norm1_context.linear.weight",
                "transformer_blocks.1.norm1.linear.weight",
                "transformer_blocks.1.norm1_context.linear.weight",
                "single_transformer_blocks.0.norm.linear.weight",
                "single_transformer_blocks.1.norm.linear.weight",
            ],
        ),
        (
            "sd3",
            [
                "transformer_blocks.0.norm1.linear.weight",
                "transformer_blocks.0.norm1_context.linear.weight",
                "transformer_blocks.1.norm1.linear.weight",
                "transformer_blocks.1.norm1_context.linear.weight",
                "transformer_blocks.2.norm1.linear.weight",
                "transformer_blocks.2.norm1_context.linear.weight",
            ],
        ),
        (
            "qwen_image",
            [
                "transformer_blocks.0.img_mod.1.weight",
                "transformer_blocks.0.txt_mod.1.weight",
                "transformer_blocks.1.img_mod.1.weight",
                "transformer_blocks.1.txt_mod.1.weight",
            ],
        ),
        ("pixart", []),
        ("unet_sd15", []),
        ("unet_sdxl", []),
        ("wan", []),
    ],
)
def test_modulation_of_adaptive_norms_has_8_bits(name: str, modulation: list[str]) -> None:
    layers = architecture(name)
    recipe = Recipe.preset("diffusion", "edge")
    said = {layer: recipe.settings_of(layer, layers[layer]["shape"]) for layer in layers}
    bits = {layer: settings["bit_width"] for layer, settings in said.items() if settings}
    assert sorted(layer for layer in bits if bits[layer] == 8) == sorted(modulation)
    assert set(bits.values()) <= {2, 8}


@pytest.mark.parametrize("preset", ["text", "diffusion", "vision"])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("blocks.0.gamma", (64,)),
        ("logit_scale", ()),
        ("blocks.0.gate_up_proj_bias", (4, 64)),
        ("blocks.0.relative_attention_bias.weight", (32, 4)),
        ("blocks.0.relative_position_bias_table", (49, 2)),
        ("blocks.0.q_norm.weight", (4, 64)),
        ("pos_embed", (1, 9, 64)),
    ],
)
def test_every_preset_keeps_what_is_small(preset: str, layer: str, shape: tuple[int, ...]) -> None:
    assert Recipe.preset(preset).settings_of(layer, shape) is None


@pytest.mark.parametrize(
    ("preset", "layer", "quantized"),
    [
        # Qwen2-MoE and DeepSeek-V3
        ("text", "model.layers.3.mlp.gate.weight", False),
        ("text", "model.layers.3.mlp.shared_expert_gate.weight", False),
        ("text", "model.layers.3.mlp.shared_expert.gate_proj.weight", True),
        ("text", "model.layers.3.mlp.shared_experts.down_proj.weight", True),
        ("text", "model.layers.3.self_attn.kv_a_proj_with_mqa.weight", True),
        # gpt-oss
        ("text", "model.layers.3.mlp.router.weight", False),
        ("text", "model.layers.3.mlp.experts.gate_up_proj", True),
        ("text", "model.layers.3.mlp.experts.gate_up_proj_bias", False),
        # Llama as its makers published it
        ("text", "tok_embeddings.weight", False),
        ("text", "layers.0.attention.wq.weight", True),
        ("text", "output.weight", False),
        # GPT-NeoX, Cohere, and heads of classifiers, rankers and readers
        ("text", "gpt_neox.embed_in.weight", False),
        ("text", "embed_out.weight", False),
        ("text", "model.layers.0.self_attn.q_norm.weight", False),
        ("text", "classifier.weight", False),
        ("text", "score.weight", False),
        ("text", "qa_outputs.weight", False),
        # BioGPT and TrOCR, XLNet, XLM, DistilBERT, ModernBERT, RWKV; not what blocks have
        ("text", "output_projection.weight", False),
        ("text", "decoder.output_projection.weight", False),
        ("text", "lm_loss.weight", False),
        ("text", "pred_layer.proj.weight", False),
        ("text", "vocab_projector.weight", False),
        ("text", "decoder.weight", False),
        ("text", "head.dense.weight", False),
        ("text", "head.weight", False),
        ("text", "layers.0.attn.output_projection.weight", True),
        ("text", "decoder.layers.0.head.weight", True),
        ("text", "decoder.blocks.weight", True),
        # llama.cpp
        ("text", "token_embd.weight", False),
        ("text", "position_embd.weight", False),
        ("text", "blk.0.ffn_gate_inp.weight", False),
        ("text", "blk.0.attn_output.weight", True),
        ("text", "blk.0.ffn_gate.weight", True),
        # A model within a module of such a name is a model like others
        ("text", "embedding_model.encoder.layers.0.fc1.weight", True),
        # DiT, and U-Nets with classes
        ("diffusion", "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1.weight", False),
        (
            "diffusion",
            "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight",
            False,
        ),
        ("diffusion", "class_embedding.linear_1.weight", False),
        # Sana and CogVideoX
        ("diffusion", "patch_embed.text_proj.weight", False),
        # An encoder without a head
        ("vision", "pooler.dense.weight", False),
        # timm and torchvision
        ("vision", "patch_embed.proj.weight", False),
        ("vision", "pos_embed", False),
        ("vision", "blocks.0.attn.qkv.weight", True),
        ("vision", "head.weight", False),
        ("vision", "heads.head.weight", False),
        ("vision", "conv_proj.weight", False),
        ("vision", "encoder.layers.encoder_layer_0.self_attention.in_proj_weight", True),
        # SigLIP
        ("vision", "vision_model.head.probe", False),
        ("vision", "vision_model.head.mlp.fc1.weight", False),
        # DINOv2 with registers
        ("vision", "dinov2_with_registers.embeddings.register_tokens", False),
    ],
)
def test_presets_on_names_of_other_models(preset: str, layer: str, quantized: bool) -> None:
    assert (Recipe.preset(preset).settings_of(layer, (64, 64)) is not None) is quantized


@pytest.mark.parametrize("preset", ["text", "diffusion", "vision"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("backbone.layers.0.mixer.A_log", (256, 16)),
        ("backbone.layers.0.mixer.conv1d.weight", (256, 1, 4)),
        ("model.layers.0.linear_attn.conv1d.weight", (256, 1, 4)),
        ("blocks.0.att.time_maa_w1", (128, 160)),
        ("blocks.0.att.time_decay_w2", (64, 128)),
        ("blocks.0.att.x_r", (1, 1, 128)),
        ("blocks.0.att.r_k", (2, 64)),
        ("model.layers.0.attn.w_lora.lora.0.weight", (64, 128)),
        ("blk.0.ssm_conv1d.weight", (256, 4)),
        ("blk.0.time_mix_w1.weight", (64, 128)),
        ("model.language_model.layers.0.altup.prediction_coefs.weight", (16, 4)),
        ("model.language_model.layers.0.laurel.linear_left.weight", (64, 128)),
        ("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (32, 8)),
        ("dec.blk.0.attn_rel_b.weight", (32, 8)),
        ("embeddings.position_embeddings.weight", (512, 128)),
        ("token_types.weight", (2, 128)),
        ("rel_pos_emb", (64, 128)),
        ("model.layers.0.mlp.gate.wg.weight", (8, 128)),
        ("blk.0.ffn_gate_inp.weight", (8, 128)),
    ],
)
def test_presets_leave_out_what_is_left_out_without_one(
    preset: str, name: str, shape: tuple[int, ...]
) -> None:
    assert Recipe.preset(preset).settings_of(name, shape) is None
    assert Recipe(SENSITIVE).settings_of(name, shape) is None


@pytest.mark.parametrize(
    "name",
    [
        "emb.weight",
        "talker.code_predictor.model.codec_embedding.3.weight",
        "decoder.model.decoder.embed_tokens.2.weight",
        "decoder.lm_heads.0.weight",
        "talker.codec_head.weight",
    ],
)
def test_text_knows_embeddings_and_heads_with_numbers(name: str) -> None:
    assert Recipe.preset("text").settings_of(name, (256, 128)) is None


@pytest.mark.parametrize(
    "name",
    [
        "blocks.0.att.receptance.weight",
        "blocks.0.ffn.key.weight",
        "model.layers.0.attn.r_proj.weight",
        "backbone.layers.0.mixer.in_proj.weight",
        "model.language_model.layers.0.per_layer_input_gate.weight",
    ],
)
def test_text_quantizes_the_matrices_beside_them(name: str) -> None:
    assert Recipe.preset("text").settings_of(name, (256, 128)) is not None
