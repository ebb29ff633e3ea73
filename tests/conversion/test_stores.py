"""Outputs in stores: what a local run gives, and at no moment something that is not whole."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import gguf_models
import hf_folders
import numpy as np
import pytest
from commands import failed, run, succeeded
from exports import files
from mixture_models import DEEPSEEK, deepseek
from models import write_shards
from stores import WatchedStore, disk_used

import pyarrowquant
from conversion.killing import FORMATS, SHARDS

USABLE = ("config.json", "model.safetensors.index.json")


class RefusedError(OSError):
    """What a store throws."""


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[WatchedStore]:
    WatchedStore.reset()
    on_the_way = tmp_path / "on-the-way"
    on_the_way.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(on_the_way))
    return WatchedStore


def refuse_after(count: int, word: str) -> None:
    """Let the store refuse what has a word in its name, after so many times."""
    left = count

    def check(path: str) -> None:
        nonlocal left
        if word in path:
            left -= 1
            if left < 0:
                raise RefusedError("503 Slow Down")

    WatchedStore.before_write = check


def local(model: Path, folder: Path, kind: str, *more: str) -> dict[str, bytes]:
    """What a local run writes."""
    name, options = FORMATS[kind]
    folder.mkdir()
    succeeded("quantize", model, folder / name, *options, *more)
    return _data(folder)


def _data(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(folder).items() if not (folder / name).is_dir()}


def to_store(model: Path, kind: str, *more: str) -> tuple[Any, ...]:
    name, options = FORMATS[kind]
    return "quantize", model, f"watched://bucket/{name}", *options, *more


def test_a_store_may_refuse_to_remove_what_is_not_there(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, remove = local(model, tmp_path / "here", "mlx"), WatchedStore.rm

    def removed(self: WatchedStore, path: str, **options: Any) -> None:
        if not self.exists(path):
            raise OSError(f"No such directory: {path}")  # which gs:// says, without a number
        remove(self, path, **options)

    monkeypatch.setattr(WatchedStore, "rm", removed)
    succeeded(*to_store(model, "mlx"))
    assert WatchedStore.objects("bucket") == wanted


@pytest.mark.parametrize("more", [[], ["--continue-on-error"]], ids=["placed", "kept"])
@pytest.mark.parametrize("kind", FORMATS)
def test_bytes_are_those_of_a_local_run(
    model: Path, tmp_path: Path, kind: str, more: list[str]
) -> None:
    wanted = local(model, tmp_path / "here", kind, *more)
    out = succeeded(*to_store(model, kind, *more))
    assert f"'watched://bucket/{FORMATS[kind][0]}': " in out
    assert WatchedStore.objects("bucket") == wanted
    assert not any((tmp_path / "on-the-way").iterdir())


@pytest.mark.parametrize("kind", ["compressed", "bitsandbytes", "mlx"])
def test_what_makes_a_folder_usable_comes_last(model: Path, kind: str) -> None:
    succeeded(*to_store(model, kind))
    outputs = [path for path in WatchedStore.written if path.startswith("/bucket/out/")]
    usable = [path for path in outputs if path.endswith(USABLE)]
    assert usable
    assert outputs[-len(usable) :] == usable
    assert outputs[-1] == "/bucket/out/config.json"


def test_a_folder_is_replaced_when_all_is_there(model: Path, tmp_path: Path) -> None:
    succeeded(*to_store(model, "compressed"))
    WatchedStore().pipe("/bucket/out/model-00009-of-00009.safetensors", b"old")
    before = WatchedStore.objects("bucket/out")
    assert "exists" in failed(*to_store(model, "compressed"))
    left = SHARDS

    def check(path: str) -> None:
        nonlocal left
        if left:
            assert WatchedStore.objects("bucket/out") == before
        left -= path.endswith(".safetensors")

    WatchedStore.before_write = check
    succeeded(*to_store(model, "compressed", "--overwrite", "--method", "rtn"))
    wanted = local(model, tmp_path / "here", "compressed", "--method", "rtn")
    assert WatchedStore.objects("bucket") == wanted


def test_what_is_no_model_is_not_replaced(model: Path) -> None:
    WatchedStore().pipe("/bucket/out/thesis.tex", b"text")
    error = failed(*to_store(model, "compressed", "--overwrite"))
    assert "'watched://bucket/out' has no model" in error
    WatchedStore().pipe("/bucket/out/config.json", b"{}")
    error = failed(*to_store(model, "compressed", "--overwrite"))
    assert "has 'thesis.tex', which would be lost" in error
    assert WatchedStore.objects("bucket").keys() == {"out/thesis.tex", "out/config.json"}


@pytest.mark.parametrize("replaced", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("kind", ["compressed", "bitsandbytes"])
def test_a_run_goes_on_where_the_store_has_refused(
    model: Path, tmp_path: Path, kind: str, replaced: bool
) -> None:
    more = ["--overwrite"] if replaced else []
    if replaced:
        succeeded(*to_store(model, kind, "--method", "rtn"))
    refuse_after(2, ".safetensors")
    error = failed(*to_store(model, kind, *more))
    assert "'watched://bucket/out': 503 Slow Down" in error
    assert "What is done stays in 'watched://bucket/.out.partial'. --resume continues" in error
    assert not any((tmp_path / "on-the-way").iterdir())
    assert replaced or not WatchedStore.objects("bucket/out").keys() & set(USABLE)
    WatchedStore.allow()
    WatchedStore.written.clear()
    assert "would go on" in succeeded(*to_store(model, kind, *more, "--resume", "--dry-run"))
    succeeded(*to_store(model, kind, *more, "--resume"))
    again = {Path(path).name for path in WatchedStore.written if path.endswith(".safetensors")}
    done = {f"model-{n:05d}-of-{SHARDS:05d}.safetensors" for n in (1, 2)}
    assert not again & done or replaced
    assert WatchedStore.objects("bucket") == local(model, tmp_path / "here", kind)


def test_totals_are_those_of_a_run_that_nothing_disturbed(model: Path) -> None:
    def totals(*more: str) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(
            succeeded(*to_store(model, "compressed", *more, "--json"))
        )
        del said["seconds"]
        return said

    wanted = totals()
    WatchedStore.reset()
    for more in ([], ["--resume"]):
        refuse_after(1, ".safetensors")
        failed(*to_store(model, "compressed", *more))
        WatchedStore.allow()
    assert totals("--resume") == wanted


@pytest.mark.parametrize("name", [*USABLE, "00004.safetensors"])
@pytest.mark.parametrize("replaced", [False, True], ids=["new", "replaced"])
def test_a_run_goes_on_from_any_file(
    model: Path, tmp_path: Path, name: str, replaced: bool
) -> None:
    more = ["--overwrite"] if replaced else []
    if replaced:
        succeeded(*to_store(model, "compressed", "--method", "rtn"))
    refuse_after(0, name)
    failed(*to_store(model, "compressed", *more))
    WatchedStore.allow()
    succeeded(*to_store(model, "compressed", *more, "--resume"))
    assert WatchedStore.objects("bucket") == local(model, tmp_path / "here", "compressed")


def test_parts_of_results_are_continued(model: Path, tmp_path: Path) -> None:
    refuse_after(2, ".arrow")
    failed(*to_store(model, "parquet"))
    WatchedStore.allow()
    WatchedStore.written.clear()
    succeeded(*to_store(model, "parquet", "--resume"))
    parts = [path for path in WatchedStore.written if path.endswith(".arrow")]
    assert len(parts) == SHARDS - 2
    assert WatchedStore.objects("bucket") == local(model, tmp_path / "here", "parquet")


def test_a_new_run_removes_what_another_has_left(model: Path, tmp_path: Path) -> None:
    refuse_after(2, ".safetensors")
    failed(*to_store(model, "compressed"))
    WatchedStore.allow()
    succeeded(*to_store(model, "mlx"))
    assert WatchedStore.objects("bucket") == local(model, tmp_path / "here", "mlx")


def test_what_has_changed_is_not_continued(model: Path) -> None:
    refuse_after(2, ".safetensors")
    failed(*to_store(model, "compressed"))
    WatchedStore.allow()
    name = f"model-00001-of-{SHARDS:05d}.safetensors"
    WatchedStore().pipe(f"/bucket/out/{name}", WatchedStore.objects("bucket/out")[name])
    error = failed(*to_store(model, "compressed", "--resume"))
    assert f"'{name}' was complete, and is not there any more or has changed" in error
    error = failed(*to_store(model, "compressed", "--resume", "--method", "rtn"))
    assert "method was mse, now is rtn" in error


@pytest.mark.parametrize("byte", [0, 12, 40, -3])
def test_a_damaged_journal_is_not_continued(model: Path, tmp_path: Path, byte: int) -> None:
    """And stands in no new run's way, which may replace what it says nothing of."""
    refuse_after(2, "/bucket/out/model-")
    failed(*to_store(model, "compressed"))
    WatchedStore.allow()
    journal = "/bucket/.out.partial/stored.json"
    data = bytearray(WatchedStore().cat(journal))
    data[byte] ^= 4
    WatchedStore().pipe(journal, bytes(data))
    assert "stored.json' of an earlier run is damaged" in failed(
        *to_store(model, "compressed", "--resume", "--overwrite")
    )
    assert "exists" in failed(*to_store(model, "compressed"))
    succeeded(*to_store(model, "compressed", "--overwrite"))
    assert WatchedStore.objects("bucket") == local(model, tmp_path / "here", "compressed")


