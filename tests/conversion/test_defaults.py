"""What is quantized with what, where the user says nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import failed, succeeded
from models import source_for
from safetensors.numpy import load_file, save_file

from pyarrowquant import Recipe, Rule, UsageError, compare, convert, plan, read_weights

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def saved(folder: Path, shapes: dict[str, tuple[int, ...]], dtype: Any = np.float32) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.standard_normal(shape, np.float32).astype(dtype) for name, shape in shapes.items()
    }
    save_file(tensors, folder / "model.safetensors")
    config = {**CONFIG, "dtype": np.dtype(dtype).name}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def group_sizes(source: Path, to: str, **said: Any) -> set[int]:
    layers = plan(source, source.parent / "out", to=to, **said).layers
    return {layer.settings.group_size for layer in layers if layer.settings is not None}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (512, {"compressed-tensors": 128, "mlx": 64}),
        (576, {"compressed-tensors": 64, "mlx": 64}),
        (96, {"compressed-tensors": 32, "mlx": 32}),
    ],
)
@pytest.mark.parametrize("to", ["compressed-tensors", "mlx"])
def test_groups_fit_the_model(
    tmp_path: Path, columns: int, expected: dict[str, int], to: str
) -> None:
    shapes = {"layers.0.up.weight": (64, columns), "layers.0.norm.weight": (columns,)}
    source = saved(tmp_path / "model", shapes)
    assert group_sizes(source, to) == {expected[to]}
    assert group_sizes(source, to, group_size=32) == {32}
    said = succeeded("quantize", source, tmp_path / "out", "--to", to, "--dry-run")
    assert f"1 with 4 bits in groups of {expected[to]}: layers.0.up.weight\n" in said


@pytest.mark.filterwarnings("ignore:Kept, as:UserWarning")
def test_a_small_layer_does_not_make_groups_small(tmp_path: Path) -> None:
    shapes = {"layers.0.up.weight": (512, 512), "layers.0.odd.weight": (2, 192)}
    source = saved(tmp_path / "model", shapes)
    assert group_sizes(source, "compressed-tensors") == {128}


def test_each_layer_for_mlx_has_the_largest_groups_that_fit(tmp_path: Path) -> None:
    shapes = {f"layers.{i}.up.weight": (512, 512) for i in (0, 1)}
    shapes["layers.0.odd.weight"] = (64, 96)
    source, out = saved(tmp_path / "model", shapes), tmp_path / "out"
    with pytest.warns(UserWarning, match=r"groups of 32 instead: layers\.0\.odd\.weight"):
        done = convert(source, out, to="mlx")
    assert done.layers == 3
    said = json.loads((out / "config.json").read_text())["quantization"]
    assert said["group_size"] == 64
    assert said["layers.0.odd"]["group_size"] == 32
    other = saved(tmp_path / "other", {"layers.0.up.weight": (64, 192)})
    with pytest.warns(UserWarning, match="groups of 64 instead"):
        (layer,) = plan(other, tmp_path / "other-out", to="mlx", group_size=128).layers
    assert layer.settings is not None
    assert layer.settings.group_size == 64


def test_groups_of_a_scheme_fit_the_model(tmp_path: Path) -> None:
    for columns, expected in ((512, 128), (576, 64)):
        source = saved(tmp_path / f"model{columns}", {"layers.0.up.weight": (64, columns)})
        (layer,) = plan(source, tmp_path / "out", to="compressed-tensors", recipe="W4A16").layers
        assert layer.settings is not None
        assert (layer.settings.group_size, layer.settings.bit_width) == (expected, 4)


@pytest.mark.parametrize("model_type", ["mamba2", "t5"])
def test_models_that_use_weights_are_decoded_while_loading(tmp_path: Path, model_type: str) -> None:
    shapes = {"layers.0.up.weight": (64, 256), "layers.0.down.weight": (64, 256)}
    source, out = saved(tmp_path / "model", shapes), tmp_path / "out"
    config = source / "config.json"
    config.write_text(json.dumps({"model_type": model_type}))
    convert(source, out, to="compressed-tensors")
    said = json.loads((out / "config.json").read_text())["quantization_config"]
    assert said["dequantize"] is True
    mixed = Recipe([Rule("*up*", bit_width=8)])
    with pytest.raises(ValueError, match=f"layers of {model_type} while it loads them"):
        plan(source, tmp_path / "mixed", to="compressed-tensors", recipe=mixed)
    with pytest.raises(UsageError, match=f"loads {model_type} only if"):
        plan(source, tmp_path / "mixed", to="compressed-tensors", bits_per_weight=6)


def test_models_of_conv1d_are_refused_for_engines(tmp_path: Path) -> None:
    source = saved(tmp_path / "model", {"h.0.attn.c_attn.weight": (64, 192)})
    config = source / "config.json"
    config.write_text(json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}))
    for to in ("mlx", "compressed-tensors"):
        with pytest.raises(ValueError, match=r"config\.json' has model_type 'gpt2'.*Conv1D"):
            plan(source, tmp_path / "out", to=to)


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [(np.float32, np.float16), (np.float16, np.float16), (ml_dtypes.bfloat16, ml_dtypes.bfloat16)],
)
def test_scales_for_mlx_are_of_the_models_dtype(tmp_path: Path, dtype: Any, stored: Any) -> None:
    source = saved(tmp_path / "model", {"up.weight": (64, 128), "norm.weight": (128,)}, dtype)
    convert(source, tmp_path / "out", to="mlx")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written["up.scales"].dtype == written["up.biases"].dtype == stored
    assert written["norm.weight"].dtype == dtype


def test_float_zero_points_for_mlx_take_no_more_and_leave_less_error(tmp_path: Path) -> None:
    source = saved(tmp_path / "model", {"up.weight": (64, 512)})
    best = convert(source, tmp_path / "float", to="mlx")
    other = convert(source, tmp_path / "integer", to="mlx", zero_point="integer")
    assert best.bytes == other.bytes
    assert best.relative_error < 0.97 * other.relative_error


def test_all_files_of_a_folder_go_along(tmp_path: Path) -> None:
    source = saved(tmp_path / "model", {"up.weight": (64, 128)})
    files = {
        "tokenizer.json",
        "added_tokens.json",
        "chat_template.jinja",
        "tekken.json",
        "qwen.tiktoken",
        "modeling_new.py",
        "README.md",
        "generation_config.json",
        "1_Pooling/config.json",
    }
    for name in (*files, "pytorch_model.bin", "model.gguf", ".hidden", "onnx/model.onnx"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(name)
    for to in ("mlx", "compressed-tensors"):
        out = tmp_path / to
        convert(source, out, to=to)
        found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
        assert found == {*files, "config.json", "model.safetensors"}
        assert all((out / name).read_text() == name for name in files)
        convert(source, out, to=to, overwrite=True)  # the subfolder is one that is written anew


def test_float64_is_quantized_as_it_reads(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", up=np.random.default_rng(0).standard_normal((8, 64)))
    done = convert(tmp_path / "m.npz", tmp_path / "m.parquet", bit_width=8)
    assert (done.layers, done.unquantized) == (1, ())
    errors = compare(read_weights(tmp_path / "m.npz"), pq.read_table(tmp_path / "m.parquet"))
    assert errors["relative_error"][0].as_py() < 0.01


@pytest.mark.parametrize("budget", [4.25, 5, 6.5])
@pytest.mark.parametrize("said", [{}, {"zero_point": "symmetric"}, {"scale_dtype": "float16"}])
def test_a_budget_is_kept_by_the_count_that_is_shown(
    tmp_path: Path, budget: float, said: dict[str, Any]
) -> None:
    shapes = {f"{n}.weight": (64, 128 * n) for n in range(1, 7)}
    source = saved(tmp_path / "model", shapes)
    done = convert(source, tmp_path / "out.parquet", bits_per_weight=budget, **said)
    assert done.bits_per_weight is not None
    assert budget - 0.3 < done.bits_per_weight <= budget


@pytest.mark.parametrize("to", ["parquet", "compressed-tensors", "mlx", "gguf", "onnx"])
@pytest.mark.parametrize("recipe", ["local", "cloud", "text", "text-local", "vision-cloud"])
def test_presets_and_profiles_work_with_every_format(tmp_path: Path, to: str, recipe: str) -> None:
    folder = saved(tmp_path / "model", {"layers.0.up.weight": (64, 512)})
    source = source_for(folder, to)
    done = convert(source, tmp_path / f"out.{to}", to=to, recipe=recipe)
    assert done.layers == 1
    bit_width = 8 if "cloud" in recipe else 4
    planned = plan(source, tmp_path / f"again.{to}", to=to, recipe=recipe).layers[0].settings
    assert planned is not None
    assert planned.bit_width == bit_width
    if to == "parquet":
        assert planned.group_size == (64 if "cloud" in recipe else 128)


def test_what_is_said_wins_over_the_default_of_a_recipe(tmp_path: Path) -> None:
    source = saved(tmp_path / "model", {"layers.0.up.weight": (64, 512), "head": (64, 512)})

    def settings(**said: Any) -> list[tuple[int, int]]:
        layers = plan(source, tmp_path / "out.parquet", **said).layers
        return [
            (layer.settings.bit_width, layer.settings.group_size)
            for layer in layers
            if layer.settings is not None
        ]

    assert settings(recipe="local", bit_width=8) == [(8, 128)] * 2
    assert settings(recipe="cloud", group_size=32) == [(8, 32)] * 2
    mine = Recipe([Rule("head", bit_width=6)], default={"bit_width": 4, "group_size": 64})
    assert sorted(settings(recipe=mine, bit_width=8)) == [(6, 64), (8, 64)]  # rules say more
    assert settings(recipe=Recipe([Rule("head")], default="skip"), bit_width=8) == [(8, 128)]


LEFT = [
    "model.layers.0.self_attn.q_norm.weight",
    "blk.0.attn_q_norm.weight",
    "blk.0.ssm_norm.weight",
    "token_types.weight",
    "position_embd.weight",
    "embeddings.position_embeddings.weight",
    "embeddings.token_type_embeddings.weight",
    "transformer.wpe.weight",
    "model.encoder.embed_positions.weight",
    "encoder.rel_pos_emb.weight",
    "model.layers.0.mlp.gate.weight",
    "model.layers.0.mlp.gate.wg.weight",
    "blk.0.ffn_gate_inp.weight",
    "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "dec.blk.0.attn_rel_b.weight",
    "blk.0.ssm_conv1d.weight",
    "blk.0.time_mix_first.weight",
    "text.attn_mask",
    "layers.0.up.weight_scale_inv",
]
TAKEN = [
    "model.embed_tokens.weight",
    "token_embd.weight",
    "lm_head.weight",
    "output.weight",
    "model.layers.0.mlp.gate_proj.weight",
    "blk.0.ffn_gate.weight",
    "backbone.layers.0.mixer.in_proj.weight",
    "encoder.layers.0.self_attn.linear_pos.weight",
    "decoder.proj_pos.weight",
    "head.abnormal_fc.weight",
    "blocks.0.norm_proj.weight",
    "dec.conv1d.weight",
    "disposition.weight",
    "layers.0.up.weight",
]


@pytest.mark.filterwarnings("ignore:Names of more than 63 bytes:UserWarning")
def test_what_is_sensitive_stays_by_its_name(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", dict.fromkeys([*LEFT, *TAKEN], (32, 64)))
    for name in ("out.parquet", "out.gguf", "out.onnx"):
        source = source_for(folder, name.removeprefix("out."))
        layers = plan(source, tmp_path / name).layers
        quantized = [layer.name for layer in layers if layer.settings is not None]
        assert sorted(map(str, quantized)) == sorted(TAKEN)
        assert len(layers) == len([*LEFT, *TAKEN])
        everything = plan(source, tmp_path / name, recipe="all").layers
        assert all(layer.settings is not None for layer in everything)


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_nothing_to_quantize_is_said_before_any_work(tmp_path: Path, options: list[str]) -> None:
    folder = saved(tmp_path / "model", {"norm.weight": (64,), "a.kernel": (8,) * 7})
    for to, reasons in {
        "mlx": "2 no matrices",
        "gguf": "1 the format has no tensors of 7 dimensions; 1 no matrices",
        "compressed-tensors": "2 no matrices",
    }.items():
        source = source_for(folder, to)
        error = failed("quantize", source, tmp_path / "out", "--to", to, *options)
        text = f"No layer would be quantized to {to}. '{source}' has 2 tensors: {reasons}"
        assert text in error
        assert "The format can quantize none of them: take another" in error
        assert "--recipe all" not in error
        assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize("to", ["parquet", "arrow", "compressed-tensors", "mlx", "gguf", "onnx"])
@pytest.mark.parametrize("options", [{}, {"bits_per_weight": 6}], ids=["bits", "budget"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_profile_leaves_out_what_no_recipe_does(
    tmp_path: Path, to: str, options: dict[str, Any]
) -> None:
    shapes = {
        "layers.0.up.weight": (64, 512),
        "layers.0.norm.weight": (512,),
        "layers.0.up.bias": (512,),
        "layers.0.mlp.gate.weight": (8, 512),
        "embed_positions.weight": (64, 512),
    }
    source = source_for(saved(tmp_path / "model", shapes), to)
    said = {} if options else {"bit_width": 8}

    def wanted(**recipe: Any) -> list[str | None]:
        layers = plan(source, tmp_path / "out", to=to, **recipe, **options).layers
        return [layer.name for layer in layers if layer.settings is not None]

    assert wanted(recipe="cloud") == wanted(**said) == ["layers.0.up.weight"]


def test_what_a_recipe_leaves_out_is_said_to_be_so(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", {"a.up.weight": (64, 64)})
    recipe = tmp_path / "none.json"
    recipe.write_text('{"default": {"skip": true}}')
    error = failed("quantize", folder, tmp_path / "out", "--to", "mlx", "--recipe", recipe)
    assert "--recipe all leaves out only what the format cannot quantize" in error
