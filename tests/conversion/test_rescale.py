"""Conversions that move factors between layers first, beside products that must stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import hf_folders
import numpy as np
import pyarrow as pa
import pytest
from commands import succeeded
from safetensors.numpy import load_file, save_file

from pyarrowquant import (
    Recipe,
    Rule,
    UsageError,
    convert,
    dequantize_batch_arrow,
    numpy_to_arrow_table,
    plan,
    quantize_batch_arrow,
    read_weights,
)

LAYER = "model.layers.0."
COLUMNS = hf_folders.COLUMNS
# Only the head becomes codes, so that all else is what it was made.
HEAD = Recipe([Rule(match="lm_head.weight", bit_width=8, group_size=32)], Rule(skip=True))


def a_folder(path: Path, dtype: Any = np.float32, tokenizer: Any = None, **config: Any) -> Path:
    """A model of which no two columns are alike, and no weight is among float16's smallest."""
    random = np.random.default_rng(2)
    tensors = {}
    for name, array in hf_folders.llama().items():
        spread = array * np.exp(random.standard_normal(array.shape[-1]))
        tensors[name] = np.copysign(np.maximum(np.abs(spread), 2.0**-8), spread).astype(dtype)
    return hf_folders.write(path / "model", tensors, tokenizer, **config)


def rescaled(source: Path, **options: Any) -> dict[str, np.ndarray]:
    """The tensors that are left as floats in a folder, by their names."""
    folder = source.with_name("codes")
    options = {"to": "compressed-tensors", "recipe": HEAD, "rescale": "on", **options}
    convert(source, folder, overwrite=True, **options)
    return load_file(folder / "model.safetensors")


def test_products_of_neighbours_stay(tmp_path: Path) -> None:
    source = a_folder(tmp_path)
    before, now = load_file(source / "model.safetensors"), rescaled(source)

    def check(product: Any) -> None:
        np.testing.assert_array_equal(product(now), product(before))

    def read(tensors: dict[str, np.ndarray], norm: str, name: str) -> np.ndarray:
        return tensors[f"{LAYER}{name}.weight"] * tensors[f"{LAYER}{norm}.weight"]

    def through_values(tensors: dict[str, np.ndarray]) -> np.ndarray:
        output = tensors[f"{LAYER}self_attn.o_proj.weight"].reshape(COLUMNS, 2, 4, 32)
        values = read(tensors, "input_layernorm", "self_attn.v_proj").reshape(2, 1, 32, COLUMNS)
        return output[:8, ..., None] * values  # four heads read the values of one

    def through_up(tensors: dict[str, np.ndarray]) -> np.ndarray:
        up = read(tensors, "post_attention_layernorm", "mlp.up_proj")
        return tensors[f"{LAYER}mlp.down_proj.weight"][:8, :, None] * up

    for name in ("q_proj", "k_proj"):
        check(lambda tensors, name=name: read(tensors, "input_layernorm", f"self_attn.{name}"))
    check(lambda tensors: read(tensors, "post_attention_layernorm", "mlp.gate_proj"))
    check(through_values)
    check(through_up)
    for name in ("embed_tokens", "norm"):
        np.testing.assert_array_equal(now[f"model.{name}.weight"], before[f"model.{name}.weight"])
    for name in ("self_attn.o_proj", "mlp.down_proj", "mlp.gate_proj", "self_attn.k_proj"):
        assert not np.array_equal(now[f"{LAYER}{name}.weight"], before[f"{LAYER}{name}.weight"])


def of_known_columns(path: Path) -> tuple[Path, np.ndarray]:
    """A model whose queries, keys and values have columns that are larger by known factors."""
    random = np.random.default_rng(4)
    tensors = hf_folders.llama()
    factors = 2.0 ** np.resize([0, 1, 0, -2, 3, 0, -1, 0], COLUMNS)
    for name in ("q_proj", "k_proj", "v_proj"):
        array = tensors[f"{LAYER}self_attn.{name}.weight"]
        rows = np.exp(random.standard_normal((len(array), 1)))
        tensors[f"{LAYER}self_attn.{name}.weight"] = (array * rows * factors).astype(np.float32)
    return hf_folders.write(path / "model", tensors), factors.astype(np.float32)


