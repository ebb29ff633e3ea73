"""Layers that engines join get one scheme from recipes, budgets and floors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run
from formats.packed_models import config_of
from models import write_two_shards
from safetensors.numpy import load_file, save_file

from pyarrowquant import (
    Recipe,
    Rule,
    convert,
    plan,
    quantize_batch_arrow,
    read_weights,
)
from pyarrowquant.formats import write_compressed_tensors

ATTENTION, MLP = "model.layers.0.self_attn", "model.layers.0.mlp"
QKV = [f"{ATTENTION}.{part}_proj.weight" for part in "qkv"]
GATE_UP = [f"{MLP}.gate_proj.weight", f"{MLP}.up_proj.weight"]
ALONE = [f"{ATTENTION}.o_proj.weight", f"{MLP}.down_proj.weight"]
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "float32"}
MIXTURE = {**CONFIG, "model_type": "own_moe", "architectures": ["OwnMoeForCausalLM"]}
Found = dict[str | None, Any]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose joined layers need different bits, in two shards."""
    rng = np.random.default_rng(3)
    weights = {
        name: rng.standard_normal((64, 256), np.float32) for name in (*QKV, *GATE_UP, *ALONE)
    }
    weights[QKV[0]][0] *= 100
    weights[GATE_UP[0]][:] = 1  # which any codes are enough for
    weights[GATE_UP[1]] **= 5
    return write_two_shards(tmp_path / "model", weights, CONFIG)


def settings_of(model: Path, **options: Any) -> Found:
    planned = plan(model, model.with_name("out"), to="compressed-tensors", **options)
    return {layer.name: layer.settings for layer in planned.layers}


def assert_joined(found: Found) -> None:
    for names in (QKV, GATE_UP):
        assert len({found[name] for name in names}) == 1


@pytest.mark.parametrize("bits_per_weight", [3.8, 4.5, 5.5, 7])
def test_a_budget(model: Path, tmp_path: Path, bits_per_weight: float) -> None:
    found = settings_of(model, bits_per_weight=bits_per_weight)
    assert_joined(found)
    assert len(set(found.values())) > 1
    tables = plan(model, tmp_path / "out", to="parquet", bits_per_weight=bits_per_weight)
    alone = {layer.name: layer.settings for layer in tables.layers}
    assert len({alone[name] for name in GATE_UP}) > 1
    done = convert(
        model, tmp_path / "out", to="compressed-tensors", bits_per_weight=bits_per_weight
    )
    assert done.bits_per_weight <= bits_per_weight


def test_a_floor(model: Path, tmp_path: Path) -> None:
    """All that is joined passes; what stands alone gets no more than it needs."""
    floor = {"relative_error": 0.05}
    found = settings_of(model, quality_floor=floor)
    assert_joined(found)
    done = convert(model, tmp_path / "out", to="compressed-tensors", quality_floor=floor)
    assert done.missed == ()
    groups = config_of(tmp_path / "out")["config_groups"].values()
    widths = {found[name].bit_width for name in (*QKV, *GATE_UP, *ALONE)}
    assert {group["weights"]["num_bits"] for group in groups} == widths


def test_a_floor_widens_encodings(model: Path, tmp_path: Path) -> None:
    options = {"encoding": "nvfp4", "quality_floor": {"relative_error": 0.05}}
    done = convert(model, tmp_path / "out", to="compressed-tensors", **options)
    assert done.missed == ()
    assert config_of(tmp_path / "out")["format"] == "float-quantized"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"bit_width": 8}, [8, 8, 8]),
        ({"bit_width": 3}, [4, 4, 4]),
        ({"encoding": "fp8"}, ["fp8"] * 3),
        ({"skip": True}, [None] * 3),
    ],
)
def test_recipes(model: Path, rule: dict[str, Any], expected: list[object]) -> None:
    recipe = Recipe([Rule("*k_proj*", **rule)])
    same = "with other settings, so they get the same"
    said = "that are not quantized, so they are not, either" if "skip" in rule else same
    with pytest.warns(UserWarning, match=f"join these to layers {said}: ") as warned:
        found = settings_of(model, recipe=recipe, zero_point="symmetric")
    assert len(warned) == 1
    wanted = [found[name] for name in QKV]
    if "encoding" in rule:
        assert [each.encoding for each in wanted] == expected
    else:
        assert [None if each is None else each.bit_width for each in wanted] == expected
    assert found[ALONE[0]].bit_width == 4


def test_tables_keep_what_recipes_say(model: Path, tmp_path: Path) -> None:
    recipe = Recipe([Rule("*k_proj*", bit_width=8)])
    planned = plan(model, tmp_path / "out", to="parquet", recipe=recipe)
    assert {layer.name for layer in planned.layers if layer.settings.bit_width == 8} == {QKV[1]}


