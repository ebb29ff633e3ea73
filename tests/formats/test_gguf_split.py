"""GGUF models in several files: what is in them, and how they replace each other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from commands import failed, succeeded
from gguf_models import llama

from pyarrowquant import Step, UsageError, convert, plan, read_weights
from pyarrowquant.conversion.partial import placing_parts

SIZE = 60_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return llama(tmp_path / "source.gguf", layers=4)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "source.gguf")


def parts(count: int, name: str = "m") -> list[str]:
    return [f"{name}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]


def said(path: Path) -> dict[str, Any]:
    fields = gguf.GGUFReader(path).fields
    return {key: field.contents() for key, field in fields.items() if not key.startswith("GGUF.")}


def data(*paths: Path) -> dict[str, tuple[str, bytes]]:
    return {
        tensor.name: (tensor.tensor_type.name, np.asarray(tensor.data).tobytes())
        for path in paths
        for tensor in gguf.GGUFReader(path).tensors
    }


def test_the_least_size_that_is_said_is_enough(tmp_path: Path, source: Path) -> None:
    error = failed("quantize", source, tmp_path / "m.gguf", "--split", "1k", code=2)
    found = re.search(r"A file with '(.+)' has ([\d,]+) bytes, which is the least", error)
    assert found
    least = int(found[2].replace(",", ""))
    failed("quantize", source, tmp_path / "m.gguf", "--split", least - 1, code=2)
    succeeded("quantize", source, tmp_path / "m.gguf", "--split", least)
    sizes = [(tmp_path / name).stat().st_size for name in names(tmp_path)]
    assert max(sizes) == least


def test_parts_have_what_one_file_has(tmp_path: Path, source: Path) -> None:
    done = convert(source, tmp_path / "m.gguf", split=SIZE)
    found = names(tmp_path)
    assert found == parts(len(found))
    assert len(found) > 2
    assert done.destination == tmp_path / found[0]
    paths = [tmp_path / name for name in found]
    assert done.bytes == sum(path.stat().st_size for path in paths)
    assert max(path.stat().st_size for path in paths) <= SIZE
    whole = tmp_path / "whole.gguf"
    convert(source, whole)
    assert data(*paths) == data(whole)
    assert list(data(*paths)) == list(data(whole))
    for number, path in enumerate(paths):
        keys = said(path)
        split = {key: keys.pop(key) for key in list(keys) if key.startswith("split.")}
        assert split == {
            "split.no": number,
            "split.count": len(paths),
            "split.tensors.count": len(data(whole)),
        }
        assert keys == ({} if number else said(whole))
    kinds = {field.name: field.types for field in gguf.GGUFReader(paths[1]).fields.values()}
    assert kinds["split.no"] == kinds["split.count"] == [gguf.GGUFValueType.UINT16]
    assert kinds["split.tensors.count"] == [gguf.GGUFValueType.INT32]


def test_any_part_is_read_as_the_model(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "whole.gguf")
    done = convert(source, tmp_path / "m.gguf", split=SIZE)
    wanted = read_weights(tmp_path / "whole.gguf").read_all()
    last = sorted(tmp_path.glob("m-*"))[-1]
    for path in (done.destination, last):
        assert read_weights(path).read_all() == wanted
    succeeded("compare", last, tmp_path / "whole.gguf")


def test_one_part_is_called_so_too(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "m.gguf", split=10**9)
    assert names(tmp_path) == parts(1)
    assert said(tmp_path / parts(1)[0])["split.count"] == 1


def test_a_dry_run_says_the_files(tmp_path: Path, source: Path) -> None:
    command = ("quantize", source, tmp_path / "m.gguf", "--split", "60K")
    told = json.loads(succeeded(*command, "--dry-run", "--json"))["files"]
    text = succeeded(*command, "--dry-run")
    assert names(tmp_path) == []
    assert "m-00002-of-0000" in text
    succeeded(*command)
    assert told == [
        {"name": path.name, "bytes": path.stat().st_size} for path in sorted(tmp_path.glob("m-*"))
    ]
    assert plan(source, tmp_path / "n.gguf").files == ()


@pytest.mark.parametrize("size", [SIZE, 3 * SIZE])
def test_overwrite_replaces_all_parts_of_the_name(tmp_path: Path, source: Path, size: int) -> None:
    convert(source, tmp_path / "m.gguf", split=SIZE)
    others = ["m.gguf", "m-1-00001-of-00002.gguf", "m-00001-of-00002.gguf.txt"]
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    before = names(tmp_path)
    error = failed("quantize", source, tmp_path / "m.gguf", "--split", size)
    assert "m-00001-of-" in error
    assert "exists" in error
    assert names(tmp_path) == before
    done = convert(source, tmp_path / "m.gguf", split=size, recipe="Q8_0", overwrite=True)
    found = [name for name in names(tmp_path) if name not in others]
    assert found == parts(len(found))
    assert said(done.destination)["general.file_type"] == 7
    assert all((tmp_path / name).read_bytes() == b"mine" for name in others)


@pytest.mark.parametrize(
    ("destination", "options", "words"),
    [
        ("m.gguf", {"split": 0}, "Invalid split: 0"),
        ("m.gguf", {"split": SIZE, "size": SIZE}, "exclude each other"),
        ("m.parquet", {"split": SIZE}, "to='gguf'"),
        ("m-00001-of-00002.gguf", {"split": SIZE}, "the name of a part"),
        ("m.gguf", {"split": 1000}, "Invalid split: 1,000 bytes. A file with "),
    ],
)
def test_what_cannot_be_split_is_refused(
    tmp_path: Path, source: Path, destination: str, options: dict[str, Any], words: str
) -> None:
    for call in (plan, convert):
        with pytest.raises((UsageError, ValueError), match=words):
            call(source, tmp_path / destination, **options)
    assert names(tmp_path) == []


@pytest.mark.parametrize("size", [6_000, 10_000])
def test_a_budget_chooses_what_a_file_has_room_for(tmp_path: Path, source: Path, size: int) -> None:
    bits = 4.5  # of which the budget would give some tensors more than fits
    convert(source, tmp_path / "whole.gguf", bits_per_weight=bits)
    whole = {name: len(blocks) for name, (_, blocks) in data(tmp_path / "whole.gguf").items()}
    assert max(whole.values()) > size
    convert(source, tmp_path / "m.gguf", bits_per_weight=bits, split=size)
    paths = sorted(tmp_path.glob("m-*"))
    assert max(path.stat().st_size for path in paths) <= size
    assert data(*paths).keys() == whole.keys()


@pytest.mark.parametrize(
    ("split", "choice"),
    [
        (5_000, {"bits_per_weight": 4.5}),  # below the smallest type
        (15_000, {"recipe": "Q4_0", "quality_floor": {"relative_error": 0.01}}),
    ],
)
def test_types_that_a_file_has_no_room_for_are_said_before_any_work(
    tmp_path: Path, source: Path, split: int, choice: dict[str, Any]
) -> None:
    steps: list[Step] = []
    with pytest.raises(ValueError, match=f"Invalid split: {split:,} bytes. A file with "):
        convert(source, tmp_path / "m.gguf", split=split, progress=steps.append, **choice)
    assert steps == []


def test_tensors_that_are_no_model_are_not_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", up=np.eye(64, dtype=np.float32))
    with pytest.raises(ValueError, match="split= is for GGUF models"):
        convert(tmp_path / "a.npz", tmp_path / "m.gguf", split=SIZE)


def test_a_source_of_the_same_name_is_not_replaced(tmp_path: Path, source: Path) -> None:
    first = convert(source, tmp_path / "m.gguf", split=SIZE, recipe="Q8_0").destination
    before = data(*sorted(tmp_path.glob("m-*")))
    with pytest.raises(ValueError, match="is the source"):
        convert(first, tmp_path / "m.gguf", split=SIZE, overwrite=True)
    assert data(*sorted(tmp_path.glob("m-*"))) == before


class Killed(BaseException):
    """Ends a run as nothing of it foresees."""


@pytest.mark.filterwarnings("ignore:What is done stays")
def test_an_interrupted_run_goes_on(tmp_path: Path, source: Path) -> None:
    def kill(step: Step) -> None:
        if step.layers:
            raise Killed

    with pytest.raises(Killed):
        convert(source, tmp_path / "m.gguf", split=SIZE, progress=kill)
    assert (tmp_path / ".m.gguf.partial").exists()
    convert(source, tmp_path / "m.gguf", split=SIZE, resume=True)
    convert(source, tmp_path / "whole.gguf")
    assert data(*sorted(tmp_path.glob("m-*"))) == data(tmp_path / "whole.gguf")


@pytest.mark.parametrize("resumes", [True, False])
@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.filterwarnings("ignore:What is done stays")
def test_parts_that_were_getting_their_names_get_them(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, at: int, resumes: bool
) -> None:
    """At no moment has the first part its name while others are not of its model."""
    convert(source, tmp_path / "m.gguf", split=SIZE, recipe="Q4_0")
    convert(source, tmp_path / "wanted.gguf", split=SIZE, recipe="Q4_1")
    wanted = sorted(tmp_path.glob("wanted-0*.gguf"))
    assert len(wanted) == len(list(tmp_path.glob("m-0*.gguf"))) > 2
    placed: list[str] = []

    def killing(function: Any) -> Any:
        def call(new: Path, target: Path) -> None:
            if target.name.startswith("m-0"):
                assert not (tmp_path / parts(len(wanted))[0]).exists()
                if len(placed) == at:
                    raise Killed
                placed.append(target.name)
            function(new, target)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(placing_parts.os, "replace", killing(placing_parts.os.replace))
        patched.setattr(placing_parts, "place", killing(placing_parts.place))
        with pytest.raises(Killed):
            convert(source, tmp_path / "m.gguf", split=SIZE, recipe="Q4_1", overwrite=True)
    options: dict[str, Any] = {"split": SIZE, "recipe": "Q4_1"}
    if resumes:
        convert(source, tmp_path / "m.gguf", **options, resume=True, overwrite=True)
    else:
        with pytest.raises(FileExistsError):
            convert(source, tmp_path / "m.gguf", **options)
    found = sorted(tmp_path.glob("m-0*.gguf"))
    assert [path.name for path in found] == parts(len(wanted))
    assert [path.read_bytes() for path in found] == [path.read_bytes() for path in wanted]
