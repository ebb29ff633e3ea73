"""What of an output is known beforehand is checked before any work, and by a dry run."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import run, succeeded
from models import source_for
from safetensors.numpy import save_file

from pyarrowquant import convert, plan

UP = "model.layers.0.mlp.up_proj.weight"
WEIGHTS = np.ones((64, 128), np.float32)
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"

Refused = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Refused:
    """The error of a command that fails before any work, with and without a dry run."""

    def call(*arguments: object) -> str:
        monkeypatch.setattr("pyarrowquant.conversion.job.Job.run", None)
        said = [run("quantize", *arguments, *more) for more in ([], ["--dry-run"])]
        assert [each.exit_code for each in said] == [1, 1], said[0].output
        assert said[0].stderr == said[1].stderr
        return said[0].stderr

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    save_file({UP: WEIGHTS}, path / "model.safetensors")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    return path


@pytest.mark.parametrize(
    ("to", "other"),
    [
        ("mlx", "model.layers.0.mlp.up_proj.scales"),
        ("mlx", "model.layers.0.mlp.up_proj.biases"),
        ("compressed-tensors", f"{UP}_packed"),
        ("compressed-tensors", f"{UP}_scale"),
        ("compressed-tensors", f"{UP}_shape"),
        ("bitsandbytes", f"{UP}.quant_map"),
    ],
)
def test_names_that_clash(
    folder: Path, tmp_path: Path, refused: Refused, to: str, other: str
) -> None:
    save_file({UP: WEIGHTS, other: np.ones(2, np.float32)}, folder / "model.safetensors")
    said = refused(folder, tmp_path / "out", "--to", to)
    assert (
        f"Two tensors of the output would be named '{other}': one of layer '{UP}', one of" in said
    )


@pytest.mark.parametrize("to", ["mlx", "gguf", "onnx", "parquet", "arrow"])
def test_rows_of_a_table_that_share_a_name(tmp_path: Path, refused: Refused, to: str) -> None:
    table = pa.table(
        {
            "layer_name": ["up.weight"] * 2,
            "weights": [np.ones(64 * 128, np.float32)] * 2,
            "shape": [[64, 128]] * 2,
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    said = refused(tmp_path / "m.parquet", tmp_path / "out", "--to", to)
    assert f"'{tmp_path / 'm.parquet'}': Layer 'up.weight' is in rows 0 and 1. " in said


def test_names_that_mean_other_things(tmp_path: Path, refused: Refused) -> None:
    np.savez(tmp_path / "m.npz", **{UP: WEIGHTS, "__metadata__": np.ones(2, np.float32)})
    said = refused(tmp_path / "m.npz", tmp_path / "out", "--to", "mlx")
    assert "mlx cannot have a tensor named '__metadata__'" in said
    np.savez(tmp_path / "n.npz", **{UP: np.ones((64, 96), np.float32), "bits.weight": WEIGHTS})
    rule = {"rules": [{"match": "bits.*", "bit_width": 8}]}
    (tmp_path / "r.json").write_text(json.dumps(rule))
    np.savez(tmp_path / "n.npz", **{UP: WEIGHTS, "a.weight": WEIGHTS, "bits.weight": WEIGHTS})
    said = refused(
        tmp_path / "n.npz", tmp_path / "out", "--to", "mlx", "--recipe", tmp_path / "r.json"
    )
    assert "config.json has no place for the settings of layer 'bits.weight'" in said


@pytest.mark.parametrize("length", [201, 235, 250, 256, 300])
def test_names_of_destinations_that_are_too_long(tmp_path: Path, length: int) -> None:
    np.savez(tmp_path / "m.npz", up=WEIGHTS)
    name = "x" * (length - 8) + ".parquet"
    assert run("quantize", tmp_path / "m.npz", tmp_path / "r.parquet").exit_code == 0
    message = f"is too long a name: {length} bytes, the most allowed is 200. Give a shorter one"
    for arguments in (
        ("quantize", tmp_path / "m.npz", tmp_path / name),
        ("quantize", tmp_path / "m.npz", tmp_path / name, "--dry-run"),
        ("quantize", tmp_path / "m.npz", tmp_path / name, "--resume", "--overwrite"),
        ("dequantize", tmp_path / "r.parquet", tmp_path / name),
        ("report", tmp_path / "r.parquet", "--html", tmp_path / name),
    ):
        done = run(*arguments)
        assert done.exit_code == 2, (arguments[0], done.output)
        assert message in done.stderr


def test_names_of_destinations_that_are_just_short_enough(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", up=WEIGHTS)
    name = "x" * 192 + ".parquet"
    assert run("quantize", tmp_path / "m.npz", tmp_path / name).exit_code == 0
    assert run("dequantize", tmp_path / name, tmp_path / f"b{name[1:]}").exit_code == 0
    assert run("report", tmp_path / name, "--html", tmp_path / f"c{name[1:]}").exit_code == 0


def test_names_of_files_that_are_too_long(tmp_path: Path, refused: Refused) -> None:
    np.savez(tmp_path / f"{'x' * 250}.npz", up=WEIGHTS)
    said = refused(tmp_path / f"{'x' * 250}.npz", tmp_path / "out", "--to", "parquet")
    assert "whose name has 258 bytes, the most allowed is 255" in said


@pytest.mark.parametrize(
    ("to", "module"), [("gguf", "gguf"), ("onnx", "onnx"), ("mlx", "safetensors")]
)
def test_extras_that_are_missing(
    tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, to: str, module: str
) -> None:
    np.savez(tmp_path / "m.npz", **{UP: WEIGHTS})
    monkeypatch.setitem(sys.modules, module, None)
    said = refused(tmp_path / "m.npz", tmp_path / "out", "--to", to)
    assert f"pip install 'pyarrowquant[{to}]'" in said


def test_names_of_tensors_that_llama_cpp_does_not_load(tmp_path: Path) -> None:
    long = f"{'x' * 60}.weight"
    np.savez(tmp_path / "m.npz", **{long: WEIGHTS, "up": WEIGHTS})
    with pytest.warns(UserWarning, match="more than 63 bytes, which llama.cpp does not load"):
        plan(tmp_path / "m.npz", tmp_path / "m.gguf")


@pytest.mark.parametrize("to", ["mlx", "compressed-tensors", "bitsandbytes"])
def test_folders_whose_files_cannot_go_along(
    folder: Path, tmp_path: Path, refused: Refused, to: str
) -> None:
    out = tmp_path / "out"
    (folder / "more").mkdir()
    (folder / "more" / "again").symlink_to(folder)
    said = refused(folder, out, "--to", to)
    assert f"'{folder}/more/again' is a link that leads back to '{folder.resolve()}'" in said
    (folder / "more" / "again").unlink()
    (folder / "more" / "vocab.txt").symlink_to("nowhere")
    assert "is a link to 'nowhere', which does not exist" in refused(folder, out, "--to", to)
    (folder / "more" / "vocab.txt").unlink()
    (folder / "tokenizer.json").write_text(POINTER)
    said = refused(folder, out, "--to", to)
    assert "tokenizer.json is a pointer of git-lfs, not the file itself" in said


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(
    "to", ["parquet", "mlx", "gguf", "onnx", "compressed-tensors", "bitsandbytes"]
)
def test_no_room_on_the_disk(
    folder: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: Usage(9, 9, 1000))
        said = refused(source_for(folder, to), tmp_path / "out", "--to", to)
        assert "has 1,000 bytes free, and about " in said
    monkeypatch.undo()
    needed = int(said.split("about ")[1].split(" ")[0].replace(",", ""))
    stays = int(said.split("of which ")[1].split(" ")[0].replace(",", ""))
    done = convert(source_for(folder, to), tmp_path / "out", to=to)
    assert stays <= done.bytes <= stays + 5000  # headers
    assert needed >= stays


@pytest.mark.parametrize("to", ["mlx", "compressed-tensors", "bitsandbytes"])
def test_numbers_that_json_lacks_are_told(folder: Path, tmp_path: Path, to: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["time_step_limit"] = [0.0, float("inf")]
    (folder / "config.json").write_text(json.dumps(config))
    for options in (["--dry-run"], []):
        said = run("quantize", folder, tmp_path / "out", "--to", to, *options)
        assert said.exit_code == 0
        assert "config.json' has Infinity at time_step_limit[1], which is no number" in said.stderr
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["time_step_limit"] == [0.0, float("inf")]


def test_layers_whose_results_are_too_long(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "m.safetensors"
    shape = [3, 2**15, 2**15]
    size = 2 * math.prod(shape)
    said = {"x.weight": {"dtype": "F16", "shape": shape, "data_offsets": [0, size]}}
    header = json.dumps(said).encode()
    with path.open("wb") as file:  # one that takes no room
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    told = refused(path, tmp_path / "x.parquet", "--bits", "8")
    assert "would have 3,221,225,472 bytes of codes and 25,165,824 groups, the most is" in told
    assert run("quantize", path, tmp_path / "x.parquet", "--dry-run").exit_code == 0


def test_a_dry_run_writes_nothing(folder: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    succeeded("quantize", folder, tmp_path / "out", "--to", "mlx", "--dry-run")
    assert sorted(tmp_path.rglob("*")) == before
