"""What the headers of a model's files, and its index, say beside tensors goes along."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import pytest
from commands import run
from exports import weights
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from formats.packed_models import CONFIG
from pyarrowquant import convert
from pyarrowquant.conversion.partial.work import Work
from pyarrowquant.reading.safetensors import INDEX

SAID = {"license": "mine", "epochs": 3, "seen": ["größer", None], "__metadata__": {"a": 1.5}}
SHARD = "model-00002-of-00002.safetensors"
SIZES = {"total_size": 1, "total_parameters": 1}


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as file:
        found: dict[str, str] = file.metadata()
    return found


def sharded(
    folder: Path, said: tuple[dict[str, str] | None, ...] = (None, None), index: Any = None
) -> Path:
    """A model of a shard for each of these headers, with an index of this metadata."""
    folder.mkdir()
    weight_map = {}
    for number, each in enumerate(said):
        name, shard = (
            f"model.layers.{number}.mlp.up_proj.weight",
            f"model-{number + 1:05d}-of-{len(said):05d}.safetensors",
        )
        save_file({name: weights(0, 64, 64)}, folder / shard, each)
        weight_map[name] = shard
    if index is not None:
        write_index(folder, {"metadata": index, "weight_map": weight_map})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def write_index(folder: Path, content: Any) -> None:
    (folder / INDEX).write_text(json.dumps(content), encoding="utf-8")


def read_index(folder: Path) -> Any:
    return json.loads((folder / INDEX).read_bytes())


@pytest.mark.parametrize("to", ["compressed-tensors", "bitsandbytes", "mlx"])
def test_metadata_of_safetensors(tmp_path: Path, to: str) -> None:
    said = ({"format": "pt", "license": "mine"}, {"format": "flax", "made": "by me"})
    model = sharded(tmp_path / "model", said)
    convert(model, tmp_path / "out", to=to)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    found = [metadata(file) for file in files]
    if to == "mlx":  # which has one file
        assert found == [{"format": "mlx", "license": "mine", "made": "by me"}]
    else:
        assert found == [{**each, "format": "pt"} for each in said]


def test_metadata_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"up.weight": weights(0, 64, 64)}, path, {"format": "pt", "license": "mine"})
    convert(path, tmp_path / "out", to="mlx", tensors_only=True)
    assert metadata(tmp_path / "out" / "model.safetensors") == {"format": "mlx", "license": "mine"}


@pytest.mark.parametrize("to", ["compressed-tensors", "bitsandbytes"])
def test_metadata_of_an_index_but_sizes(tmp_path: Path, to: str) -> None:
    model = sharded(tmp_path / "model", index={**SIZES, **SAID})
    out = tmp_path / "out"
    convert(model, out, to=to)
    written = read_index(out)
    header_bytes = sum(
        8 + int.from_bytes(file.read_bytes()[:8], "little") for file in out.glob("*.safetensors")
    )
    size = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    assert written["metadata"] == {**SAID, "total_size": size - header_bytes}


@pytest.mark.parametrize("of", ["folder", "index"])
def test_metadata_of_an_index_where_there_is_one_file(tmp_path: Path, of: str) -> None:
    said = ({"format": "pt", "license": "theirs"}, {"format": "pt"})
    model = sharded(tmp_path / "model", said, index={**SIZES, **SAID, "format": "odd"})
    convert(model if of == "folder" else model / INDEX, tmp_path / "out", to="mlx")
    assert not (tmp_path / "out" / INDEX).exists()
    assert metadata(tmp_path / "out" / "model.safetensors") == {
        "format": "mlx",
        "license": "theirs",  # as the shard says, which has that name as well
        "epochs": "3",
        "seen": '["gr\\u00f6\\u00dfer", null]',
        "__metadata__": '{"a": 1.5}',
    }


@pytest.mark.parametrize("rest", [{}, {"metadata": None}, {"metadata": {}}])
def test_indexes_that_say_nothing(tmp_path: Path, rest: dict[str, Any]) -> None:
    model = sharded(tmp_path / "model", index={})
    write_index(model, {**rest, "weight_map": read_index(model)["weight_map"]})
    convert(model, tmp_path / "out", to="compressed-tensors")
    assert read_index(tmp_path / "out")["metadata"].keys() == {"total_size"}


@pytest.mark.parametrize("to", ["compressed-tensors", "mlx", "parquet"])
@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ('["mine"]', "metadata must be an object, it is ['mine']. Write {} there"),
        ('{"score": 1e999}', "1e999 is beyond the numbers of float64"),
        ('{"score": NaN}', "NaN is no number of JSON"),
        ('{"name": "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_metadata_that_no_index_can_have(
    tmp_path: Path, to: str, metadata: str, problem: str
) -> None:
    model = sharded(tmp_path / "model", index={})
    text = (model / INDEX).read_text()
    (model / INDEX).write_text(text.replace('"metadata": {}', f'"metadata": {metadata}'))
    for options in ([], ["--dry-run"]):
        result = run("quantize", model, tmp_path / "out", "--to", to, *options)
        assert result.exit_code == 1
        assert str(model / INDEX) in result.stderr
        assert problem in result.stderr
    assert not (tmp_path / "out").exists()


class Killed(BaseException):
    """Ends a run as nothing of it foresees."""


@pytest.mark.parametrize("to", ["compressed-tensors", "bitsandbytes", "mlx"])
def test_metadata_of_an_index_in_a_run_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    model, out = sharded(tmp_path / "model", index={**SIZES, **SAID}), tmp_path / "out"
    arguments = ["quantize", model, out, "--to", to]
    assert run(*arguments).exit_code == 0
    wanted = {file.name: file.read_bytes() for file in out.iterdir()}
    original = Work.note_done

    def call(*noted: Any) -> None:
        original(*noted)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Work, "note_done", call)
        with pytest.raises(Killed):
            run(*arguments, "--overwrite")
    assert run(*arguments, "--overwrite", "--resume").exit_code == 0
    assert {file.name: file.read_bytes() for file in out.iterdir()} == wanted

    with monkeypatch.context() as patched:
        patched.setattr(Work, "note_done", call)
        with pytest.raises(Killed):
            run(*arguments, "--overwrite")
    write_index(model, {**read_index(model), "metadata": {"license": "a longer one than before"}})
    result = run(*arguments, "--overwrite", "--resume")
    assert result.exit_code == 1
    assert f"the source has changed: '{INDEX}' had" in result.stderr
    assert {file.name: file.read_bytes() for file in out.iterdir()} == wanted


def sharded_again(folder: Path, tensors: Mapping[str, Any]) -> None:
    """Write the file of a folder as two shards of an index."""
    names = [*tensors]
    shards = {"model-00001-of-00002.safetensors": names[:1], SHARD: names[1:]}
    for shard, of_shard in shards.items():
        save_file({name: tensors[name] for name in of_shard}, folder / shard)
    weight_map = {name: shard for shard, of_shard in shards.items() for name in of_shard}
    write_index(folder, {"metadata": SAID, "weight_map": weight_map})


def test_metadata_of_an_index_with_experts_apart(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    block = "model.layers.0.mlp.experts"
    stacks = {f"{block}.gate_up_proj": (2, 256, 128), f"{block}.down_proj": (2, 128, 128)}
    sharded_again(model, {name: np.ones(shape, np.float32) for name, shape in stacks.items()})
    (model / "config.json").write_text(json.dumps({**CONFIG, "model_type": "qwen3_5_moe_text"}))
    convert(model, tmp_path / "out", to="compressed-tensors")
    written = read_index(tmp_path / "out")
    assert f"{block}.1.up_proj.weight_packed" in written["weight_map"]
    assert {**written["metadata"], "total_size": 0} == {**SAID, "total_size": 0}


def test_metadata_of_an_index_of_a_rescaled_model(tmp_path: Path) -> None:
    model = hf_folders.write(tmp_path / "model", hf_folders.llama())
    sharded_again(model, load_file(model / "model.safetensors"))
    (model / "model.safetensors").unlink()
    convert(model, tmp_path / "out", to="compressed-tensors", rescale="on")
    assert json.loads((tmp_path / "out" / "config.json").read_bytes())["pyarrowquant_rescaled"]
    assert {**read_index(tmp_path / "out")["metadata"], "total_size": 0} == {
        **SAID,
        "total_size": 0,
    }