def test_the_disk_holds_one_file_at_most(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape = (512, 1024)
    folder = tmp_path / "large"
    folder.mkdir()
    write_shards(
        folder,
        {
            f"model-{n:05d}-of-00006.safetensors": {
                f"{n}.weight": rng.standard_normal(shape).astype(np.float16)
            }
            for n in range(1, 7)
        },
    )
    (folder / "config.json").write_text('{"model_type": "llama", "torch_dtype": "float16"}')
    most = 0

    def check(_path: str) -> None:
        nonlocal most
        most = max(most, disk_used())

    WatchedStore.before_write = check
    succeeded("quantize", folder, "watched://bucket/out", "--to", "compressed-tensors")
    weights = [
        data for name, data in WatchedStore.objects("bucket/out").items() if "model-" in name
    ]
    assert len(weights) == 6
    assert len(weights[0]) < most < 1.5 * len(weights[0])


def test_a_store_that_must_not_be_written_is_told_before_weights_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "nan.npz", up=np.full((64, 128), np.nan, np.float32))

    def check(path: str) -> None:
        raise PermissionError(f"Access Denied: {path}")

    WatchedStore.before_write = check
    error = failed("quantize", tmp_path / "nan.npz", "watched://bucket/out.gguf")
    assert len(error.splitlines()) == 1
    assert "'watched://bucket/out.gguf': Access Denied" in error
    assert "credentials" in error


