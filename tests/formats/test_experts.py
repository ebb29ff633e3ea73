"""Experts of mixtures in folders for engines: all are quantized, in the layout that these load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import mlx.core as mx
import numpy as np
import pytest
from commands import run
from exports import quantized, weights
from safetensors.numpy import load_file, save_file

from formats.expert_models import (
    BLOCK,
    EXPERTS,
    HIDDEN,
    INNER,
    MATRICES,
    OTHERS,
    saved,
    stack,
    stacks,
)
from formats.packed_models import decode, read_model
from pyarrowquant import (
    Recipe,
    Rule,
    convert,
    dequantize_batch_arrow,
    numpy_to_arrow_table,
    plan,
)
from pyarrowquant.formats import write_mlx
from pyarrowquant.formats._experts import with_experts_apart
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.models import open_model

SAID: Any = {"bit_width": 4, "group_size": 32, "method": "rtn", "scale_dtype": "float32"}


def alone(**settings: Any) -> dict[str, np.ndarray]:
    """What each matrix by itself decodes to."""
    result = quantized(*MATRICES.values(), names=list(MATRICES), **settings)
    rows = dequantize_batch_arrow(result).to_pylist()
    return {row["layer_name"]: np.float32(row["weights"]).reshape(row["shape"]) for row in rows}


@pytest.mark.parametrize(
    ("model_type", "kind", "module"),
    [
        ("qwen3_moe", "matrices", "switch_mlp"),
        ("qwen3_5_moe", "rows", "switch_mlp"),
        ("qwen3_vl_moe", "columns", "switch_mlp"),
        ("gpt_oss", "alternating", "experts"),
    ],
)
@pytest.mark.parametrize("encoding", ["int", "mxfp4"])
def test_mlx_has_stacks(
    tmp_path: Path, model_type: str, kind: str, module: str, encoding: str
) -> None:
    tensors = MATRICES if kind == "matrices" else stacks(kind)
    source = saved(tmp_path / "model", tensors, model_type)
    said = SAID if encoding == "int" else {"encoding": encoding, "method": "rtn"}
    done = convert(source, tmp_path / "out", to="mlx", **said)
    left = {each.name: each.reason for each in done.unquantized}
    assert left[f"{BLOCK}.gate.weight"] == left[f"{BLOCK}.shared_expert_gate.weight"] == "routers"
    assert not any(".experts." in name and not name.endswith("bias") for name in left)
    assert done.layers == 3 * EXPERTS + 1
    found = mx.load(str(tmp_path / "out" / "model.safetensors"))
    expected = alone(**({**said, "zero_point": "float"} if encoding == "int" else said))
    mode = "affine" if encoding == "int" else encoding
    for name in ("gate_proj", "up_proj", "down_proj"):
        stacked = f"{BLOCK}.{module}.{name}"
        parts = [found.get(f"{stacked}.{part}") for part in ("weight", "scales", "biases")]
        values = np.array(mx.dequantize(*parts, 32, 4, mode, dtype=mx.float32))
        for expert in range(EXPERTS):
            wanted = expected[f"{BLOCK}.experts.{expert}.{name}.weight"]
            np.testing.assert_allclose(values[expert], wanted, atol=1e-5, rtol=0)
    if kind == "alternating":
        biases = tensors[f"{BLOCK}.experts.gate_up_proj_bias"]
        for first, name in enumerate(("gate_proj", "up_proj")):
            bias = np.array(found[f"{BLOCK}.experts.{name}.bias"])
            np.testing.assert_array_equal(bias, biases[:, first::2])
    size = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert size < 0.25 * (source / "model.safetensors").stat().st_size
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization"] == {"group_size": 32, "bits": 4, "mode": mode}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["matrices", "rows", "columns"])
def test_compressed_tensors_has_single_experts(tmp_path: Path, kind: str, dtype: str) -> None:
    tensors = MATRICES if kind == "matrices" else stacks(kind)
    source = saved(tmp_path / "model", tensors, "qwen3_5_moe", dtype)
    said = {name: value for name, value in SAID.items() if name != "scale_dtype"}
    done = convert(source, tmp_path / "out", to="compressed-tensors", **said)
    assert {each.name for each in done.unquantized} == OTHERS.keys() - {next(iter(OTHERS))}
    found = read_model(tmp_path / "out")
    rounded = {
        name: array.astype(getattr(ml_dtypes, dtype, dtype)).astype(np.float32)
        for name, array in MATRICES.items()
    }
    result = quantized(
        *rounded.values(),
        names=list(rounded),
        **{**SAID, "zero_point": "symmetric", "scale_dtype": dtype},
    )
    for row in dequantize_batch_arrow(result).to_pylist():
        values = decode(found, row["layer_name"], 4)
        np.testing.assert_array_equal(values.ravel(), np.float32(row["weights"]))
    sizes = [(each / "model.safetensors").stat().st_size for each in (tmp_path / "out", source)]
    assert sizes[0] < {"float32": 0.25, "bfloat16": 0.4}[dtype] * sizes[1]
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert not any("experts." in module for module in config["ignore"])


@pytest.mark.parametrize("kind", ["rows", "columns"])
def test_stacks_of_which_nothing_is_quantized_stay(tmp_path: Path, kind: str) -> None:
    """transformers does not load single float experts beside packed layers."""
    source = saved(tmp_path / "model", stacks(kind), "qwen3_5_moe")
    recipe = Recipe([Rule("*.experts.*", skip=True), *Recipe.preset("text").rules])
    out = tmp_path / "out"
    convert(source, out, to="compressed-tensors", recipe=recipe, group_size=32)
    written = load_file(out / "model.safetensors")
    for name, array in stacks(kind).items():
        np.testing.assert_array_equal(written[name], array)
    assert not any(".experts.0." in name for name in written)
    assert run("compare", str(source), str(out)).exit_code == 0
    convert(source, tmp_path / "mlx", to="mlx", recipe=recipe, group_size=32)
    written = load_file(tmp_path / "mlx" / "model.safetensors")
    np.testing.assert_array_equal(written[f"{BLOCK}.switch_mlp.up_proj.weight"], stack("up_proj"))
    assert f"{BLOCK}.switch_mlp.up_proj.scales" not in written


def test_a_matrix_is_read_by_itself(tmp_path: Path) -> None:
    for kind in ("rows", "columns", "alternating"):
        source = saved(tmp_path / kind, stacks(kind), "gpt_oss")
        model = with_experts_apart(
            open_model(locate(str(source), None)), alternating=kind == "alternating"
        )
        batches = list(model.batches(1, only_floats=True, skip=0))
        read = {
            batch["layer_name"][0].as_py(): np.frombuffer(batch["weights"][0].as_py(), np.float32)
            for batch in batches
        }
        assert len(batches) == len(read)
        for name, array in MATRICES.items():
            np.testing.assert_array_equal(read[name], array.ravel())


def test_stacks_of_other_shapes_stay(tmp_path: Path) -> None:
    """Neither alone, nor where the two do not fit each other, are they what they are called."""
    tensors = stacks("rows")
    for i, changed in enumerate(
        (
            {f"{BLOCK}.experts.gate_up_proj": tensors[f"{BLOCK}.experts.gate_up_proj"]},
            {**tensors, f"{BLOCK}.experts.down_proj": weights(1, 8, 8).reshape(4, 4, 4)},
        )
    ):
        source = saved(tmp_path / f"model{i}", changed, "qwen3_5_moe")
        for to in ("mlx", "compressed-tensors"):
            planned = plan(source, tmp_path / "x", to=to)
            reasons = {each.name: each.reason for each in planned.unquantized}
            for name in changed:
                assert reasons[name].startswith("stacks of experts"), name


@pytest.mark.parametrize("model_type", ["qwen3_moe", "deepseek_v3"])
@pytest.mark.parametrize(
    ("rule", "bits"), [({"bit_width": 8}, 8), ({"bit_width": 3}, 4), ({"skip": True}, None)]
)
def test_experts_of_a_stack_get_the_same(
    tmp_path: Path, model_type: str, rule: dict[str, Any], bits: int | None
) -> None:
    source = saved(tmp_path / "model", MATRICES, model_type)
    recipe = Recipe([Rule("*.experts.1.up_proj.*", **rule)])
    with pytest.warns(UserWarning, match="Engines of mlx join these to layers"):
        found = plan(source, tmp_path / "x", to="mlx", recipe=recipe, group_size=32).layers
    for layer in found:
        wanted = bits if ".up_proj." in str(layer.name) else 4
        assert (layer.settings and layer.settings.bit_width) == wanted, layer.name


@pytest.mark.parametrize("kind", ["matrices", "rows"])
@pytest.mark.parametrize(
    "said", [{"bits_per_weight": 6.0}, {"quality_floor": {"relative_error": 0.05}}]
)
def test_budgets_and_floors_choose_for_a_stack(
    tmp_path: Path, kind: str, said: dict[str, Any]
) -> None:
    loud = {
        name: array * (30 if ".experts.1.up_proj" in name else 1)
        for name, array in MATRICES.items()
    }
    tensors = loud if kind == "matrices" else stacks(kind)
    source = saved(
        tmp_path / "model", tensors, "qwen3_moe" if kind == "matrices" else "qwen3_5_moe"
    )
    done = convert(source, tmp_path / "out", to="mlx", group_size=32, **said)
    assert (done.layers, done.missed) == (3 * EXPERTS + 1, ())
    assert done.bits_per_weight <= said.get("bits_per_weight", 8)
    found = mx.load(str(tmp_path / "out" / "model.safetensors"))
    for name in ("gate_proj", "up_proj", "down_proj"):
        weight, scales = (
            found[f"{BLOCK}.switch_mlp.{name}.{part}"] for part in ("weight", "scales")
        )
        assert weight.shape[:2] == scales.shape[:2] == (EXPERTS, *stack(name).shape[1:2])


def test_folders_for_mlx_keep_the_dtype_of_the_model(tmp_path: Path) -> None:
    """What is decoded and stays so, such as stacks of experts, is no float32."""
    source = saved(tmp_path / "model", MATRICES, "qwen3_moe", "bfloat16")
    convert(source, tmp_path / "first", to="mlx", bit_width=4, group_size=32)
    with pytest.warns(UserWarning, match="decoded first"):
        done = convert(
            tmp_path / "first",
            tmp_path / "second",
            to="mlx",
            bit_width=4,
            group_size=32,
            recipe=Recipe([Rule("*.switch_mlp.*", skip=True)]),
        )
    first, second = (
        mx.load(str(tmp_path / each / "model.safetensors")) for each in ("first", "second")
    )
    config = json.loads((tmp_path / "first" / "config.json").read_text())["quantization"]
    for name in ("gate_proj", "up_proj", "down_proj"):
        module = f"{BLOCK}.switch_mlp.{name}"
        said = config.get(module, config)
        parts = [first[f"{module}.{part}"] for part in ("weight", "scales", "biases")]
        values = mx.dequantize(
            *(each.astype(mx.float32) if i else each for i, each in enumerate(parts)),
            group_size=said["group_size"],
            bits=said["bits"],
        )
        kept = second[f"{module}.weight"]
        assert kept.dtype == mx.bfloat16
        assert mx.array_equal(kept, values.astype(mx.bfloat16))
    written = {each.name: each.kept_bytes for each in done.unquantized}
    assert EXPERTS * written[f"{BLOCK}.switch_mlp.1.up_proj.weight"] == 2 * stack("up_proj").size


def test_tables_with_experts_that_differ_are_refused(tmp_path: Path) -> None:
    names = [f"a.experts.{i}.up_proj.weight" for i in (0, 1)]
    for bits, text in ((8, "is of 8 bits in groups of 32 .affine"), (None, "are not quantized")):
        result = quantized(
            *[weights(1, 2, 64)] * (2 if bits else 1),
            names=names if bits else names[:1],
            group_size=32,
            recipe=Recipe([Rule(names[1], bit_width=bits)]) if bits else None,
        )
        kept = None if bits else numpy_to_arrow_table({names[1]: weights(1, 2, 64)})
        for model_type in ("qwen3_moe", "deepseek_v3"):
            with pytest.raises(ValueError, match=f"up_proj' as one stack.*{text}.*by a rule"):
                write_mlx(
                    result,
                    tmp_path / "x",
                    unquantized=kept,
                    dtype="float32",
                    config={"model_type": model_type},
                )


def test_experts_that_are_missing(tmp_path: Path) -> None:
    names = [f"a.experts.{i}.up_proj.weight" for i in (0, 2)]
    result = quantized(*[weights(1, 2, 64)] * 2, names=names, group_size=32)
    with pytest.raises(
        ValueError, match=r"'a\.switch_mlp\.up_proj\.weight' would lack the experts 1"
    ):
        write_mlx(result, tmp_path / "x", dtype="float32", config={"model_type": "qwen3_moe"})
    assert not (tmp_path / "x").exists()
    write_mlx(result, tmp_path / "y", dtype="float32", config={"model_type": "mixtral"})
    assert f"{names[0]}" in load_file(tmp_path / "y" / "model.safetensors")


@pytest.mark.parametrize("kind", ["matrices", "rows", "alternating"])
def test_compare_finds_experts(tmp_path: Path, kind: str) -> None:
    tensors = MATRICES if kind == "matrices" else stacks(kind)
    model_type = {"matrices": "qwen3_moe", "rows": "qwen3_5_moe"}.get(kind, "gpt_oss")
    source = saved(tmp_path / "model", tensors, model_type)
    for to in ("mlx", "compressed-tensors"):
        convert(source, tmp_path / to, to=to, bit_width=8, group_size=32)
        shown = run("compare", str(source), str(tmp_path / to), "--json")
        assert shown.exit_code == 0, shown.stderr
        found = json.loads(shown.stdout)
        assert max(layer["relative_error"] for layer in found["layers"]) < 0.01
        assert sum(np.prod(layer["shape"]) for layer in found["layers"]) == sum(
            array.size for array in {**tensors, **OTHERS}.values()
        )


def test_rules_are_for_either_name(tmp_path: Path) -> None:
    source = saved(tmp_path / "model", stacks("rows"), "qwen3_5_moe")
    recipe = Recipe([Rule("*.experts.gate_up_proj", bit_width=8)])
    planned = plan(source, tmp_path / "x", to="mlx", recipe=recipe, group_size=32)
    bits = {each.name: each.settings.bit_width for each in planned.layers if each.settings}
    assert {bits[name] for name in MATRICES if "down" not in name} == {8}
    assert {bits[name] for name in MATRICES if "down" in name} == {4}


def test_experts_that_mlx_lm_loads_as_floats_stay(tmp_path: Path) -> None:
    source = saved(tmp_path / "model", MATRICES, "qwen3_next")
    planned = plan(source, tmp_path / "x", to="mlx", recipe="all")
    reasons = {each.name: each.reason for each in planned.unquantized}
    for name in MATRICES:
        assert reasons[name] == "experts, which mlx-lm loads as floats only"


def test_what_mlx_lm_takes_apart_stays(tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.kv_b_proj.weight"
    source = saved(tmp_path / "model", {name: weights(1, 64, 64)}, "deepseek_v3")
    planned = plan(source, tmp_path / "x", to="mlx")
    assert {each.name: each.reason for each in planned.unquantized}[
        name
    ] == "which mlx-lm takes apart"


def test_the_importance_of_a_stack_is_that_of_its_experts(tmp_path: Path) -> None:
    """Stacks and single experts give the same bytes with the importance of either."""
    rng = np.random.default_rng(8)
    values = {name: rng.exponential(size=a.shape[1]).astype("f4") for name, a in MATRICES.items()}
    joined = {
        f"{BLOCK}.experts.gate_up_proj": ("gate_proj", HIDDEN),
        f"{BLOCK}.experts.down_proj": ("down_proj", INNER),
    }
    for expert in range(EXPERTS):  # which have the same inputs
        first, second = (
            f"{BLOCK}.experts.{expert}.{name}.weight" for name in ("gate_proj", "up_proj")
        )
        values[second] = values[first]
    stacked = {
        name: np.concatenate(
            [values[f"{BLOCK}.experts.{expert}.{matrix}.weight"] for expert in range(EXPERTS)]
        )
        for name, (matrix, _) in joined.items()
    }
    said = {"pyarrowquant.importance": json.dumps({"format_version": 1})}
    written = []
    for name, tensors, importance in (
        ("single", MATRICES, values),
        ("stacks", stacks("rows"), stacked),
    ):
        file = tmp_path / f"{name}.safetensors"
        save_file(importance, file, metadata=said)
        source = saved(tmp_path / name, tensors, "qwen3_5_moe")
        with pytest.warns(UserWarning, match=r"Without importance .*: [^,]*q_proj\.weight$"):
            convert(source, tmp_path / f"{name}-out", to="mlx", importance=file, group_size=32)
        written.append((tmp_path / f"{name}-out" / "model.safetensors").read_bytes())
    assert written[0] == written[1]
    convert(tmp_path / "single", tmp_path / "plain", to="mlx", group_size=32)
    assert (tmp_path / "plain" / "model.safetensors").read_bytes() != written[0]


def test_stacks_that_transformers_would_not_find_are_refused(tmp_path: Path) -> None:
    source = saved(tmp_path / "model", stacks("columns"), "llama4_text")
    with pytest.raises(ValueError, match=r"experts of llama4_text one by one.*experts\.down_proj"):
        plan(source, tmp_path / "out", to="compressed-tensors")
