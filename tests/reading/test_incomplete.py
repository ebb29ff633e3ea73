"""Sources of which a part is missing, or that have what belongs to no model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from child import run_child
from commands import failed, succeeded
from models import write_table
from safetensors.numpy import save_file

from pyarrowquant import convert, numpy_to_arrow_table, read_weights

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
UP = {"up.weight": np.ones((32, 128), np.float32)}
KINDS = ["safetensors", "gguf", "parquet", "arrow", "npz", "onnx"]


@pytest.mark.parametrize("kind", KINDS)
def test_pointers_of_git_lfs_are_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"model.{kind}"
    path.write_bytes(POINTER)
    text = re.escape(f"{path} is a pointer of git-lfs, not the file itself. Fetch it with: git lfs")
    with pytest.raises(ValueError, match=text):
        read_weights(path)
    for command in (["quantize", path, tmp_path / "out.parquet"], ["inspect", path]):
        assert "is a pointer of git-lfs" in failed(*command)


def test_pointers_within_a_model_are_named(tmp_path: Path) -> None:
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(POINTER)
    save_file(UP, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(ValueError, match=r"model-00002-of-00002\.safetensors is a pointer of git"):
        read_weights(tmp_path)


@pytest.mark.parametrize("missing", [1, 2, 3])
@pytest.mark.parametrize(
    "pattern",
    [
        "model-{:05d}-of-00003.safetensors",
        "diffusion_pytorch_model-{:05d}-of-00003.safetensors",
        "model.fp16-{:05d}-of-00003.safetensors",
        "consolidated.{}-of-3.safetensors",
    ],
)
def test_shards_whose_names_say_that_more_are_there(
    tmp_path: Path, pattern: str, missing: int
) -> None:
    names = [pattern.format(number) for number in (1, 2, 3)]
    for number, name in enumerate(names):
        save_file({f"layers.{number}.weight": UP["up.weight"]}, tmp_path / name)
    assert read_weights(tmp_path).read_all().num_rows == 3
    (tmp_path / names[missing - 1]).unlink()
    text = re.escape(f"{tmp_path}: the shard '{names[missing - 1]}' is missing")
    with pytest.raises(FileNotFoundError, match=text):
        read_weights(tmp_path)


def test_shards_that_are_links_to_nothing(tmp_path: Path) -> None:
    save_file(UP, tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").symlink_to(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*b\.safetensors"):
        read_weights(tmp_path)


def test_names_that_are_no_counts(tmp_path: Path) -> None:
    save_file(UP, tmp_path / "best-of-2024.safetensors")
    save_file({"down.weight": UP["up.weight"]}, tmp_path / "x2-of-3.safetensors")
    assert read_weights(tmp_path).read_all().num_rows == 2


@pytest.mark.parametrize("index", [True, False])
def test_companions_of_macos_are_no_files_of_a_model(tmp_path: Path, index: bool) -> None:
    name = "model-00001-of-00001.safetensors" if index else "unet.safetensors"
    save_file(UP, tmp_path / name)
    (tmp_path / f"._{name}").write_bytes(b"\0\5\26\7" + bytes(60))
    if index:
        said = {"metadata": {}, "weight_map": {"up.weight": name}}
        (tmp_path / "unet.safetensors.index.json").write_text(json.dumps(said))
        (tmp_path / "._unet.safetensors.index.json").write_bytes(b"\0\5\26\7")
    assert read_weights(tmp_path).read_all()["layer_name"].to_pylist() == ["up.weight"]


def test_companions_of_macos_are_no_results(tmp_path: Path) -> None:
    save_file(UP, tmp_path / "model.safetensors")
    convert(tmp_path / "model.safetensors", tmp_path / "tables", to="parquet")
    (tmp_path / "tables" / "._model.parquet").write_bytes(b"\0\5\26\7")
    assert "1 layer, " in succeeded("inspect", tmp_path / "tables")
    succeeded("dequantize", tmp_path / "tables", tmp_path / "back.safetensors")
    assert "relative error" in succeeded(
        "compare", tmp_path / "model.safetensors", tmp_path / "tables"
    )


@pytest.mark.parametrize("kind", ["safetensors", "npz", "parquet"])
def test_what_is_no_layer_is_not_quantized(tmp_path: Path, kind: str) -> None:
    mask = np.triu(np.full((8, 8), -np.inf, np.float32), 1)
    scale = np.ones((1, 8), np.float32)
    tensors = {**UP, "text.attn_mask": mask, "up.weight_scale_inv": scale, "q.k_scale": scale}
    path = tmp_path / f"model.{kind}"
    save: Any = {
        "safetensors": lambda: save_file(tensors, path),
        "npz": lambda: np.savez(path, **tensors),
        "parquet": lambda: write_table(numpy_to_arrow_table(tensors), path),
    }
    save[kind]()
    for recipe in (None, "text"):
        out = tmp_path / f"{recipe}.parquet"
        assert convert(path, out, recipe=recipe).layers == 1
        assert pq.read_table(out)["layer_name"].to_pylist() == ["up.weight"]


def test_what_gguf_cannot_keep_is_left_out_by_name(tmp_path: Path) -> None:
    kernel = np.ones((4, 3, 2, 5, 5), np.float32)
    save_file({**UP, "patch_embed.proj.weight": kernel}, tmp_path / "m.safetensors")
    with pytest.warns(UserWarning, match=r"has no tensors of 5 dimensions: patch_embed\.proj"):
        done = convert(tmp_path / "m.safetensors", tmp_path / "m.gguf")
    assert [(tensor.name, tensor.kept) for tensor in done.unquantized] == [
        ("patch_embed.proj.weight", False)
    ]


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_source_that_is_cut_short_meanwhile(tmp_path: Path, step: int) -> None:
    """An error, not the end of the process, whenever it is between batches."""
    block = np.ones((256, 1024), np.float32)
    save_file({f"{n:02d}.weight": block for n in range(40)}, tmp_path / "m.safetensors")
    said = run_child(f"""
        import warnings
        from pathlib import Path
        warnings.simplefilter("ignore", UserWarning)  # what is done stays
        folder = Path({str(tmp_path)!r})
        steps = []
        def cut(step):
            steps.append(step)
            if len(steps) == {step}:
                os.truncate(folder / "m.safetensors", 1 << 20)
        try:
            pyarrowquant.convert(
                folder / "m.safetensors", folder / "out.parquet", max_memory=140_000_000,
                progress=cut, method="rtn",
            )
        except ValueError as error:
            print(error)
    """)
    assert "m.safetensors' was changed while it was read" in said
    assert re.search(r"had \d+ bytes", said)