def test_keys_are_never_shown(tmp_path: Path) -> None:
    np.savez(tmp_path / "small.npz", up=np.ones((64, 128), np.float32))
    refuse_after(0, "")
    secret = "watched://me:secret@bucket/out.gguf?token=secret"
    for target in (secret, secret.replace("watched", "s3"), secret.replace("watched", "no")):
        result = run("quantize", tmp_path / "small.npz", target)
        assert result.exit_code != 0
        assert "secret" not in result.output


@pytest.mark.parametrize("place", ["watched://bucket", "watched://bucket/"])
def test_a_bucket_is_no_destination(tmp_path: Path, place: str) -> None:
    np.savez(tmp_path / "small.npz", up=np.ones((64, 128), np.float32))
    error = failed("quantize", tmp_path / "small.npz", place, "--to", "gguf", code=2)
    assert "Give a name in it, such as 'watched://bucket/model'" in error


@pytest.mark.parametrize("kind", ["compressed", "bitsandbytes", "mlx"])
def test_files_beside_weights_come_along_from_a_store(
    model: Path, tmp_path: Path, kind: str
) -> None:
    (model / "tokenizer.json").write_text("{}")
    (model / ".hidden").write_text("no")
    for name, data in {"1_Pooling/config.json": b"{}", "original/model.pth": b"old"}.items():
        (model / name).parent.mkdir()
        (model / name).write_bytes(data)
    wanted = local(model, tmp_path / "here", kind)
    assert wanted.keys() > {"out/tokenizer.json", "out/1_Pooling/config.json"}
    for name, data in _data(model).items():
        WatchedStore().pipe(f"/models/base/{name}", data)
    source = Path("watched://models/base")
    succeeded("quantize", "watched://models/base", *to_store(source, kind)[2:])
    assert WatchedStore.objects("bucket") == wanted
    name, options = FORMATS[kind]
    (tmp_path / "again").mkdir()
    succeeded("quantize", "watched://models/base", tmp_path / "again" / name, *options)
    assert _data(tmp_path / "again") == wanted


