"""Scales, shapes and the like of layers whose codes are not there."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import hf_folders
import ml_dtypes
import numpy as np
import pytest
from commands import failed, run
from mixture_models import GPT_OSS, gpt_oss
from quantized_models import E2M1, assert_same, pairs, read, save
from safetensors import safe_open

from pyarrowquant import convert

UP = "model.layers.1.mlp.up_proj"
# How each becomes, and what its codes are called.
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "W4A16": ({"to": "compressed-tensors", "recipe": "W4A16"}, f"{UP}.weight_packed"),
    "W4A16_ASYM": ({"to": "compressed-tensors", "recipe": "W4A16_ASYM"}, f"{UP}.weight_packed"),
    "W8A8": ({"to": "compressed-tensors", "recipe": "W8A8"}, f"{UP}.weight"),
    "FP8_DYNAMIC": ({"to": "compressed-tensors", "recipe": "FP8_DYNAMIC"}, f"{UP}.weight"),
    "MXFP8A16": ({"to": "compressed-tensors", "recipe": "MXFP8A16"}, f"{UP}.weight"),
    "MXFP4A16": ({"to": "compressed-tensors", "recipe": "MXFP4A16"}, f"{UP}.weight_packed"),
    "NVFP4A16": ({"to": "compressed-tensors", "recipe": "NVFP4A16"}, f"{UP}.weight_packed"),
    "nf4": ({"to": "bitsandbytes"}, f"{UP}.weight"),
    "double": ({"to": "bitsandbytes", "double": True}, f"{UP}.weight"),
    "mlx": ({"to": "mlx"}, f"{UP}.weight"),
    "mlx, mxfp4": ({"to": "mlx", "encoding": "mxfp4"}, f"{UP}.weight"),
    "mlx, nvfp4": ({"to": "mlx", "encoding": "nvfp4"}, f"{UP}.weight"),
}


def changed(path: Path, name: str, entry: tuple[str, list[int], bytes] | None) -> None:
    """Replace a tensor of a file, or leave it out."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    found: dict[str, tuple[str, list[int], bytes]] = {}
    for each, said in header.items():
        begin, end = (8 + size + offset for offset in said["data_offsets"])
        found[each] = said["dtype"], said["shape"], data[begin:end]
    assert name in found
    del found[name]
    if entry is not None:
        found[name] = entry
    new: dict[str, Any] = {"__metadata__": metadata}
    position = 0
    for each, (dtype, shape, content) in found.items():
        offsets = [position, position + len(content)]
        new[each] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        position += len(content)
    text = json.dumps(new).encode()
    contents = [content for _, _, content in found.values()]
    path.write_bytes(b"".join([struct.pack("<Q", len(text)), text, *contents]))


def refused(tmp_path: Path, folder: Path) -> list[str]:
    """Have commands refuse a folder; return their lines."""
    out = tmp_path / "refused"
    told = [
        failed("quantize", folder, out, "--to", to, *more)
        for to in ("compressed-tensors", "mlx", "parquet")
        for more in ([], ["--dry-run"])
    ]
    told.append(failed("dequantize", folder, out))
    shown = run("inspect", folder)
    assert shown.exit_code == 1
    assert not out.exists()
    return [*told, shown.stderr]


@pytest.mark.parametrize("kind", KINDS)
def test_codes_that_are_not_there(tmp_path: Path, kind: str) -> None:
    options, codes = KINDS[kind]
    convert(hf_folders.write(tmp_path / "model"), tmp_path / "coded", **options)
    file = tmp_path / "coded/model.safetensors"
    changed(file, codes, None)
    for line in refused(tmp_path, tmp_path / "coded"):
        assert line.startswith(f"Error: {file}: '{UP}.")
        assert f"'{UP}.weight' is missing" in line
        assert line.count("\n") == 1