def test_blocks_that_engines_cannot_join_are_kept(model: Path) -> None:
    """64 rows end within a block: the rows of the next layer would follow."""
    with pytest.warns(UserWarning, match="Kept, as the format does not take their shape"):
        found = settings_of(model, recipe="fp8_block")
    assert {name for name, settings in found.items() if settings} == set(ALONE)


def test_results_of_different_schemes_are_written_with_a_warning(
    model: Path, tmp_path: Path
) -> None:
    recipe = Recipe([Rule("*k_proj*", bit_width=8), Rule("*gate*", skip=True)])
    results = quantize_batch_arrow(read_weights(model), recipe=recipe, zero_point="symmetric")
    with pytest.warns(UserWarning, match=r"vLLM joins these .*gate_proj.* and 2 more"):
        write_compressed_tensors(results, tmp_path / "out", model=model)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"recipe": "w4a16"}, " as W4A16, "),
        ({"recipe": "w4a16", "method": "rtn"}, " as W4A16, "),
        ({"recipe": "w4a16", "quality-floor": 0.9}, " as W4A16 with changes, "),
        ({"recipe": "RULES"}, " as W4A16 with changes, "),
    ],
)
def test_a_scheme_is_named_with_what_changes_it(
    model: Path, tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('{"extends": "W4A16", "rules": [{"match": "*o_proj*", "bits": 8}]}')
    said = [
        each
        for name, value in options.items()
        for each in (f"--{name}", rules if value == "RULES" else value)
    ]
    done = run("quantize", model, tmp_path / "out", "--to", "compressed-tensors", *said)
    assert done.stdout.startswith(f"7 layers{text}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"recipe": "nvfp4a16"},
            "transformers .* loads experts in NVFP4 without their global scale, and so wrong",
        ),
        ({"recipe": "fp8_block"}, "transformers .* does not load experts in blocks of FP8"),
        ({"recipe": "mxfp8a16"}, "transformers .* does not load experts in MXFP8"),
        ({"recipe": "w8a8"}, "transformers .* does not load experts with activations of 8 bits"),
        (
            {"encoding": "fp8", "group_size": "tensor"},
            "vLLM .* does not load experts in FP8 with one scale a layer",
        ),
    ],
)
def test_experts_that_engines_cannot_have(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    names = [f"{MLP}.experts.{i}.{part}_proj.weight" for i in (0, 1) for part in ("up", "down")]
    (tmp_path / "model").mkdir()
    save_file(
        {name: np.ones((128, 128), np.float32) for name in names},
        tmp_path / "model" / "model.safetensors",
    )
    (tmp_path / "model" / "config.json").write_text(json.dumps(MIXTURE))
    with pytest.warns(UserWarning, match=said):
        plan(tmp_path / "model", tmp_path / "out", to="compressed-tensors", **options)


def test_attention_may_have_other_bits_than_experts(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    experts = [f"{MLP}.experts.{i}.{part}_proj.weight" for i in (0, 1) for part in ("up", "down")]
    weights = {name: rng.standard_normal((128, 128), np.float32) for name in (*QKV, *experts)}
    model = write_two_shards(tmp_path / "model", weights, MIXTURE)
    recipe = Recipe([Rule("*self_attn*", bit_width=8)])
    found = {name: each.bit_width for name, each in settings_of(model, recipe=recipe).items()}
    assert found == {**dict.fromkeys(QKV, 8), **dict.fromkeys(experts, 4)}


@pytest.mark.parametrize(
    ("bits_per_weight", "floor"),
    [(4.6, None), (5.5, None), (6.5, None), (5.5, 0.1), (6.5, 0.1), (None, 0.1)],
)
def test_the_experts_of_all_blocks_get_the_same(
    tmp_path: Path, bits_per_weight: float | None, floor: float | None
) -> None:
    rng = np.random.default_rng(6)
    blocks = [f"model.layers.{block}" for block in range(3)]
    weights = {
        f"{block}.{layer}_proj.weight": rng.standard_normal((128, 256), np.float32)
        for block in blocks
        for layer in (
            *(f"mlp.experts.{i}.{part}" for i in (0, 1) for part in ("gate", "up", "down")),
            *(f"self_attn.{part}" for part in "qkvo"),
        )
    }
    hard = f"{blocks[1]}.mlp.experts.0.up_proj.weight"
    weights[hard][:, ::32] *= 20  # alone it would get more bits than the others
    model = write_two_shards(tmp_path / "model", weights, MIXTURE)
    options = {
        "bits_per_weight": bits_per_weight,
        "quality_floor": None if floor is None else {"relative_error": floor},
    }
    done = convert(model, tmp_path / "out", to="compressed-tensors", **options)
    if bits_per_weight is not None:
        assert done.bits_per_weight <= bits_per_weight
    widths: dict[bool, set[int]] = {True: set(), False: set()}
    for path in (tmp_path / "out").glob("*.safetensors"):
        for name, codes in load_file(path).items():
            if name.endswith("_packed"):
                widths[".experts." in name].add(codes.shape[1] * 32 // 256)
    assert len(widths[True]) == 1
    assert widths[False]
