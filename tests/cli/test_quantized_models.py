"""Commands on models that are quantized, of every format."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import hf_folders
import ml_dtypes
import numpy as np
import pytest
from commands import failed, run, succeeded
from mixture_models import DEEPSEEK, deepseek
from models import source_for
from quantized_models import folder, read, save
from safetensors.numpy import load_file, save_file

from cli.report.pages import Page
from pyarrowquant import convert

UP, NORM = "model.layers.0.mlp.up_proj.weight", "model.norm.weight"
FORMATS = ["parquet", "arrow", "compressed-tensors", "mlx", "gguf", "onnx"]


@pytest.fixture
def original(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    path = tmp_path / "model"
    path.mkdir()
    weights = {UP: rng.standard_normal((64, 256), np.float32), NORM: np.ones(256, np.float32)}
    save_file(weights, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"model_type": "llama", "dtype": "float32"}))
    return path


def quantized(original: Path, to: str) -> Path:
    place = original.parent / (to if to in FORMATS[2:4] else f"quantized.{to}")
    convert(source_for(original, to), place, to=to)
    return place


def saved_gguf(path: Path, type_name: str | None, weights: np.ndarray) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    if type_name is None:
        writer.add_tensor("blk.0.up.weight", weights.astype(np.float16))
    else:
        type_ = gguf.GGMLQuantizationType[type_name]
        blocks = gguf.quants.quantize(weights, type_)
        writer.add_tensor("blk.0.up.weight", blocks, raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("to", FORMATS)
def test_all_formats_are_compared(original: Path, to: str) -> None:
    place = quantized(original, to)
    shown = json.loads(succeeded("compare", original, place, "--json", "--allow-missing"))
    layers = {layer["layer_name"]: layer["relative_error"] for layer in shown["layers"]}
    assert 0.05 < layers[UP] < 0.1
    assert set(layers) <= {UP, NORM}
    assert shown["totals"]["missing"] == sorted({UP, NORM} - set(layers))


@pytest.mark.parametrize("to", FORMATS)
def test_all_formats_are_originals_too(original: Path, to: str) -> None:
    place = quantized(original, to)
    shown = json.loads(succeeded("compare", place, place, "--json"))
    assert {layer["relative_error"] for layer in shown["layers"]} == {0}
    assert UP in {layer["layer_name"] for layer in shown["layers"]}


@pytest.mark.parametrize("to", FORMATS)
def test_all_formats_are_decoded_and_listed(original: Path, to: str, tmp_path: Path) -> None:
    place = quantized(original, to)
    expected = read(place)
    for name in ("out.safetensors", "out.parquet", "out.arrow"):
        succeeded("dequantize", place, tmp_path / name)
        decoded = read(tmp_path / name)
        assert decoded.keys() == expected.keys()
        assert np.array_equal(decoded[UP], expected[UP])
    succeeded("dequantize", place, tmp_path / "half.safetensors", "--dtype", "float16")
    assert np.array_equal(
        load_file(tmp_path / "half.safetensors")[UP], expected[UP].astype(np.float16)
    )
    listed = json.loads(succeeded("inspect", place, "--json"))
    shapes = {layer["layer_name"]: layer["shape"] for layer in listed["layers"]}
    assert shapes[UP] == [64, 256]
    assert set(shapes) == expected.keys()
    assert listed["bytes"] < 64 * 256


@pytest.mark.parametrize(("type_name", "error"), [("Q4_0", 0.086), ("Q8_0", 0.0054)])
def test_gguf_of_llama_cpp(tmp_path: Path, type_name: str, error: float) -> None:
    weights = np.random.default_rng(2).standard_normal((64, 256), np.float32)
    exact = saved_gguf(tmp_path / "f16.gguf", None, weights)
    coded = saved_gguf(tmp_path / "coded.gguf", type_name, weights)
    (layer,) = json.loads(succeeded("compare", exact, coded, "--json"))["layers"]
    assert layer["relative_error"] == pytest.approx(error, rel=0.05)
    assert type_name in succeeded("inspect", coded)


@pytest.mark.parametrize("to", FORMATS)
def test_all_formats_are_reported(original: Path, to: str, tmp_path: Path) -> None:
    place, page = quantized(original, to), tmp_path / "report.html"
    succeeded("report", place, "--html", page, "--original", original)
    data = Page(page).data
    layers = {layer["layer_name"]: layer for layer in data["layers"]}
    assert set(layers) == {UP}
    assert 0.05 < layers[UP]["relative_error"] < 0.1
    assert 4 <= layers[UP]["bits_per_weight"] <= 5
    assert data["original_bytes"] == (original / "model.safetensors").stat().st_size
    assert data["file_bytes"] < data["original_bytes"]
    ticks = Page(page).charts["overview"]["layout"]["xaxis2"]["ticktext"]
    assert [tick.split("\u2026")[0] for tick in ticks] == [UP[:14]]


def test_a_model_needs_the_original_for_a_report(original: Path, tmp_path: Path) -> None:
    error = failed("report", quantized(original, "gguf"), "--html", tmp_path / "report.html")
    assert "has no errors of its layers" in error
    assert "--original" in error


def test_what_one_side_lacks_is_a_failure(tmp_path: Path) -> None:
    ones = np.ones((2, 32), np.float32)
    save_file({"a": ones, "b": ones}, tmp_path / "1.safetensors")
    save_file({"a": ones, "c": ones}, tmp_path / "2.safetensors")
    result = run("compare", tmp_path / "1.safetensors", tmp_path / "2.safetensors")
    assert result.exit_code == 1
    assert "2.safetensors': b\n" in result.stdout
    assert "1.safetensors': c\n" in result.stdout
    assert "1 layer, 64 weights, relative error 0.00000" in result.stdout
    options = [tmp_path / "1.safetensors", tmp_path / "2.safetensors", "--json"]
    assert run("compare", *options).exit_code == 1
    totals = json.loads(succeeded("compare", *options, "--allow-missing"))["totals"]
    assert (totals["missing"], totals["added"]) == (["b"], ["c"])
    save_file({"d": ones}, tmp_path / "3.safetensors")
    options = [tmp_path / "1.safetensors", tmp_path / "3.safetensors", "--allow-missing"]
    result = run("compare", *options)
    assert result.exit_code == 1
    assert "have no layer in common" in result.stderr


def test_what_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    tensors = {
        "a.weight": np.ones((64, 64), np.float32),
        "b.qweight": np.ones((8, 32), np.int32),
        "b.scales": np.ones((1, 32), np.float16),
    }
    save_file(tensors, tmp_path / "m.safetensors")
    result = run("compare", tmp_path / "m.safetensors", tmp_path / "m.safetensors")
    assert result.exit_code == 1
    assert "Not compared: b.qweight, codes of GPTQ or AWQ are not decoded\n" in result.stdout
    assert "Not decoded: b.qweight, codes of GPTQ" in succeeded(
        "inspect", tmp_path / "m.safetensors"
    )
    done = convert(tmp_path / "m.safetensors", tmp_path / "out.parquet")
    reasons = {tensor.name: tensor.reason for tensor in done.unquantized}
    assert reasons["b.qweight"] == "of dtype I32: codes of GPTQ or AWQ are not decoded"
    assert done.layers == 1


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.filterwarnings("ignore:Quantized already")
def test_fp8_is_quantized_to_all_formats(tmp_path: Path, to: str) -> None:
    rng = np.random.default_rng(3)
    names = [f"model.layers.{n}.mlp.up_proj.weight" for n in range(3)]
    tensors: dict[str, np.ndarray] = {NORM: np.ones(256, ml_dtypes.bfloat16)}
    for name in names:
        tensors[name] = rng.standard_normal((64, 256)).astype(ml_dtypes.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = np.float32([[0.01, 0.02]])
    said = {"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"}
    model = folder(tmp_path / "m", tensors, quantization_config=said, dtype="bfloat16")
    out = tmp_path / ("out" if to in FORMATS[2:4] else f"out.{to}")
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"rules": [{"match": names[2], "skip": True}]}))
    options = ["--tensors-only"] if to in ("gguf", "onnx") else []
    shown = succeeded("quantize", model, out, "--to", to, "--recipe", recipe, *options)
    assert "Decoded from F8_E4M3 (2 layers)\n" in shown
    found = read(out)
    for name in names[:2]:
        exact = tensors[name].astype(np.float32) * np.repeat(np.float32([0.01, 0.02]), 128)
        assert np.linalg.norm(found[name] - exact) < 0.1 * np.linalg.norm(exact)
    if to not in ("parquet", "arrow", "onnx"):  # decoded, and kept
        exact = tensors[names[2]].astype(np.float32) * np.repeat(np.float32([0.01, 0.02]), 128)
        assert np.allclose(found[names[2]].astype(np.float32), exact, rtol=2**-8)
        assert set(found) == {*names, NORM}
    if to == "compressed-tensors":
        config = json.loads((out / "config.json").read_text())
        assert config["quantization_config"]["quant_method"] == "compressed-tensors"
        assert found[names[2]].dtype == ml_dtypes.bfloat16
    if to == "mlx":
        config = json.loads((out / "config.json").read_text())
        assert config["quantization_config"] == config["quantization"]


def test_a_folder_that_contradicts_its_config_is_refused(tmp_path: Path) -> None:
    """As the file of its weights by itself, it is read by what its tensors say."""
    tensors = {
        "blocks.0.up.weight": np.ones((128, 128), ml_dtypes.float8_e4m3fn),
        "blocks.0.up.weight_scale_inv": np.float32([[0.01]]),
        "blocks.0.down.weight": np.ones((128, 128), np.float16),
    }
    model = folder(tmp_path / "m", tensors, quantization_config={"quant_method": "fp8"})
    error = failed("quantize", model, tmp_path / "out.parquet")
    assert "contradicts itself: its config.json has quantization_config, but 1 matrices" in error
    succeeded("quantize", model / "model.safetensors", tmp_path / "out.parquet")
    spared = {"quant_method": "fp8", "modules_to_not_convert": ["blocks.0.down"]}
    model = folder(tmp_path / "n", tensors, quantization_config=spared)
    succeeded("quantize", model, tmp_path / "2.parquet")


def test_what_a_config_does_not_spare_by_name(tmp_path: Path) -> None:
    """Experts stay float for bitsandbytes, and whatever a recipe leaves out for MLX."""
    said = {**DEEPSEEK, "model_type": "deepseek_v3", "dtype": "float32", "n_routed_experts": 32}
    experts = {
        f"model.layers.1.mlp.experts.{number}.{name}_proj.weight": array
        for name, shape in {"gate": (96, 256), "up": (96, 256), "down": (256, 96)}.items()
        for number in range(32)
        for array in [np.random.default_rng(number).standard_normal(shape, np.float32)]
    }
    router = {"model.layers.1.mlp.gate.weight": np.ones((32, 256), np.float32)}
    bias = {"model.layers.1.mlp.gate.e_score_correction_bias": np.zeros(32, np.float32)}
    model = hf_folders.write(tmp_path / "model", deepseek() | experts | router | bias, **said)
    recipe = tmp_path / "r.json"
    recipe.write_text('{"rules": [{"match": "*mlp*", "skip": true}]}')
    for to, *options in (["bitsandbytes"], ["mlx", "--recipe", recipe]):
        first, second = tmp_path / to, tmp_path / f"{to}-again"
        succeeded("quantize", model, first, "--to", to, *options)
        shown = succeeded("quantize", first, second, "--to", "compressed-tensors")
        assert "Decoded from" in shown
        assert "experts" not in shown


def test_mxfp8_is_called_so(tmp_path: Path) -> None:
    codes = np.ones((4, 64), ml_dtypes.float8_e4m3fn)
    exponents = np.full((4, 2), 127, np.uint8)
    tensors = {"a.weight": codes, "a.weight_scale": exponents, "b.weight": codes}
    source = save(tmp_path / "m.safetensors", tensors)
    listed = json.loads(succeeded("inspect", source, "--json"))["layers"]
    found = {layer["layer_name"]: layer["dtype"] for layer in listed}
    assert found == {"a.weight": "MXFP8", "b.weight": "F8_E4M3"}