def test_scales_of_gpt_oss(tmp_path: Path) -> None:
    said = {"model_type": "gpt_oss", "dtype": "bfloat16", **GPT_OSS}
    model = hf_folders.write(tmp_path / "model", gpt_oss(coded=True), **said)
    experts = "model.layers.1.mlp.experts.down_proj"
    changed(model / "model.safetensors", f"{experts}_blocks", None)
    for line in refused(tmp_path, model):
        assert f"model.safetensors: '{experts}_scales' is quantized already" in line
        assert f"'{experts}_blocks' is missing" in line


@pytest.mark.parametrize(
    ("end", "dtype", "size"),
    [
        *(("blocks", "F32", 4), ("blocks", "BF16", 2), ("blocks", "I64", 8)),
        *(("scales", "F32", 4), ("scales", "BF16", 2), ("scales", "I32", 4)),
        ("scales", "F8_E4M3", 1),
    ],
)
def test_parts_of_gpt_oss_of_other_dtypes(tmp_path: Path, end: str, dtype: str, size: int) -> None:
    said = {"model_type": "gpt_oss", "dtype": "bfloat16", **GPT_OSS}
    model = hf_folders.write(tmp_path / "model", gpt_oss(coded=True), **said)
    file, name = model / "model.safetensors", f"model.layers.1.mlp.experts.down_proj_{end}"
    with safe_open(file, "np") as tensors:
        shape = tensors.get_slice(name).get_shape()
    changed(file, name, (dtype, shape, bytes(size * int(np.prod(shape)))))
    for line in refused(tmp_path, model):
        assert f"'{name}' has dtype {dtype} and shape {shape}, and must be U8" in line
        assert line.count("\n") == 1


@pytest.mark.parametrize("dtype", ["I64", "F32"])
def test_packed_codes_of_another_dtype(tmp_path: Path, dtype: str) -> None:
    convert(hf_folders.write(tmp_path / "model"), tmp_path / "coded", to="compressed-tensors")
    file = tmp_path / "coded/model.safetensors"
    content = np.zeros((512, 32), np.int64 if dtype == "I64" else np.float32).tobytes()
    changed(file, f"{UP}.weight_packed", (dtype, [512, 32], content))
    for line in refused(tmp_path, tmp_path / "coded"):
        assert f"{file}: '{UP}.weight_packed' is quantized already" in line
        assert f"dtype {dtype} and shape [512, 32], and must be a matrix of I32 or U8" in line


def test_models_of_floats_may_have_such_names(tmp_path: Path) -> None:
    """Scales that a model learns, without codes and without a word of config.json."""
    tensors = hf_folders.llama() | {
        f"{UP}.other.weight_scale": np.ones(1, np.float32),
        f"{UP}.other.scales": np.ones(1, np.float32),
        f"{UP}.other.biases": np.ones(1, np.float32),
    }
    convert(hf_folders.write(tmp_path / "model", tensors), tmp_path / "out", to="mlx")


@pytest.mark.parametrize("shape", [(2,), (3, 1)])
def test_global_scales_of_another_number(tmp_path: Path, shape: tuple[int, ...]) -> None:
    recipe = "NVFP4A16"
    model = hf_folders.write(tmp_path / "model")
    convert(model, tmp_path / "coded", to="compressed-tensors", recipe=recipe)
    file, name = tmp_path / "coded/model.safetensors", f"{UP}.weight_global_scale"
    content = np.ones(shape, np.float32).tobytes()
    changed(file, name, ("F32", list(shape), content))
    for line in refused(tmp_path, tmp_path / "coded"):
        assert f"'{name}' has dtype F32 and shape {list(shape)}, and must be one number" in line


