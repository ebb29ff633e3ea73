"""What config.json says of a folder for transformers: settings, targets, and what is ignored."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pyarrow as pa
import pytest
from exports import weights

from formats.packed_models import (
    CONFIG,
    LINEAR,
    ONLY_LINEAR,
    Arrays,
    arrays,
    assert_decodes,
    config_of,
    results_of,
    saved,
)
from pyarrowquant import Recipe, Rule
from pyarrowquant.formats import write_compressed_tensors


def test_config_is_the_source_s_with_more(tmp_path: Path) -> None:
    config = {**CONFIG, "été": 1.5, "limits": [0.0, float("inf")], "big": 2**70}
    model = saved(tmp_path / "model", arrays(), config)
    results = results_of(model, group_size=32, zero_point="symmetric")
    write_compressed_tensors(results, tmp_path / "out", model=model)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written.pop("quantization_config") == {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ["model.embed_tokens", "lm_head"],
        "config_groups": config_of(tmp_path / "out")["config_groups"],
    }
    assert written == config


@pytest.mark.parametrize(
    ("model_type", "kept", "named"),
    [
        ("biogpt", {}, "output_projection"),
        ("trocr", {}, "output_projection"),
        ("moonshine", {}, "proj_out"),
        ("whisper", {}, "proj_out"),
        (
            "phimoe",
            {"model.layers.0.block_sparse_moe.gate.weight": weights(1, 2, 64)},
            "model.layers.0.mlp.router",
        ),
        ("llama", {"head.proj.weight": weights(1, 2, 64)}, "head.proj"),
    ],
)
def test_heads_and_routers_of_other_names(
    tmp_path: Path, model_type: str, kept: Arrays, named: str
) -> None:
    config = {**CONFIG, "model_type": model_type}
    model = saved(tmp_path / "model", {**arrays(), **kept}, config)
    results = results_of(model, Recipe.preset("text"), group_size=32)
    write_compressed_tensors(results, tmp_path / "out", model=model)
    assert named in config_of(tmp_path / "out")["ignore"]


def test_what_is_not_packed_is_ignored(tmp_path: Path) -> None:
    tensors = {
        **arrays(),
        "lm_head.weight": weights(1, 6, 64),
        "model.layers.0.gate.weight": weights(1, 2, 64),
        "model.layers.1.gate.weight": weights(1, 2, 64),
    }
    model = saved(tmp_path / "model", tensors)
    recipe = Recipe([Rule("*.gate.*", skip=True), Rule("*.1.up.*", skip=True), *ONLY_LINEAR.rules])
    results = results_of(model, recipe, group_size=32)
    write_compressed_tensors(results, tmp_path / "out", model=model)
    ignored = config_of(tmp_path / "out")["ignore"]
    exact = [entry for entry in ignored if not entry.startswith("re:")]
    assert sorted(exact) == [
        "lm_head",
        "model.embed_tokens",
        "model.layers.0.gate",
        "model.layers.1.gate",
        "model.layers.1.up",
    ]
    gates, pattern = (entry.removeprefix("re:") for entry in ignored if entry.startswith("re:"))
    assert all(re.match(gates, f"layers.{i}.gate") for i in (0, 1))
    for name in ("model.layers.1.up", "layers.1.up", "x.model.layers.1.up"):
        assert re.match(pattern, name)
    for name in ("model.layers.0.up", "model.layers.1.up.x", "model.layers.11.up", "y.layers.1.up"):
        assert not re.match(pattern, name)
    # a packed head is not ignored
    results = results_of(
        model, Recipe([Rule(["*embed*", "*gate*", "*norm*", "*.bias"], skip=True)]), group_size=32
    )
    write_compressed_tensors(results, tmp_path / "head", model=model)
    config = config_of(tmp_path / "head")
    assert "lm_head" not in config["ignore"]
    # and is named, as vLLM does not count heads among linear layers
    kind, head = config["config_groups"]["group_0"]["targets"]
    assert kind == "Linear"
    for name in ("lm_head", "language_model.lm_head"):
        assert re.match(head.removeprefix("re:"), name)
    assert not re.match(head.removeprefix("re:"), "model.layers.0.up")


def test_names_that_differ_in_their_first_part_only(tmp_path: Path) -> None:
    """An expression that allows another first part would ignore the packed one."""
    tensors = {f"{part}.block.0.q.weight": weights(1, 4, 64) for part in ("encoder", "decoder")}
    model = saved(tmp_path / "model", tensors)
    results = results_of(model, Recipe([Rule("encoder.*", skip=True)]), group_size=32)
    write_compressed_tensors(results, tmp_path / "out", model=model)
    patterns = config_of(tmp_path / "out")["ignore"]
    assert "encoder.block.0.q" in patterns
    for entry in patterns:
        assert not re.match(entry.removeprefix("re:"), "decoder.block.0.q")


@pytest.mark.parametrize(
    ("tensor", "head"),
    [
        ("cls.predictions.transform.dense.weight", "cls.predictions.decoder"),
        ("lm_head.dense.weight", "lm_head.decoder"),
        ("vocab_projector.bias", "vocab_projector"),
    ],
)
def test_tied_heads_of_encoders(tmp_path: Path, tensor: str, head: str) -> None:
    tensors = {**arrays(), tensor: weights(1, 4, 64) if "weight" in tensor else weights(1, 1, 4)[0]}
    model = saved(tmp_path / "model", tensors)
    recipe = Recipe([Rule(["cls*", "lm*", "vocab*"], skip=True), *ONLY_LINEAR.rules])
    write_compressed_tensors(
        results_of(model, recipe, group_size=32), tmp_path / "out", model=model
    )
    assert head in config_of(tmp_path / "out")["ignore"]


@pytest.mark.parametrize("bits", [4, 8])
def test_mixed_settings_have_a_group_each(tmp_path: Path, bits: int) -> None:
    model = saved(tmp_path / "model", arrays())
    recipe = Recipe([Rule("*down*", bit_width=bits, group_size=-1), *ONLY_LINEAR.rules])
    results = results_of(model, recipe, group_size=32, zero_point="symmetric")
    write_compressed_tensors(results, tmp_path / "out", model=model)
    assert_decodes(tmp_path / "out", results)
    config = config_of(tmp_path / "out")
    assert "dequantize" not in config
    groups = list(config["config_groups"].values())
    found = {}
    for group in groups:
        matched = [
            name.removesuffix(".weight")
            for name in arrays()
            for target in group["targets"]
            if re.match(target.removeprefix("re:"), name.removesuffix(".weight"))
        ]
        found[group["weights"]["num_bits"], group["weights"]["group_size"]] = matched
    assert found == {
        (4, 32): ["model.layers.0.up", "model.layers.1.up"],
        (bits, None): ["model.layers.1.down"],
    }


def test_modules_that_differ_in_numbers_share_a_target(tmp_path: Path) -> None:
    """Here 4 bits: 2 * 3 experts; 8 bits: some of the others, not in all combinations."""
    names = [
        f"m.layers.{i}.{part}.{j}.up.weight" for i in (0, 1, 10) for part in "ab" for j in range(3)
    ]
    model = saved(tmp_path / "model", {name: weights(1, 2, 32) for name in names})
    eight = ["m.layers.0.b.*", "m.layers.1.b.2.*", "m.layers.10.a.*"]
    recipe = Recipe([Rule(eight, bit_width=8)])
    results = results_of(model, recipe, group_size=32, zero_point="symmetric")
    write_compressed_tensors(results, tmp_path / "out", model=model)
    groups = config_of(tmp_path / "out")["config_groups"].values()
    assert [len(group["targets"]) for group in groups] == [4, 4]
    bits = dict(
        zip(results["layer_name"].to_pylist(), results["bit_width"].to_pylist(), strict=True)
    )
    for name in names:
        module = name.removesuffix(".weight")
        found = [
            group["weights"]["num_bits"]
            for group in groups
            for target in group["targets"]
            if re.match(target.removeprefix("re:"), module)
        ]
        assert found == [bits[name]]


def test_mixed_settings_need_symmetric_zero_points(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", arrays())
    recipe = Recipe([Rule("*down*", bit_width=8), *ONLY_LINEAR.rules])
    results = results_of(model, recipe, group_size=32)
    with pytest.raises(ValueError, match="of different settings only with symmetric") as caught:
        write_compressed_tensors(results, tmp_path / "out", model=model)
    assert str(caught.value) == (
        "transformers loads layers of different settings only with symmetric zero-points, and the "
        "results have 4 bits in groups of 32 ('model.layers.0.up.weight', "
        "'model.layers.1.up.weight'); 8 bits in groups of 32 ('model.layers.1.down.weight'). "
        'Quantize all of them with zero_point="symmetric", or with the same bit_width and '
        "group_size"
    )
    assert os.listdir(tmp_path) == ["model"]


def test_mixed_settings_need_names_as_in_the_files(tmp_path: Path) -> None:
    config = {**CONFIG, "text_config": {"dtype": "float32"}}
    model = saved(tmp_path / "model", arrays(), config)
    recipe = Recipe([Rule("*down*", bit_width=8), *ONLY_LINEAR.rules])
    results = results_of(model, recipe, group_size=32, zero_point="symmetric")
    with pytest.raises(ValueError, match=r"models that have text_config .* other names"):
        write_compressed_tensors(results, tmp_path / "out", model=model)


def test_one_layer_that_is_not_symmetric_makes_all_asymmetric(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", arrays())
    symmetric = results_of(model, group_size=32, zero_point="symmetric")
    integer = results_of(model, group_size=32)
    results = pa.concat_tables([symmetric.slice(0, 2), integer.slice(2)])
    write_compressed_tensors(results, tmp_path / "out", model=model)
    assert_decodes(tmp_path / "out", results)
    assert config_of(tmp_path / "out")["dequantize"] is True


def test_models_other_than_decoders_are_decoded_while_loading(tmp_path: Path) -> None:
    config = {**CONFIG, "architectures": ["BertModel"]}
    model = saved(tmp_path / "model", arrays(), config)
    results = results_of(model, group_size=32, zero_point="symmetric")
    write_compressed_tensors(results, tmp_path / "out", model=model)
    assert config_of(tmp_path / "out")["dequantize"] is True


def experts() -> Arrays:
    names = [f"model.layers.{i}.mlp.experts.{j}.up.weight" for i in (0, 1) for j in (0, 1)]
    shared = "model.layers.0.mlp.shared_experts.up.weight"
    return {name: weights(i, 4, 64) for i, name in enumerate([*names, shared, *LINEAR])}


def test_experts_are_packed_alike(tmp_path: Path) -> None:
    model = saved(tmp_path / "model", experts())
    options = {"group_size": 32, "zero_point": "symmetric"}
    recipe = Recipe([Rule("*.experts.*", bit_width=8)])
    write_compressed_tensors(results_of(model, recipe, **options), tmp_path / "out", model=model)
    groups = config_of(tmp_path / "out")["config_groups"]
    assert groups["group_0"]["weights"]["num_bits"] == 8  # the first with experts in its targets
    for rule, text in (
        (
            Rule("*1.mlp.experts.0*", skip=True),
            "these are not in the results: 'model.layers.1.mlp.",
        ),
        (Rule("*1.mlp.experts.0*", bit_width=8), "the results have 4 bits in groups of 32 \\("),
    ):
        results = results_of(model, Recipe([rule]), **options)
        with pytest.raises(ValueError, match=f"loads experts only if all are packed.*{text}"):
            write_compressed_tensors(results, tmp_path / "no", model=model)
    with pytest.raises(ValueError, match="zero-points of the results are not symmetric"):
        write_compressed_tensors(
            results_of(model, Recipe([]), group_size=32), tmp_path / "no", model=model
        )