def test_factors_are_what_columns_have_more_than_others(tmp_path: Path) -> None:
    source, factors = of_known_columns(tmp_path)
    name = f"{LAYER}input_layernorm.weight"
    now, before = rescaled(source)[name], load_file(source / "model.safetensors")[name]
    np.testing.assert_array_equal(now / before, factors)


def test_importance_is_that_of_what_columns_are_multiplied_with(tmp_path: Path) -> None:
    source, factors = of_known_columns(tmp_path)
    names = [f"{LAYER}self_attn.{which}_proj.weight" for which in "qkv"]
    means = np.random.default_rng(3).exponential(size=COLUMNS).astype(np.float32)
    said = json.dumps({"format_version": 1, "texts": [], "tokens": 9, "windows": 1})
    metadata = {"pyarrowquant.importance": said}
    save_file(dict.fromkeys(names, means), tmp_path / "i.safetensors", metadata)
    settings = {"bit_width": 4, "group_size": 32, "method": "mse", "zero_point": "symmetric"}
    recipe = Recipe([Rule(match=tuple(names))], Rule(skip=True))
    options = {**settings, "recipe": recipe, "importance": tmp_path / "i.safetensors"}
    convert(source, tmp_path / "codes", to="compressed-tensors", rescale="on", **options)
    codes = read_weights(tmp_path / "codes").read_all().to_pylist()
    found = {row["layer_name"]: np.frombuffer(row["weights"], np.float32) for row in codes}
    before = load_file(source / "model.safetensors")
    table = numpy_to_arrow_table({name: before[name] / factors for name in names[:2]})
    column = pa.array([means * factors**2] * 2, pa.list_(pa.float32()))
    table = table.append_column("importance", column)
    results = quantize_batch_arrow(table, scale_dtype="float32", **settings)
    for row in dequantize_batch_arrow(results).to_pylist():
        np.testing.assert_array_equal(found[row["layer_name"]], np.float32(row["weights"]))


def test_gguf_has_the_same_weights(tmp_path: Path) -> None:
    source = a_folder(tmp_path, np.float16)
    recipe = Recipe([Rule(match="output.weight", bit_width=8)], Rule(skip=True))
    convert(source, tmp_path / "x.gguf", recipe=recipe, rescale="on")
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    expected = rescaled(source)
    for theirs, ours in {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }.items():
        weights = expected[f"{LAYER}{ours}.weight"]
        np.testing.assert_array_equal(found[f"blk.0.{theirs}.weight"], weights)


@pytest.mark.parametrize(("dtype", "is_exact"), [(np.float32, True), (np.float16, False)])
def test_norms_without_their_one(tmp_path: Path, dtype: Any, is_exact: bool) -> None:
    """Rounded to 16 bits they would not be what they were, so they stay."""
    source = a_folder(tmp_path, dtype, architectures=["GemmaForCausalLM"])
    before, now = load_file(source / "model.safetensors"), rescaled(source)
    norm, query = f"{LAYER}input_layernorm.weight", f"{LAYER}self_attn.q_proj.weight"
    assert np.array_equal(now[norm], before[norm]) != is_exact
    old, new = (each[query] * (1 + each[norm]) for each in (before, now))
    np.testing.assert_allclose(new, old, rtol=1e-6)
    down = f"{LAYER}mlp.down_proj.weight"
    assert not np.array_equal(now[down], before[down])


@pytest.mark.parametrize("kind", ["compressed-tensors", "mlx", "gguf"])
def test_the_original_is_rescaled_to_be_compared(tmp_path: Path, kind: str) -> None:
    source, output = a_folder(tmp_path), tmp_path / f"x.{kind}"
    options = {"to": kind, "bit_width": 8, "group_size": 32}
    convert(source, output, rescale="on", **options)
    compared = json.loads(succeeded("compare", source, output, "--json"))
    assert compared["totals"]["relative_error"] < 0.02
    page = ("--html", tmp_path / "page.html", "--json")
    reported = json.loads(succeeded("report", output, "--original", source, *page))
    assert reported["relative_error"] < 0.02


