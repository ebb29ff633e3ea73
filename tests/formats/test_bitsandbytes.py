"""Layers of NF4 for transformers: each tensor by the definition of bitsandbytes' files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
from exports import decoded, weights
from safetensors.numpy import save_file

from formats.packed_models import CONFIG, config_of, read_model, saved
from pyarrowquant import (
    Recipe,
    Rule,
    UsageError,
    convert,
    plan,
    quantize_batch_arrow,
    quantize_stream,
    read_weights,
)
from pyarrowquant.formats import write_bitsandbytes

UP, DOWN = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"
KINDS = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
NUMPY = {"F32": np.float32, "U8": np.uint8}
# arXiv 2305.14314, appendix E, as float32.
NF4 = np.float32(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)


def model_of(folder: Path, dtype: str = "float32", rows: int = 130, columns: int = 192) -> Path:
    layers = {UP: weights(0, rows, columns), DOWN: weights(1, rows, columns) * 1e-3}
    tensors = {name: array.astype(KINDS[dtype]) for name, array in layers.items()}
    tensors["model.embed_tokens.weight"] = weights(2, 8, 64).astype(KINDS[dtype])
    return saved(folder, tensors, {**CONFIG, "dtype": dtype})


def results_of(model: Path, **options: Any) -> pa.Table:
    return quantize_batch_arrow(
        read_weights(model), encoding="nf4", recipe=Recipe.preset("text"), **options
    )


def by_definition(folder: Path, name: str) -> np.ndarray:
    """Weights of a layer, in float32; each product and sum is rounded."""
    parts = {
        tensor.removeprefix(name): np.frombuffer(data, NUMPY[dtype])
        for tensor, (dtype, _, data) in read_model(folder).items()
        if tensor.startswith(name)
    }
    said = json.loads(parts[".quant_state.bitsandbytes__nf4"].tobytes())
    assert (said["quant_type"], said["blocksize"]) == ("nf4", 64)
    np.testing.assert_array_equal(parts[".quant_map"], NF4)
    codes = np.stack([parts[""] >> 4, parts[""] & 15], 1).ravel()
    scales = parts[".absmax"]
    if "nested_offset" in said:
        assert (said["nested_blocksize"], said["nested_dtype"]) == (256, "float32")
        assert parts[".nested_absmax"].shape == (-(-scales.size // 256),)
        assert scales.dtype == np.uint8
        of_block = np.repeat(parts[".nested_absmax"], 256)[: scales.size]
        scales = parts[".nested_quant_map"][scales] * of_block
        scales = scales + np.float32(said["nested_offset"])
    assert scales.dtype == np.float32
    return (NF4[codes] * np.repeat(scales, 64)).reshape(said["shape"])


@pytest.mark.parametrize("method", ["rtn", "mse"])
@pytest.mark.parametrize("dtype", list(KINDS))
def test_values(tmp_path: Path, dtype: str, method: str) -> None:
    model = model_of(tmp_path / "model", dtype)
    results = results_of(model, method=method)
    write_bitsandbytes(results, tmp_path / "out", model=model)
    tensors = read_model(tmp_path / "out")
    for name, values in decoded(results).items():
        np.testing.assert_array_equal(by_definition(tmp_path / "out", name), values)
        assert tensors[name][:2] == ("U8", [130 * 192 // 2, 1])
        assert tensors[f"{name}.absmax"][:2] == ("F32", [130 * 3])
        said = json.loads(tensors[f"{name}.quant_state.bitsandbytes__nf4"][2])
        assert said["dtype"] == dtype
    assert tensors["model.embed_tokens.weight"] == read_model(model)["model.embed_tokens.weight"]
    said = config_of(tmp_path / "out")
    assert said["quant_method"] == "bitsandbytes"
    assert (said["load_in_4bit"], said["bnb_4bit_quant_type"]) == (True, "nf4")
    assert said["bnb_4bit_use_double_quant"] is False
    assert said["bnb_4bit_compute_dtype"] == dtype


@pytest.mark.parametrize("scale", [1, 1e-30, 1e30])
def test_double(tmp_path: Path, scale: float) -> None:
    """Scales are off by no more than half a step of the levels, the widest of which is 1/64.

    What is 0 stays so, and its scale does not count.
    """
    array = weights(0, 130, 192) * np.float32(scale)
    array[3] = 0
    model = saved(tmp_path / "model", {UP: array}, CONFIG)
    results = results_of(model)
    write_bitsandbytes(results, tmp_path / "out", model=model, double=True)
    assert config_of(tmp_path / "out")["bnb_4bit_use_double_quant"] is True
    found, plain = (
        each.astype(float) for each in (by_definition(tmp_path / "out", UP), decoded(results)[UP])
    )
    assert not found[3].any()
    scales = np.delete(np.array(results["scales"][0].as_py()).reshape(130, 3), 3, axis=0)
    offset = np.abs(scales - scales.mean()).max()
    off = np.abs(found - plain).max()
    assert off <= 1.01 * offset / 128
    assert np.linalg.norm(found - plain) < 0.01 * np.linalg.norm(plain)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dtype", list(KINDS))
def test_conversions(tmp_path: Path, dtype: str, double: bool) -> None:
    model = model_of(tmp_path / "model", dtype)
    done = convert(model, tmp_path / "out", to="bitsandbytes", double=double)
    write_bitsandbytes(
        results_of(model, method="mse"), tmp_path / "direct", model=model, double=double
    )
    assert read_model(tmp_path / "out") == read_model(tmp_path / "direct")
    assert config_of(tmp_path / "out") == config_of(tmp_path / "direct")
    shown = plan(model, tmp_path / "x", to="bitsandbytes", double=double)
    (settings,) = {layer.settings for layer in shown.layers if layer.settings}
    assert (settings.encoding, settings.method) == ("nf4", "mse")
    tensors = read_model(tmp_path / "out")
    codes = [name for name in tensors if "_proj" in name and "quant_state" not in name]
    stored = 8 * sum(len(tensors[name][2]) for name in codes)
    assert done.bits_per_weight == pytest.approx(stored / done.weights)
    table = pa.Table.from_batches(read_weights(tmp_path / "out"))
    for row in table.to_pylist():
        if row["layer_name"] in (UP, DOWN):
            found = np.frombuffer(row["weights"], np.float32).reshape(row["shape"])
            expected = by_definition(tmp_path / "out", row["layer_name"])
            assert found.tobytes() == expected.tobytes()


def test_streams_and_shards(tmp_path: Path) -> None:
    model = model_of(tmp_path / "model")
    tensors = read_model(model)
    (tmp_path / "shards").mkdir()
    index = {}
    for number, name in enumerate(tensors, 1):
        file = f"model-0000{number}-of-00003.safetensors"
        array = np.frombuffer(tensors[name][2], np.float32).reshape(tensors[name][1])
        save_file({name: array}, tmp_path / "shards" / file)
        index[name] = file
    (tmp_path / "shards/model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (tmp_path / "shards/config.json").write_text(json.dumps(CONFIG))
    stream = quantize_stream(read_weights(model), encoding="nf4", recipe=Recipe.preset("text"))
    write_bitsandbytes(stream, tmp_path / "out", model=tmp_path / "shards", double=True)
    write_bitsandbytes(results_of(model), tmp_path / "whole", model=model, double=True)
    assert read_model(tmp_path / "out") == read_model(tmp_path / "whole")
    said = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())["weight_map"]
    assert said.keys() == read_model(tmp_path / "out").keys()
    for name, file in index.items():
        assert {part_file for part, part_file in said.items() if part.startswith(name)} == {file}


def test_what_is_not_packed_is_named(tmp_path: Path) -> None:
    """Also where a name is the end of a packed one, or begins it, by an expression alone."""
    names = ["model.layers.0.proj", "model.layers.1.up_proj", "head.proj", "proj", "model.gate"]
    tensors = {f"{name}.weight": weights(0, 64, 64) for name in names}
    experts = "model.layers.0.experts.0.up_proj.weight"
    tensors |= {"model.norm.weight": weights(0, 1, 64)[0], experts: weights(0, 64, 64)}
    config = {**CONFIG, "model_type": "own_moe", "architectures": ["OwnMoeForCausalLM"]}
    model = saved(tmp_path / "model", tensors, config)
    recipe = {"rules": [{"match": ["proj.weight", "*layers.1*"], "skip": True}]}
    done = convert(model, tmp_path / "out", to="bitsandbytes", recipe=recipe)
    assert done.layers == 2
    skipped = config_of(tmp_path / "out")["llm_int8_skip_modules"]
    assert skipped[:3] == ["model.gate", "model.layers.1.up_proj", "lm_head"]
    assert all(each.endswith("$") for each in skipped[3:])
    reasons = {each.name: each.reason for each in done.unquantized}
    assert reasons[experts].startswith("experts, which transformers joins")
    assert reasons["model.gate.weight"].endswith("routers, which transformers does not pack")


@pytest.mark.parametrize("model_type", ["t5", "umt5"])
def test_what_stays_in_float32(tmp_path: Path, model_type: str) -> None:
    wo, wi = "encoder.block.0.layer.1.DenseReluDense.wo.weight", "encoder.block.0.x.wi.weight"
    tensors = {wo: weights(0, 64, 64), wi: weights(0, 64, 64)}
    model = saved(tmp_path / "model", tensors, {**CONFIG, "model_type": model_type})
    done = convert(model, tmp_path / "out", to="bitsandbytes", recipe="all")
    assert done.layers == 1
    assert [each.name for each in done.unquantized] == [wo]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"encoding": "int"}, "holds encoding 'nf4', and not 'int'"),
        ({"encoding": "fp8"}, "holds encoding 'nf4', and not 'fp8'"),
        (
            {"bit_width": 8},
            "bit_width 8 contradicts encoding 'nf4', which has 4 bits.",
        ),
        ({"group_size": 128}, "group_size 128 contradicts encoding 'nf4'"),
        ({"method": "hqq"}, "method 'hqq' contradicts encoding 'nf4'"),
        ({"recipe": "FP8_BLOCK"}, "recipe='FP8_BLOCK' is none of to='bitsandbytes'"),
        ({"bits_per_weight": 4.2}, "bits_per_weight= fits bit widths, and encoding='nf4' has one"),
        ({"size": 10**6}, "size="),
        ({"pre_tokenizer": "x"}, "not for '"),
    ],
)
def test_settings_that_it_has_not(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    model = model_of(tmp_path / "model")
    with pytest.raises(UsageError) as caught:
        plan(model, tmp_path / "out", to="bitsandbytes", **options)
    assert problem in str(caught.value)


@pytest.mark.parametrize("to", ["mlx", "compressed-tensors", "parquet", "gguf", "onnx"])
def test_double_is_for_it_alone(tmp_path: Path, to: str) -> None:
    with pytest.raises(UsageError, match=f"double=True is .* not for to='{to}'. Leave it out"):
        convert(model_of(tmp_path / "model"), tmp_path / "out", to=to, double=True)


def test_profiles_and_rules(tmp_path: Path) -> None:
    model = model_of(tmp_path / "model")
    assert convert(model, tmp_path / "out", to="bitsandbytes", recipe="text-local").layers == 2
    recipe = {"rules": [{"match": "*up_proj*", "encoding": "fp8"}]}
    with pytest.raises(ValueError, match=f"cannot hold layer '{UP}': encoding 'fp8' must be one"):
        plan(model, tmp_path / "x", to="bitsandbytes", recipe=recipe)


@pytest.mark.parametrize(("profile", "bits"), [("edge", 2), ("cloud", 8), ("text-cloud", 8)])
def test_profiles_of_other_bits_are_refused(tmp_path: Path, profile: str, bits: int) -> None:
    model = model_of(tmp_path / "model")
    with pytest.raises(UsageError, match=rf"'{profile}' says {bits} bits, and .* has 4 alone"):
        plan(model, tmp_path / "x", to="bitsandbytes", recipe=profile)


def test_what_a_preset_gives_more_bits_stays_as_it_is(tmp_path: Path) -> None:
    name = "transformer_blocks.0.norm1.linear.weight"
    model = saved(tmp_path / "model", {UP: weights(0, 64, 64), name: weights(0, 64, 64)}, CONFIG)
    for recipe in ("diffusion", "diffusion-local"):
        planned = plan(model, tmp_path / "x", to="bitsandbytes", recipe=recipe)
        assert [layer.name for layer in planned.layers if layer.settings] == [UP]


def test_columns_that_are_no_blocks_stay_floats(tmp_path: Path) -> None:
    tensors = {UP: weights(0, 64, 64), DOWN: weights(0, 64, 96)}
    model = saved(tmp_path / "model", tensors, CONFIG)
    with pytest.warns(UserWarning, match=f"does not take their shape: {DOWN}"):
        done = convert(model, tmp_path / "out", to="bitsandbytes")
    assert done.layers == 1
    assert read_model(tmp_path / "out")[DOWN][2] == tensors[DOWN].tobytes()
    table = quantize_batch_arrow(read_weights(model), encoding="nf4")
    with pytest.raises(ValueError, match=f"'{DOWN}': 96 columns are no multiple of 64"):
        write_bitsandbytes(table, tmp_path / "x", model=model)
    assert not (tmp_path / "x").exists()


def with_levels(results: pa.Table, levels: list[float]) -> pa.Table:
    index = results.schema.get_field_index("levels")
    column = pa.array([levels] * len(results), results.schema.field(index).type)
    return results.set_column(index, results.schema.field(index), column)


def test_other_levels_are_refused(tmp_path: Path) -> None:
    """bitsandbytes has them in its code, and takes no others from files."""
    model = model_of(tmp_path / "model")
    results = with_levels(results_of(model), [*NF4[:-1].tolist(), 2.0])
    with pytest.raises(ValueError, match="level 15 is 2, encoding 'nf4' has 1"):
        write_bitsandbytes(results, tmp_path / "out", model=model)


@pytest.mark.parametrize("config", [{"model_type": "gpt2"}, {"dtype": "float64"}])
def test_models_that_it_has_no_place_for(tmp_path: Path, config: dict[str, Any]) -> None:
    model = model_of(tmp_path / "model")
    (model / "config.json").write_text(json.dumps({**CONFIG, **config}))
    with pytest.raises(ValueError, match=r"config\.json"):
        plan(model, tmp_path / "out", to="bitsandbytes")


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("falcon", "transformer.h.0.mlp.dense_h_to_4h.weight"),
        ("deepseek_v4", "model.layers.0.self_attn.o_a_proj.weight"),
    ],
)
def test_layers_of_classes_of_their_own(tmp_path: Path, model_type: str, name: str) -> None:
    """transformers puts layers of bitsandbytes in the place of plain linear ones alone."""
    config = {"model_type": model_type, "dtype": "float32"}
    model = saved(tmp_path / "model", {name: weights(0, 64, 64)}, config)
    with pytest.raises(ValueError, match=r"No layer would be quantized to bitsandbytes"):
        plan(model, tmp_path / "out", to="bitsandbytes")
    table = quantize_batch_arrow(read_weights(model), encoding="nf4")
    with pytest.raises(ValueError, match=f"'{name}': it is one of classes that transformers does"):
        write_bitsandbytes(table, tmp_path / "out", model=model)
    assert not (tmp_path / "out").exists()


def test_stacks_of_experts_that_would_not_be_found(tmp_path: Path) -> None:
    experts = "model.layers.0.feed_forward.experts.down_proj"
    tensors = {UP: weights(0, 64, 64), experts: np.ones((2, 64, 64), np.float32)}
    model = saved(tmp_path / "model", tensors, {"model_type": "llama4_text", "dtype": "float32"})
    message = f"llama4_text one by one from folders of bitsandbytes, and these are .*{experts}"
    with pytest.raises(ValueError, match=message):
        plan(model, tmp_path / "out", to="bitsandbytes")
    table = quantize_batch_arrow(
        read_weights(model), encoding="nf4", recipe=Recipe([Rule("*.experts*", skip=True)])
    )
    with pytest.raises(ValueError, match=message):
        write_bitsandbytes(table, tmp_path / "out", model=model)


def test_another_run_is_told_by_double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted run is not continued with other scales."""
    model = model_of(tmp_path / "model")

    def fail(*_: object) -> None:
        raise OSError("no")

    with monkeypatch.context() as patched:
        patched.setattr("pyarrowquant.conversion.partial.results.PlacedResults.finish", fail)
        with (
            pytest.warns(UserWarning, match="What is done stays"),
            pytest.raises(OSError, match="no"),
        ):
            convert(model, tmp_path / "out", to="bitsandbytes")
    with pytest.raises(ValueError, match="double was False, now is True"):
        convert(model, tmp_path / "out", to="bitsandbytes", resume=True, double=True)
    assert convert(model, tmp_path / "out", to="bitsandbytes", resume=True).layers == 2
