"""Sources that are read in other ways than usual, or are none: errors say what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import onnx
import onnx_models
import pytest
from commands import failed, run
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from fsspec.registry import _registry
from safetensors.numpy import save, save_file

from pyarrowquant import convert, read_weights

UP = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_checkpoints_of_pytorch(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    for source in (tmp_path, tmp_path / name):
        said = failed("quantize", source, tmp_path / "out.parquet")
        path = str(tmp_path / name)  # so that the lines run in any folder
        assert f"'{path}' is a checkpoint of PyTorch, a pickle, which is not read" in said
        first, second = said.splitlines()[-2:]
        assert first == "import torch; from safetensors.torch import save_file"
        assert f"torch.load('{path}', map_location='cpu', weights_only=True)" in second
        assert f"'{tmp_path / Path(name).stem}.safetensors')" in second
        compile(f"{first}\n{second}", "lines", "exec")


def test_shards_of_pytorch(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"pytorch_model-0000{number}-of-00002.bin").write_bytes(b"PK")
    with pytest.raises(ValueError, match="with Python, so each of 2 files") as caught:
        read_weights(tmp_path)
    assert f"'{tmp_path}/pytorch_model-00001-of-00002.safetensors'" in str(caught.value)


def test_other_weights(tmp_path: Path) -> None:
    (tmp_path / "tf_model.h5").write_bytes(b"\x89HDF")
    with pytest.raises(ValueError, match=r"tf_model.h5' is a file of HDF5") as caught:
        read_weights(tmp_path)
    compile("\n".join(str(caught.value).splitlines()[-2:]), "lines", "exec")
    (tmp_path / "tf_model.h5").rename(tmp_path / "m.tflite")
    with pytest.raises(ValueError, match=r"m.tflite' is a model of TensorFlow Lite"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["m.gguf", "m.onnx", "m.npz"])
def test_folders_of_other_files_name_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    said = failed("quantize", tmp_path, tmp_path / "out.parquet")
    assert said == (
        f"Error: {tmp_path} has no safetensors. Give the path of another file: '{name}'\n"
    )


def test_pipelines_have_models_in_folders(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    save_file({"a.weight": np.ones((4, 64), np.float32)}, tmp_path / "unet" / "a.safetensors")
    error = failed("quantize", tmp_path, tmp_path.with_name("out.parquet"))
    assert "is a pipeline of diffusers" in error
    assert "such as 'transformer' or 'unet'" in error


def test_a_configuration_may_begin_with_a_mark_of_byte_order(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    save_file({"a.weight": np.ones((8, 64), np.float32)}, model / "model.safetensors")
    (model / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8-sig")
    out = tmp_path / "out"
    assert run("quantize", model, out, "--to", "compressed-tensors").exit_code == 0
    assert json.loads((out / "config.json").read_text())["model_type"] == "llama"


def test_arrays_of_numpy(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", UP)
    said = failed("quantize", tmp_path / "m.npy", tmp_path / "out.parquet")
    assert f"'{tmp_path}/m.npy' is an array of numpy without a name. Convert it" in said
    exec("\n".join(said.splitlines()[-2:]), {})
    (batch,) = read_weights(tmp_path / "m.safetensors")
    assert batch["layer_name"].to_pylist() == ["weight"]


def test_folders_of_tables(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", up=UP)
    convert(tmp_path / "m.npz", tmp_path / "tables", to="parquet")
    said = failed("quantize", tmp_path / "tables", tmp_path / "out.gguf")
    assert "tables is quantized already: it has results of pyarrowquant" in said
    assert "pyarrowquant dequantize" in said


@pytest.mark.parametrize("part", ["text_config", "language_config", None])
@pytest.mark.parametrize("key", ["quantization_config", "compression_config", "quantization"])
@pytest.mark.parametrize("to", ["parquet", "mlx"])
def test_configurations_that_say_so(tmp_path: Path, part: str | None, key: str, to: str) -> None:
    """Codes that nobody decodes are refused; where none are there, the key was left over."""
    model, out = tmp_path / "m", tmp_path / "out"
    model.mkdir()
    save_file({"up.weight": UP, "down.qweight": np.ones((8, 8), np.int32)}, model / "a.safetensors")
    said = {key: {"quant_method": "gptq"}}
    config = said if part is None else {part: {"heads": 2, **said}}
    (model / "config.json").write_text(
        json.dumps({"model_type": "llama", "dtype": "float32", **config})
    )
    error = failed("quantize", model, out, "--to", to)
    where = key if part is None else f"{part}.{key}"
    assert f"is quantized already: its config.json has {where} ('gptq')" in error
    save_file({"up.weight": UP}, model / "a.safetensors")
    result = run("quantize", model, out, "--to", to)
    assert result.exit_code == 0, result.output
    assert f"'{model}/config.json' has {where}, and none of the weights are quantized: it is" in (
        result.stderr
    )
    if to == "mlx":
        written = json.loads((out / "config.json").read_text())
        assert "gptq" not in json.dumps(written)
        assert part is None or written[part] == {"heads": 2}


@pytest.mark.parametrize("scale", ["up.SCB", "up.scales", "up.weight.scale"])
def test_int8_weights_with_scales_that_are_not_decoded(tmp_path: Path, scale: str) -> None:
    tensors = {"up.weight": UP.astype(np.int8), scale: np.ones(64, np.float32), "bias": UP[0]}
    save_file(tensors, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="is quantized already: of its 1 matrices 1 of I8"):
        read_weights(tmp_path / "m.safetensors")
    with_ids = {"up.weight": UP, "ids": UP.astype(np.int8)}
    save_file(with_ids, tmp_path / "n.safetensors")
    assert read_weights(tmp_path / "n.safetensors").read_all().num_rows == 1


@pytest.mark.parametrize("to", ["onnx", "parquet"])
def test_models_of_matmulnbits(tmp_path: Path, to: str) -> None:
    onnx.save(onnx_models.mlp().proto(), tmp_path / "m.onnx")
    convert(tmp_path / "m.onnx", tmp_path / "q.onnx")
    np.savez(tmp_path / "m.npz", up=UP)
    convert(tmp_path / "m.npz", tmp_path / "layers.onnx")
    for name in ("q.onnx", "layers.onnx"):
        said = failed("quantize", tmp_path / name, tmp_path / "out", "--to", to)
        assert "is quantized already: its layers are those of MatMulNBits" in said
        assert "Give the model with float weights, or decode it first" in said


def test_arrays_of_other_byte_orders(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "a": UP.astype(">f4"),
        "b": UP.astype(">f2"),
        "c": np.asfortranarray(UP.astype(">f8")),
        "ids": np.arange(5, dtype=">i4"),
    }
    np.savez(tmp_path / "m.npz", **arrays)
    table = read_weights(tmp_path / "m.npz").read_all()
    assert table["dtype"].to_pylist() == ["F32", "F16", "F32"]
    expected = [UP.astype("<f4"), UP.astype("<f2"), UP.astype("<f4")]
    assert table["weights"].to_pylist() == [array.tobytes() for array in expected]
    every = read_weights(tmp_path / "m.npz", only_floats=False).read_all()
    assert every["dtype"].to_pylist() == ["F32", "F16", "F64", "I32"]
    assert every["weights"][3].as_py() == np.arange(5, dtype="<i4").tobytes()


class Web(MemoryFileSystem):  # type: ignore[misc]
    """Keeps whole URLs as paths, as fsspec's filesystem of the web does."""

    protocol = "web"
    store: dict[str, Any] = {}  # noqa: RUF012, of the library

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path


def test_urls_may_have_a_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_registry, "web", Web)
    files = {
        "web://host/a/model.safetensors.index.json?x=1/2": json.dumps(
            {"weight_map": {"up": "model-1.safetensors"}}
        ).encode(),
        "web://host/a/model-1.safetensors?x=1/2": save({"up": UP}),
    }
    web = fsspec.filesystem("web")
    for path, data in files.items():
        web.store[path] = MemoryFile(web, path, data)
    for path in files:
        assert read_weights(path).read_all()["layer_name"].to_pylist() == ["up"]
