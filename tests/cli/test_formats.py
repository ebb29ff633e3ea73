"""`pyarrowquant quantize` into the formats of engines."""

from __future__ import annotations

import json
from pathlib import Path

import hf_folders
import ml_dtypes
import numpy as np
import pytest
from commands import failed, run, succeeded
from models import source_for
from safetensors.numpy import load_file, save_file

from cli.onnx_products import onnx_model
from cli.outputs import expected, names_in
from pyarrowquant import dequantize_batch_arrow, numpy_to_arrow_table, quantize_batch_arrow


def test_formats_of_engines(model: Path, weights: dict[str, np.ndarray], tmp_path: Path) -> None:
    import gguf
    import onnx

    text = ["--recipe", "text"]
    succeeded("quantize", model, tmp_path / "m.gguf", *text)
    tensors = {t.name: t for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert {name: t.tensor_type.name for name, t in tensors.items()} == {
        "model.embed_tokens.weight": "F32",
        "model.layers.0.mlp.up_proj.weight": "Q4_0",
        "model.layers.0.mlp.down_proj.weight": "Q4_0",
        "model.norm.weight": "F32",
        "model.position_ids": "I64",
    }
    settings = {"group_size": 32, "zero_point": "symmetric", "scale_dtype": "float16"}
    up = "model.layers.0.mlp.up_proj.weight"
    result = quantize_batch_arrow(numpy_to_arrow_table({up: weights[up]}), method="mse", **settings)
    decoded = dequantize_batch_arrow(result)["weights"][0].values.to_numpy()
    blocks = gguf.quants.dequantize(tensors[up].data, tensors[up].tensor_type)
    assert np.array_equal(blocks.ravel(), decoded)
    assert np.array_equal(tensors["model.norm.weight"].data, weights["model.norm.weight"])

    source = tmp_path / "source"
    source.mkdir()
    model.rename(source / "model.safetensors")
    (source / "config.json").write_text('{"model_type": "llama"}')
    (source / "tokenizer.json").write_text("{}")
    summary = json.loads(
        succeeded("quantize", source, tmp_path / "mlx", "--to", "mlx", *text, "--json")
    )
    assert summary["layers"] == 2
    assert names_in(tmp_path / "mlx") == ["config.json", "model.safetensors", "tokenizer.json"]
    config = json.loads((tmp_path / "mlx" / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert config["quantization"]["group_size"] == 64

    succeeded("quantize", source, tmp_path / "m.onnx", *text, "--tensors-only")
    nodes = onnx.load(tmp_path / "m.onnx", load_external_data=False).graph.node
    assert [node.op_type for node in nodes] == ["MatMulNBits"] * 2
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"extends": "text", "default": {"bits": 3}}')
    said = ["--recipe", recipe, "--tensors-only"]
    error = failed("quantize", source, tmp_path / "m3.gguf", *said)
    assert "GGUF cannot hold layers 'model.layers.0.mlp.down_proj.weight', " in error
    assert "m3.gguf" not in names_in(tmp_path)


@pytest.mark.parametrize("kind", ["mlx", "gguf"])
def test_rows_of_broken_groups_stay_as_they_are(
    weights: dict[str, np.ndarray], tmp_path: Path, kind: str
) -> None:
    ragged = {**weights, "odd.weight": np.ones((8, 72), np.float32)}
    source, out = tmp_path / "model.safetensors", tmp_path / "out"
    save_file(ragged, source)
    result = run("quantize", source, out, "--to", kind)
    assert result.exit_code == 0, result.output
    assert "Kept, the format does not take their shape: odd.weight" in result.stdout
    if kind == "gguf":
        import gguf

        tensors = {t.name: t.tensor_type.name for t in gguf.GGUFReader(out).tensors}
        assert tensors["odd.weight"] == "F32"
    else:
        assert load_file(out / "model.safetensors")["odd.weight"].shape == (8, 72)


def test_budgets_within_the_widths_of_a_format(model: Path, tmp_path: Path) -> None:
    import onnx

    out = tmp_path / "m.onnx"
    succeeded("quantize", model, out, "--bits-per-weight", 6.2)
    nodes = onnx.load(out, load_external_data=False).graph.node
    bits = {a.i for node in nodes for a in node.attribute if a.name == "bits"}
    assert bits <= {2, 4, 8}
    assert len(bits) > 1


@pytest.mark.parametrize("to", ["compressed-tensors", "mlx"])
@pytest.mark.parametrize("rules", [None, "W4A16"])
def test_fitted_recipes_are_for_all_formats(tmp_path: Path, to: str, rules: str | None) -> None:
    """Scales, and zero-points where bits differ, are those that the format has."""
    tensors = {name: each.astype(ml_dtypes.bfloat16) for name, each in hf_folders.llama().items()}
    source = hf_folders.write(tmp_path / "model", tensors, dtype="bfloat16")
    recipe, out = tmp_path / "fitted.json", tmp_path / "out"
    options = [] if rules is None else ["--recipe", rules]
    fit = ["recipe", "fit", source, recipe, "--bits-per-weight", 5.2, *options, "--json"]
    fitted = json.loads(succeeded(*fit))
    chosen = {rule["bit_width"] for rule in json.loads(recipe.read_text())["rules"]}
    assert len(chosen) > 1
    done = json.loads(succeeded("quantize", source, out, "--to", to, "--recipe", recipe, "--json"))
    assert done["layers"] >= 14
    assert done["bits_per_weight"] <= 5.2
    assert done["relative_error"] == pytest.approx(fitted["relative_error"], rel=0.1)


def test_scales_of_mlx_in_any_type(model: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    options = ["--to", "mlx", "--recipe", "text", "--scale-dtype", "float32"]
    succeeded("quantize", model, tmp_path / "out", *options)
    with safe_open(tmp_path / "out" / "model.safetensors", "np") as tensors:
        name = "model.layers.0.mlp.up_proj.scales"
        assert tensors.get_slice(name).get_dtype() == "F32"


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_onnx_models_keep_their_graph(tmp_path: Path, dtype: type) -> None:
    import onnxruntime

    source, out = tmp_path / "model.onnx", tmp_path / "small.onnx"
    weights = onnx_model(source, dtype)
    assert "2 layers" in succeeded("quantize", source, out, "--group-size", 32)
    x = np.random.default_rng(2).standard_normal((5, 128)).astype(dtype)
    (y,) = onnxruntime.InferenceSession(out).run(None, {"x": x})
    scale_dtype = "float16" if dtype is np.float16 else "float32"
    rows = expected(weights, group_size=32, scale_dtype=scale_dtype)
    result = quantize_batch_arrow(
        numpy_to_arrow_table(weights), method="mse", group_size=32, scale_dtype=scale_dtype
    )
    decoded = {
        row["layer_name"]: np.reshape(np.float32(row["weights"]), row["shape"])
        for row in dequantize_batch_arrow(result).to_pylist()
    }
    assert set(rows) == set(decoded)
    wanted = np.maximum(x.astype(np.float32) @ decoded["up"].T, 0) @ decoded["down"].T
    assert np.allclose(y, wanted, rtol=1e-2, atol=0.3 if dtype is np.float16 else 1e-3)
    shown = json.loads(succeeded("inspect", source, "--json"))["layers"]
    assert {layer["layer_name"]: layer["shape"] for layer in shown} == {
        "up": [64, 128],
        "down": [32, 64],
    }


def test_compressed_tensors(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = json.loads(
        succeeded(
            "quantize", llama, out, "--to", "compressed-tensors", "--group-size", 32, "--json"
        )
    )
    assert summary["layers"] == 2
    assert names_in(out) == ["config.json", "model.safetensors", "tokenizer.json"]
    said = json.loads((out / "config.json").read_text())["quantization_config"]
    assert said["config_groups"]["group_0"]["weights"]["group_size"] == 32
    assert {"lm_head", "model.embed_tokens"} <= set(said["ignore"])
    tensors = load_file(out / "model.safetensors")
    assert tensors["model.layers.0.mlp.up_proj.weight_packed"].shape == (64, 32)
    assert tensors["lm_head.weight"].shape == (40, 128)


def test_gguf_models_keep_all_else(tmp_path: Path) -> None:
    import gguf

    rng = np.random.default_rng(0)
    source, out = tmp_path / "model.gguf", tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(source, "llama")
    writer.add_string("general.name", "mine")
    for name, shape in {
        "token_embd.weight": (40, 64),
        "blk.0.ffn_up.weight": (64, 64),
        "blk.0.ffn_norm.weight": (64,),
        "blk.0.ffn_gate_inp.weight": (8, 64),
        "blk.0.odd.weight": (8, 40),
    }.items():
        writer.add_tensor(name, rng.standard_normal(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    result = run("quantize", source, out)
    assert result.exit_code == 0, result.output
    assert "Kept, the format does not take their shape: blk.0.odd.weight" in result.stdout
    reader = gguf.GGUFReader(out)
    assert {tensor.name: tensor.tensor_type.name for tensor in reader.tensors} == {
        "token_embd.weight": "Q8_0",
        "blk.0.ffn_up.weight": "Q5_0",
        "blk.0.ffn_norm.weight": "F32",
        "blk.0.ffn_gate_inp.weight": "F32",
        "blk.0.odd.weight": "F32",
    }
    assert reader.get_field("general.name").contents() == "mine"
    assert "is the source" in failed("quantize", source, source, "--overwrite")
    assert "5 layers" in succeeded("inspect", source)


def test_tensors_of_all_dtypes_are_kept(tmp_path: Path) -> None:
    import gguf

    tensors = {
        "up.weight": np.random.default_rng(0).standard_normal((64, 64), np.float32),
        "ids": np.arange(6, dtype=np.int64),
        "mask": np.array([True, False]),
        "double.weight": np.ones((2, 2), np.float64),
        "small": np.arange(4, dtype=np.int8),
    }
    source = tmp_path / "model.safetensors"
    save_file(tensors, source)
    result = run("quantize", source, tmp_path / "mlx", "--to", "mlx")
    assert result.exit_code == 0, result.output
    assert "Left out, of dtype F64: double.weight" in result.stdout  # which MLX does not load
    found = load_file(tmp_path / "mlx" / "model.safetensors")
    assert set(found) == {*tensors, "up.scales", "up.biases"} - {"double.weight"}
    for name in set(tensors) - {"up.weight", "double.weight"}:
        assert found[name].dtype == tensors[name].dtype
        assert np.array_equal(found[name], tensors[name])
    result = run("quantize", source, tmp_path / "m.gguf")
    assert result.exit_code == 0, result.output
    assert "Left out, of dtype BOOL: mask" in result.stdout
    kept = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert set(kept) == set(tensors) - {"mask"}
    for name in ("ids", "double.weight", "small"):
        assert np.array_equal(kept[name], tensors[name])


@pytest.mark.parametrize("kind", ["mlx", "gguf", "onnx", "compressed-tensors"])
def test_layers_that_are_too_small_or_empty_are_kept(
    llama: Path, tmp_path: Path, kind: str
) -> None:
    tensors = load_file(llama / "model.safetensors")
    tensors["few.weight"] = np.ones((8, 24), np.float32)
    tensors["none.weight"] = np.ones((0, 64), np.float32)
    save_file(tensors, llama / "model.safetensors")
    options = ["--group-size", 32] if kind == "compressed-tensors" else []
    source = source_for(llama, kind)
    result = run("quantize", source, tmp_path / "out", "--to", kind, *options)
    assert result.exit_code == 0, result.output
    assert "none.weight" in result.stdout


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("onnx", []),
        ("gguf", []),
        ("gguf", ["--zero-point", "integer"]),
        ("onnx", ["--zero-point", "float"]),
    ],
)
@pytest.mark.parametrize(
    "chosen",
    [["--quality-floor", "0.9985", "--continue-on-error"], ["--bits-per-weight", 6]],
)
def test_only_widths_of_the_format_are_chosen(
    llama: Path, tmp_path: Path, kind: str, options: list[str], chosen: list[object]
) -> None:
    source = source_for(llama, kind)
    succeeded("quantize", source, tmp_path / "out", "--to", kind, *options, *chosen)
