"""Commands on models whose codes lack a scale, or have one that is none: one line, no work."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import ml_dtypes
import numpy as np
import pytest
from commands import failed, run
from quantized_models import folder, save

from cli.outputs import names_in

E4M3 = ml_dtypes.float8_e4m3fn
UP = "model.layers.{}.mlp.up_proj.weight"
SCALE = f"{UP.format(1)}_scale_inv"


@pytest.mark.parametrize(
    ("scale", "problem"),
    [
        (None, "is missing"),
        (-0.01, "has -0.01 at index 1, which is no scale"),
        (np.nan, "has NaN at index 1, which is no scale"),
    ],
)
def test_every_command_says_it_in_one_line(
    tmp_path: Path, scale: float | None, problem: str
) -> None:
    tensors: dict[str, np.ndarray] = {}
    for number in range(4):
        name = UP.format(number)
        tensors[name] = np.ones((64, 256), ml_dtypes.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = np.float32([[0.01, 0.02]])
    if scale is None:
        del tensors[SCALE]
    else:
        tensors[SCALE] = np.float32([[0.01, scale]])
    said = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    model = folder(tmp_path / "m", tensors, quantization_config=said, dtype="bfloat16")
    out = tmp_path / "out"
    for command in (
        ["quantize", model, out, "--to", "mlx", "--dry-run"],
        ["quantize", model, out, "--to", "mlx"],
        ["quantize", model, out, "--to", "gguf", "--tensors-only"],
        ["quantize", model / "model.safetensors", tmp_path / "out.parquet"],
        ["dequantize", model, tmp_path / "out.safetensors"],
        ["compare", model, model],
        ["report", model, "--original", model, "--html", tmp_path / "out.html"],
    ):
        error = failed(*command)
        assert len(error.splitlines()) == 1, error
        assert f"m/model.safetensors: '{UP.format(1)}' is quantized already" in error
        assert f"'{SCALE}' {problem}. Fetch the files again" in error
        assert names_in(tmp_path) == ["m"]
    inspected = run("inspect", model, "--json")
    assert inspected.exit_code == 1
    assert f"'{SCALE}' {problem}. Fetch the files again" in inspected.stderr
    assert len(inspected.stderr.splitlines()) == 1
    listed = json.loads(inspected.stdout)["layers"]
    problems = {layer["layer_name"]: layer.get("problem") for layer in listed}
    assert problems[UP.format(0)] is None
    assert problems[UP.format(1)] == f"'{SCALE}' {problem}"


def test_a_config_that_contradicts_the_tensors(tmp_path: Path) -> None:
    tensors: dict[str, np.ndarray] = {}
    for number in range(4):
        name = UP.format(number)
        tensors[f"{name}_packed"] = np.ones((64, 32), np.int32)
        tensors[f"{name}_scale"] = np.ones((64, 2), np.float32)
        tensors[f"{name}_shape"] = np.int64([64, 256])
    weights = {"num_bits": 8, "type": "int", "group_size": 128}
    groups = {"group_0": {"weights": weights, "targets": ["Linear"]}}
    said = {"quant_method": "compressed-tensors", "config_groups": groups}
    model = folder(tmp_path / "m", tensors, quantization_config=said, dtype="bfloat16")
    for command in (
        ["quantize", model, tmp_path / "out", "--to", "mlx", "--dry-run"],
        ["quantize", model, tmp_path / "out", "--to", "compressed-tensors"],
        ["dequantize", model, tmp_path / "out"],
        ["dequantize", model, tmp_path / "out.gguf"],
        ["compare", model, model],
        ["inspect", model],
    ):
        result = run(*command)
        assert result.exit_code == 1, result.output
        assert len(result.stderr.splitlines()) == 1
        assert f"{model}/model.safetensors: '{UP.format(0)}_packed'" in result.stderr
        assert (
            "has codes of 4 bits (4-bit compressed-tensors), and config.json says num_bits 8"
            in (result.stderr)
        )
        assert names_in(tmp_path) == ["m"]


def one_layer_of_gptq(place: Path) -> Path:
    tensors: dict[str, np.ndarray] = {"other.qweight": np.ones((4, 8), np.int32)}
    tensors |= {"up.weight": np.ones((64, 256), E4M3), "up.weight_scale": np.float32([2])}
    return save(place, tensors)


@pytest.mark.parametrize("name", ["out.safetensors", "out.parquet", "out.arrow"])
def test_layers_that_are_not_decoded_are_an_error_or_told(tmp_path: Path, name: str) -> None:
    source, out = one_layer_of_gptq(tmp_path / "m.safetensors"), tmp_path / name
    error = failed("dequantize", source, out)
    assert f"'{source}': other.qweight cannot be decoded: codes of GPTQ or AWQ" in error
    assert "--continue-on-error leaves such out" in error
    assert names_in(tmp_path) == ["m.safetensors"]
    result = run("dequantize", source, out, "--continue-on-error")
    assert result.exit_code == 0
    assert result.stderr == "Left out: other.qweight, codes of GPTQ or AWQ are not decoded\n"
    assert "1 layer to" in result.stdout


@pytest.mark.parametrize("name", ["out.safetensors", "out.parquet"])
def test_misfit_shapes_of_a_layer_are_an_error_or_told(tmp_path: Path, name: str) -> None:
    tensors: dict[str, np.ndarray] = {}
    for layer in ("a", "b", "c"):
        tensors[f"{layer}.weight"] = np.ones((64, 256), E4M3)
        tensors[f"{layer}.weight_scale"] = np.ones((64, 1), np.float32)
    tensors["b.weight_scale"] = np.ones((63, 1), np.float32)
    source, out = save(tmp_path / "m.safetensors", tensors), tmp_path / name
    problem = "'b.weight_scale' has dtype F32 and shape [63, 1], and must be scales of 'b.weight'"
    for command in (["dequantize", source, out], ["quantize", source, tmp_path / "q.parquet"]):
        assert problem in failed(*command)
    assert names_in(tmp_path) == ["m.safetensors"]
    result = run("dequantize", source, out, "--continue-on-error")
    assert result.exit_code == 0
    assert f"Left out: b.weight, {problem}" in result.stderr
    assert "2 layers to" in result.stdout


@pytest.mark.parametrize("name", ["out", "out.gguf"])
def test_a_model_is_not_left_in_part(tmp_path: Path, name: str) -> None:
    source = folder(tmp_path / "m", {"up.weight": np.ones((64, 256), E4M3)})
    error = failed("dequantize", source, tmp_path / name, "--continue-on-error", code=2)
    assert "would be no whole model" in error


@pytest.mark.parametrize("name", ["out", "out.safetensors", "out.parquet"])
def test_codes_that_are_no_numbers(tmp_path: Path, name: str) -> None:
    codes = np.ones((64, 256), E4M3)
    codes.view(np.uint8)[3, 7] = 0x7F
    source = folder(tmp_path / "m", {UP.format(0): codes}, dtype="bfloat16")
    at = f"{source}/model.safetensors: '{UP.format(0)}' has NaN at index 775, which is no weight"
    assert at in failed("dequantize", source, tmp_path / name)
    assert names_in(tmp_path) == ["m"]
    result = run("quantize", source, tmp_path / "out.onnx", "--tensors-only")
    assert result.exit_code == 1
    layer = f"Layer '{UP.format(0)}' contains NaN or Inf at index 775"
    assert f"Error: {source}/model.safetensors: {layer}" in result.stderr


def test_scales_of_blocks_of_gguf_that_are_no_numbers(tmp_path: Path) -> None:
    weights = np.ones((2, 256), np.float32)
    blocks = gguf.quants.quantize(weights, gguf.GGMLQuantizationType.Q8_0)
    blocks[1, :2] = np.frombuffer(np.float16(np.nan).tobytes(), np.uint8)
    source = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(source, "llama")
    writer.add_tensor("up.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for out in ("out.safetensors", "out.gguf"):
        error = failed("dequantize", source, tmp_path / out)
        assert f"{source}: 'up.weight' has NaN at index 256, which is no weight" in error
    result = run("quantize", source, tmp_path / "out.parquet")
    assert f"{source}: Layer 'up.weight' contains NaN or Inf at index 256" in result.stderr