@pytest.mark.parametrize("shape", [(1,), (3,), (3, 1, 1)])
def test_global_scales_of_stacks(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """One of all, or one for each matrix."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 16, (3, 4, 32), np.uint8)
    scales = random.integers(1, 9, (3, 4, 2)).astype(ml_dtypes.float8_e4m3fn)
    divisors = random.integers(1, 5, shape).astype(np.float32)
    name = "experts.up_proj.weight"
    path = save(
        tmp_path / "a.safetensors",
        {
            f"{name}_packed": pairs(codes),
            f"{name}_scale": scales,
            f"{name}_global_scale": divisors,
        },
    )
    of_groups = scales.astype(np.float32) / divisors.reshape(-1, 1, 1)
    assert_same(read(path)[name], E2M1[codes] * np.repeat(of_groups, 16, axis=-1))


@pytest.mark.parametrize("end", ["scale_weight", "qscale_weight"])
def test_scales_beside_fp8_that_is_not_there(tmp_path: Path, end: str) -> None:
    codes = np.ones((64, 64), ml_dtypes.float8_e4m3fn)
    tensors = {"a.weight": codes, f"a.{end}": np.float32(1), f"b.{end}": np.float32(1)}
    place = save(tmp_path / "m.safetensors", {key: np.asarray(a) for key, a in tensors.items()})
    error = failed("quantize", place, tmp_path / "out.parquet")
    assert f"m.safetensors: 'b.{end}' is quantized already, and cannot be decoded" in error
    assert "'b.weight' is missing" in error
    plain = {"a.weight": np.ones((64, 64), np.float32), f"b.{end}": np.ones(1, np.float32)}
    place = save(tmp_path / "plain.safetensors", plain)
    assert run("quantize", place, tmp_path / "out.parquet").exit_code == 0


def as_floats(codes: tuple[int, ...], dtype: str) -> tuple[str, list[int], bytes]:
    size = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8, "I64": 8}[dtype]
    return dtype, list(codes), bytes(size * int(np.prod(codes)))


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
@pytest.mark.parametrize("kind", ["W8A8", "FP8_DYNAMIC", "MXFP8A16", "mlx", "mlx, mxfp4"])
def test_floats_in_place_of_codes(tmp_path: Path, kind: str, dtype: str) -> None:
    options, codes = KINDS[kind]
    convert(hf_folders.write(tmp_path / "model"), tmp_path / "coded", **options)
    file = tmp_path / "coded/model.safetensors"
    shape = (512, 32) if "mlx" in kind else (512, 256)
    changed(file, codes, as_floats(shape, dtype))
    for line in refused(tmp_path, tmp_path / "coded"):
        assert line.startswith(f"Error: {file}: '{codes}' ")
        assert f"has dtype {dtype}" in line
        assert f"'{UP}.{'scales' if 'mlx' in kind else 'weight_scale'}' is " in line
        assert line.count("\n") == 1


@pytest.mark.parametrize("dtype", ["F64", "I64"])
def test_numbers_that_are_no_codes(tmp_path: Path, dtype: str) -> None:
    options, codes = KINDS["FP8_DYNAMIC"]
    convert(hf_folders.write(tmp_path / "model"), tmp_path / "coded", **options)
    changed(tmp_path / "coded/model.safetensors", codes, as_floats((512, 256), dtype))
    for command in (["dequantize"], ["quantize", "--to", "mlx"]):
        error = failed(*command, tmp_path / "coded", tmp_path / "out")
        assert f"{dtype} with '{codes}_scale' is not decoded" in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "said", [{"quantization_status": "frozen"}, {"format": "dense"}, {"quant_method": "other"}]
)
def test_floats_beside_scales_that_config_json_knows_of(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    """Weights that are rounded, but not coded, are those of the model."""
    convert(hf_folders.write(tmp_path / "model"), tmp_path / "coded", **KINDS["FP8_DYNAMIC"][0])
    changed(tmp_path / "coded/model.safetensors", f"{UP}.weight", as_floats((512, 256), "F32"))
    config = json.loads((tmp_path / "coded/config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        **said,
    }
    (tmp_path / "coded/config.json").write_text(json.dumps(config))
    assert not read(tmp_path / "coded")[f"{UP}.weight"].any()