def test_a_gguf_model_in_a_store(tmp_path: Path) -> None:
    base = gguf_models.saved(tmp_path / "base.gguf")
    WatchedStore().pipe("/models/base.gguf", base.read_bytes())
    succeeded("quantize", base, tmp_path / "here.gguf")
    succeeded("quantize", "watched://models/base.gguf", "watched://bucket/out.gguf")
    assert WatchedStore.objects("bucket") == {"out.gguf": (tmp_path / "here.gguf").read_bytes()}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out", ["--to", "compressed-tensors", "--group-size", "32"]),
        ("out", ["--to", "compressed-tensors", "--recipe", "NVFP4A16"]),
        ("out", ["--to", "mlx", "--group-size", "32"]),
        ("out.gguf", ["--pre-tokenizer", "default", "--split", "400k"]),
    ],
    ids=["compressed", "shared scales", "mlx", "split"],
)
def test_experts_lie_in_several_shards(tmp_path: Path, name: str, options: list[str]) -> None:
    base = hf_folders.write(tmp_path / "base", deepseek(), **DEEPSEEK)
    (base / "model.safetensors").unlink()
    tensors, names = deepseek(), sorted(deepseek())
    write_shards(
        base,
        {
            f"model-0000{i + 1}-of-00002.safetensors": {each: tensors[each] for each in names[i::2]}
            for i in (0, 1)
        },
    )
    (tmp_path / "here").mkdir()
    succeeded("quantize", base, tmp_path / "here" / name, *options)
    succeeded("quantize", base, f"watched://bucket/{name}", *options)
    assert WatchedStore.objects("bucket") == _data(tmp_path / "here")


@pytest.mark.parametrize("more", [[], ["--continue-on-error"]], ids=["placed", "kept"])
@pytest.mark.parametrize("replaced", [False, True], ids=["new", "replaced"])
def test_the_first_part_of_a_split_output_comes_last(
    tmp_path: Path, replaced: bool, more: list[str]
) -> None:
    base = hf_folders.write(tmp_path / "base", hf_folders.llama())
    options = ["--pre-tokenizer", "default", "--method", "rtn", *more]
    arguments = ["quantize", base, "watched://bucket/out.gguf", *options]
    if replaced:
        succeeded(*arguments, "--split", "300k")
        arguments.append("--overwrite")
    before = WatchedStore.objects("bucket")
    refuse_after(2, "-of-")
    failed(*arguments, "--split", "400k")
    after = WatchedStore.objects("bucket").items()
    assert before.items() <= after
    assert replaced or not any(name.startswith("out-00001-of-") for name, _ in after)
    WatchedStore.allow()
    WatchedStore.written.clear()
    succeeded(*arguments, "--split", "400k", "--resume")
    again = any("-00001-of-" in path for path in WatchedStore.written if "partial" in path)
    assert again == bool(more)
    (tmp_path / "here").mkdir()
    succeeded("quantize", base, tmp_path / "here" / "out.gguf", *options, "--split", "400k")
    assert WatchedStore.objects("bucket") == _data(tmp_path / "here")


def test_a_source_is_not_replaced(model: Path) -> None:
    for name, data in _data(model).items():
        WatchedStore().pipe(f"/models/base/{name}", data)
    place = "watched://models/base"
    error = failed("quantize", place, place, "--to", "compressed-tensors", "--overwrite")
    assert "has the source in it" in error


def test_a_call_says_where_the_output_is(model: Path) -> None:
    done = pyarrowquant.convert(model, "watched://bucket/out.parquet")
    assert done.destination == "watched://bucket/out.parquet"
    assert done.bytes == len(WatchedStore.objects("bucket")["out.parquet"])