def test_gguf_has_norms_with_their_one_as_float32(tmp_path: Path) -> None:
    model = {"architectures": ["GemmaForCausalLM"], "head_dim": 32}
    source = a_folder(tmp_path, np.float16, hf_folders.pieces(prepend=False), **model)
    recipe = Recipe([Rule(match="token_embd.weight", bit_width=8)], Rule(skip=True))
    convert(source, tmp_path / "x.gguf", recipe=recipe, rescale="on")
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    weights = load_file(source / "model.safetensors")
    norm = weights[f"{LAYER}post_attention_layernorm.weight"].astype(np.float32) + 1
    assert not np.array_equal(found["blk.0.ffn_norm.weight"], norm)
    new = found["blk.0.ffn_gate.weight"] * found["blk.0.ffn_norm.weight"]
    old = weights[f"{LAYER}mlp.gate_proj.weight"].astype(np.float32) * norm
    np.testing.assert_allclose(new, old, rtol=1e-6)


def test_a_layer_with_a_tensor_that_is_not_known_stays(tmp_path: Path) -> None:
    source = a_folder(tmp_path)
    tensors = load_file(source / "model.safetensors")
    tensors[f"{LAYER}self_attn.g_proj.weight"] = tensors[f"{LAYER}self_attn.q_proj.weight"]
    save_file(tensors, source / "model.safetensors")
    now = rescaled(source)
    for name, array in now.items():
        if not name.startswith("lm_head"):
            is_other = name.startswith("model.layers.1.") and "embed" not in name
            assert np.array_equal(array, tensors[name]) != is_other, name


def test_columns_of_zeros_stay(tmp_path: Path) -> None:
    tensors = hf_folders.llama()
    name = f"{LAYER}mlp.down_proj.weight"
    tensors[name][:, ::3] = 0
    tensors[f"model.layers.1.{name.removeprefix(LAYER)}"][:] = 0
    now = rescaled(hf_folders.write(tmp_path / "model", tensors))
    assert all(np.isfinite(array).all() for key, array in now.items() if "lm_head" not in key)
    assert not now[name][:, ::3].any()


def test_weights_that_are_no_numbers_are_told_where_they_are(tmp_path: Path) -> None:
    tensors = hf_folders.llama()
    tensors[f"{LAYER}mlp.up_proj.weight"][3, 5] = np.nan
    source = hf_folders.write(tmp_path / "model", tensors)
    with pytest.raises(ValueError, match=rf"'{LAYER}mlp.up_proj.weight' contains NaN or Inf at"):
        convert(source, tmp_path / "codes", to="compressed-tensors", rescale="on")


def test_where_it_cannot_be(tmp_path: Path) -> None:
    source = a_folder(tmp_path)
    with pytest.raises(UsageError, match="rescale='maybe' must be one of"):
        plan(source, tmp_path / "x", to="mlx", rescale="maybe")
    with pytest.raises(UsageError, match="rescale='on' is for Hugging Face folders to"):
        plan(source, tmp_path / "x.parquet", rescale="on")
    plan(source, tmp_path / "x.parquet", rescale="auto")
    other = a_folder(tmp_path / "other", architectures=["NewForCausalLM"])
    with pytest.raises(UsageError, match=r"is of \['NewForCausalLM'\]"):
        plan(other, tmp_path / "x", to="mlx", rescale="on")
    before = load_file(other / "model.safetensors")
    now = rescaled(other, rescale="auto")
    assert all(np.array_equal(now[name], before[name]) for name in now if name in before)


def test_a_run_goes_on_with_the_same_factors(tmp_path: Path) -> None:
    source = a_folder(tmp_path)
    options = {"to": "gguf", "rescale": "on"}
    convert(source, tmp_path / "whole.gguf", **options)

    def stop(step: Any) -> None:
        if step.layers:
            raise RuntimeError("stopped")

    with pytest.warns(UserWarning, match="What is done"), pytest.raises(RuntimeError):
        convert(source, tmp_path / "x.gguf", progress=stop, **options)
    with pytest.raises(ValueError, match="cannot be continued: rescale was True, now is False"):
        convert(source, tmp_path / "x.gguf", resume=True, **{**options, "rescale": "off"})
    convert(source, tmp_path / "x.gguf", resume=True, **options)
    assert (tmp_path / "x.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
