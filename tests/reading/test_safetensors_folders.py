"""Folders of safetensors, indexes and their shards, and what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Arrays
from models import assert_reads, floats, write_shards
from safetensors.numpy import save_file

from pyarrowquant import (
    read_weights,
)

pytestmark = pytest.mark.usefixtures("nothing_leaked")


def test_index_and_its_shards(tmp_path: Path, shards: Any, model: Arrays) -> None:
    write_shards(tmp_path, shards)
    save_file({"other": np.ones(2, np.float32)}, tmp_path / "adapter.safetensors")
    assert_reads(read_weights(tmp_path), floats(model))
    assert_reads(read_weights(str(tmp_path) + "/", batch_bytes=1), floats(model))
    assert_reads(read_weights(tmp_path / "model.safetensors.index.json"), floats(model))
    layers = read_weights(tmp_path, only_floats=False).read_all()["layer_name"].to_pylist()
    first, second = shards.values()
    assert set(layers[: len(first)]) == set(first)
    assert set(layers[len(first) :]) == set(second)


def test_index_of_another_name(tmp_path: Path, shards: Any, model: Arrays) -> None:
    write_shards(tmp_path, shards)
    index = tmp_path / "model.safetensors.index.json"
    index.rename(tmp_path / "diffusion_pytorch_model.safetensors.index.json")
    assert_reads(read_weights(tmp_path), floats(model))
    (tmp_path / "x.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"several models: diff\S*, x\.safetensors\.index\.json"):
        read_weights(tmp_path)


def test_folder_with_one_file(model_file: Path, model: Arrays) -> None:
    save_file({"other": np.ones(2, np.float32)}, model_file.with_name("adapter.safetensors"))
    assert_reads(read_weights(model_file.parent), floats(model))


def test_folder_without_index(tmp_path: Path, shards: Any, model: Arrays) -> None:
    for name, arrays in shards.items():
        save_file(arrays, tmp_path / name)
    assert_reads(read_weights(tmp_path), floats(model))
    save_file({"bias": model["bias"]}, tmp_path / "z.safetensors")
    one, other = next(iter(shards)), "z.safetensors"
    message = f"tensor 'bias' is in '{one}' and in '{other}'"
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path)


def test_index_that_its_shards_contradict(tmp_path: Path, shards: Any, model: Arrays) -> None:
    first, second = shards
    index = tmp_path / "model.safetensors.index.json"

    def problem(**more: str) -> str:
        write_shards(tmp_path, shards, **more)
        with pytest.raises((ValueError, FileNotFoundError)) as raised:
            read_weights(tmp_path)
        prefix, _, message = str(raised.value).partition(": ")
        assert prefix == str(index)
        return message

    assert problem(x="gone.safetensors") == "the shard 'gone.safetensors' is missing. Fetch it"
    assert problem(x=first) == f"tensor 'x' is missing from '{first}'"
    assert problem(bias=second) == (f"tensor 'bias' should be in '{second}', it is in '{first}'")
    shards[second]["bias"] = model["bias"]
    assert problem() == (
        f"tensor 'bias' is in '{first}' and in '{second}'. Move one of these files away, or give "
        "the path of the one that is wanted"
    )


@pytest.mark.parametrize("path", ["model.safetensors.index.json", "."])
def test_index_that_names_less_than_its_shards_have(
    tmp_path: Path, shards: Any, model: Arrays, path: str
) -> None:
    """transformers loads all that shards have."""
    first, second = shards
    write_shards(tmp_path, shards)
    save_file({**shards[first], "more.weight": model["w.f32"]}, tmp_path / first)
    save_file({**shards[second], "extra": model["bias"]}, tmp_path / second)
    with pytest.warns(UserWarning, match="taken, too: 'more.weight', 'extra'$"):
        reader = read_weights(tmp_path / path)
    assert_reads(reader, {**floats(model), "more.weight": model["w.f32"], "extra": model["bias"]})


@pytest.mark.parametrize("stem", ["model", "diffusion_pytorch_model"])
def test_variants_of_a_model_in_one_folder(tmp_path: Path, model: Arrays, stem: str) -> None:
    save_file(model, tmp_path / f"{stem}.safetensors")
    half = {name: array.astype(np.float16) for name, array in model.items()}
    for variant in ("fp16", "non_ema"):
        save_file(half, tmp_path / f"{stem}.{variant}.safetensors")
    said = f"'{stem}.safetensors' is read, and none of its variants: '{stem}.fp16.safetensors', "
    with pytest.warns(UserWarning, match=f"{said}'{stem}.non_ema.safetensors'. To take one"):
        assert_reads(read_weights(tmp_path), floats(model))
    chosen = read_weights(tmp_path / f"{stem}.fp16.safetensors").read_all()
    assert set(chosen["dtype"].to_pylist()) == {"F16"}


def test_files_of_other_tensors_are_no_variants(tmp_path: Path, model: Arrays) -> None:
    save_file({"w.f32": model["w.f32"]}, tmp_path / "text.safetensors")
    save_file({"bias": model["bias"]}, tmp_path / "text.head.safetensors")
    assert_reads(read_weights(tmp_path), {name: model[name] for name in ("w.f32", "bias")})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must be a JSON object, it is []"),
        ("{", "is not valid JSON: "),
        ("{}", "weight_map must be an object, it is None"),
        ('{"weight_map": {"a": 1}}', "must be the name of a file in the same folder, it is 1"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "it is '../x.safetensors'"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "it is '/etc/passwd'"),
        ('{"weight_map": {"a": ".."}}', "it is '..'"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "the key 'a' is there twice"),
    ],
)
def test_hostile_index(tmp_path: Path, text: str, message: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        read_weights(tmp_path)
    assert str(raised.value).startswith(str(index))


def test_a_folder_of_the_cache_of_the_hub(tmp_path: Path, model_file: Path) -> None:
    hub = tmp_path / "hub" / "models--someone--model"
    snapshots, main = hub / "snapshots", hub / "refs" / "main"
    for name in ("old", "new"):
        (snapshots / name).mkdir(parents=True)
        (snapshots / name / "model.safetensors").symlink_to(model_file)
    with pytest.raises(ValueError, match=re.escape(f"own: '{snapshots}/new' or '{snapshots}/old'")):
        read_weights(hub)
    main.parent.mkdir()
    main.write_text("old")
    with pytest.raises(ValueError, match=re.escape(f"folder of its own: '{snapshots}/old'") + "$"):
        read_weights(hub)
    assert read_weights(snapshots / "old").read_all().num_rows


def test_a_name_of_the_hub_is_told_from_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Hub is 'hf://owner/model-1\.5B'"):
        read_weights("owner/model-1.5B")
    with pytest.raises(FileNotFoundError) as error:
        read_weights(tmp_path / "model")
    assert "hf://" not in str(error.value)
