"""Files of several, and adapters, are no models that engines load alone."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import gguf_models
import numpy as np
import pytest
from commands import failed, run, succeeded
from safetensors.numpy import save_file

UP = np.ones((64, 256), np.float32)
ENGINES = ["compressed-tensors", "bitsandbytes", "mlx", "gguf"]
TABLES = ["parquet", "arrow", "onnx"]
SHARDS = ["model-00001-of-00003", "s-00001-of-00003", "diffusion_model_1-of-2"]


def shard(folder: Path, name: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    save_file({"up.weight": UP}, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


@pytest.mark.parametrize("to", ENGINES)
@pytest.mark.parametrize("name", SHARDS)
def test_a_shard_is_no_model_of_an_engine(tmp_path: Path, to: str, name: str) -> None:
    source = shard(tmp_path / "m", name)
    error = failed("quantize", source, tmp_path / "out", "--to", to)
    assert f"'{source}' is one of {name[-1]} files of a model. For the whole model give" in error
    assert f"its folder, '{tmp_path}/m" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_part_of_gguf_that_does_not_say_so_is_no_model(tmp_path: Path) -> None:
    source = tmp_path / "m-00001-of-00003.gguf"
    gguf_models.saved(source, {"blk.0.ffn_up.weight": UP})
    error = failed("quantize", source, tmp_path / "out.gguf")
    assert f"'{source}' is one of 3 files of a model. For the whole model write it as one" in error


@pytest.mark.parametrize("to", TABLES)
@pytest.mark.parametrize("name", SHARDS)
def test_a_shard_is_a_source_of_tables(tmp_path: Path, to: str, name: str) -> None:
    source = shard(tmp_path / "m", name)
    alone = ["--tensors-only"] if to == "onnx" else []
    result = run("quantize", source, tmp_path / f"out.{to}", *alone)
    assert result.exit_code == 0
    assert f"'{source}' is one of {name[-1]} files of a model" in result.stderr


@pytest.mark.parametrize("name", ["model-00001-of-00001", "model", "of-3", "1-of-x"])
def test_names_of_whole_models(tmp_path: Path, name: str) -> None:
    source = shard(tmp_path / "m", name)
    assert "one of" not in succeeded("quantize", source, tmp_path / "out.parquet")


def test_a_part_of_a_gguf_model_that_does_not_say_so(tmp_path: Path) -> None:
    """One that does needs the other parts."""
    source = tmp_path / "m-00002-of-00004.gguf"
    writer = gguf.GGUFWriter(source, "llama")
    writer.add_tensor("blk.0.ffn_up.weight", UP)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    error = failed("quantize", source, tmp_path / "out.gguf")
    assert f"'{source}' is one of 4 files of a model" in error
    succeeded("quantize", source, tmp_path / "out.parquet")


@pytest.mark.parametrize("is_folder", [True, False])
def test_adapters(tmp_path: Path, is_folder: bool) -> None:
    source = tmp_path / "lora"
    source.mkdir()
    save_file({"q_proj.lora_A.weight": UP}, source / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "base_model_name_or_path": "owner/base"}
    (source / "adapter_config.json").write_text(json.dumps(said))
    given = source if is_folder else source / "adapter_model.safetensors"
    error = failed("quantize", given, tmp_path / "out.gguf")
    assert f"'{given}' is an adapter of 'owner/base', and not a model. Merge them" in error
    assert f'AutoPeftModel.from_pretrained("{source}").merge_and_unload()' in error
    assert len(error.splitlines()) == 1
    assert run("quantize", given, tmp_path / "out.parquet").exit_code == 0
