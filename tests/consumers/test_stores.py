"""Outputs in a real S3 server: what a local run gives, whatever the server does meanwhile.

It needs Java and Maven, so `make test-fleet` runs these.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hf_folders
import ml_dtypes
import numpy as np
import pytest
from child import HANG
from models import write_shards
from s3_server import BUCKET, SECRET, Proxy, Request, Server, Store, free_port

SHARDS = 4
WEIGHTS = [f"model-{n:05d}-of-{SHARDS:05d}.safetensors" for n in range(1, SHARDS + 1)]
USABLE = {"config.json", "model.safetensors.index.json"}
COMPRESSED = ["--to", "compressed-tensors", "--method", "rtn"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("s3proxy"))
    yield started
    started.stop()


@pytest.fixture
def store(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    proxy = Proxy(server)
    for name, value in proxy.environment.items():
        monkeypatch.setenv(name, value)
    made = Store(proxy)
    yield made
    proxy.stop()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose first shard takes several parts of an upload."""
    folder = tmp_path_factory.mktemp("model")
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32).astype(ml_dtypes.bfloat16)

    shards = {
        name: {f"model.layers.{n}.mlp.up_proj.weight": weights(256, 1024)}
        for n, name in enumerate(WEIGHTS)
    }
    shards[WEIGHTS[0]]["model.embed_tokens.weight"] = weights(12_000, 1024)
    write_shards(folder, shards)
    (folder / "config.json").write_text('{"model_type": "llama", "torch_dtype": "bfloat16"}')
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def wanted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a local run writes."""
    folder = tmp_path_factory.mktemp("here")
    done = quantize(model, folder / "out", *COMPRESSED)
    assert done.returncode == 0, done.stderr
    return files_in(folder / "out")


def files_in(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pyarrowquant", "quantize", *map(str, arguments)]


def quantize(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


def succeeded(*arguments: object) -> str:
    done = quantize(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def failed(*arguments: object, **more: str) -> str:
    done = quantize(*arguments, **more)
    assert done.returncode == 1, done.stderr
    assert SECRET not in done.stderr
    return done.stderr


def test_a_folder_from_a_store_to_a_store(
    store: Store, model: Path, wanted: dict[str, bytes]
) -> None:
    store.put(model, "base")
    shown = succeeded(f"s3://{BUCKET}/base", f"s3://{BUCKET}/out", *COMPRESSED)
    assert f"'s3://{BUCKET}/out': " in shown
    assert store.objects("out") == wanted
    parts = [request for request in store.faults.seen if WEIGHTS[0] in request.key]
    assert len([part for part in parts if part.writes]) > 1
    assert {name.partition("/")[0] for name in store.objects()} == {"base", "out"}


def test_files_of_other_formats(store: Store, tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "llama", hf_folders.llama())
    options: dict[str, list[str]] = {
        "out.gguf": ["--pre-tokenizer", "default"],
        "split.gguf": ["--pre-tokenizer", "default", "--split", "400k"],
        "out.parquet": [],
        "tables": ["--to", "arrow"],
        "out.onnx": ["--tensors-only"],
    }
    (tmp_path / "here").mkdir()
    for name, more in options.items():
        succeeded(folder, tmp_path / "here" / name, *more)
        succeeded(folder, f"s3://{BUCKET}/{name}", *more)
    assert store.objects() == files_in(tmp_path / "here")


def test_it_is_tried_again_what_the_server_refuses(
    store: Store, model: Path, wanted: dict[str, bytes]
) -> None:
    count = 0

    def every_third(_request: Request) -> str | None:
        nonlocal count
        count += 1
        return {1: "500", 4: "reset"}.get(count % 6)

    store.faults.fault = every_third
    succeeded(model, f"s3://{BUCKET}/out", *COMPRESSED)
    store.faults.fault = lambda _request: None
    assert count > 20
    assert store.objects("out") == wanted


def test_lists_may_lack_what_is_new(store: Store, model: Path, wanted: dict[str, bytes]) -> None:
    store.faults.hides_newest = True
    succeeded(model, f"s3://{BUCKET}/out", *COMPRESSED)
    assert "exists" in failed(model, f"s3://{BUCKET}/out", *COMPRESSED)
    succeeded(model, f"s3://{BUCKET}/out", *COMPRESSED, "--overwrite")
    store.faults.hides_newest = False
    assert store.objects("out") == wanted


@pytest.mark.parametrize("replaced", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("name", [WEIGHTS[2], "model.safetensors.index.json"])
def test_a_run_goes_on_where_the_server_was_down(
    store: Store, model: Path, wanted: dict[str, bytes], replaced: bool, name: str
) -> None:
    more = ["--overwrite"] if replaced else []
    if replaced:
        succeeded(model, f"s3://{BUCKET}/out", "--to", "compressed-tensors", "--method", "mse")
    is_down = False

    def down(request: Request) -> str | None:
        nonlocal is_down
        is_down = is_down or (request.method in ("PUT", "POST") and request.key.endswith(name))
        return "500" if is_down else None

    store.faults.fault = down
    error = failed(model, f"s3://{BUCKET}/out", *COMPRESSED, *more)
    assert f"'s3://{BUCKET}/out': " in error
    assert "--resume continues it" in error
    store.faults.fault = lambda _request: None
    assert replaced or not store.objects("out").keys() & USABLE
    store.faults.seen.clear()
    succeeded(model, f"s3://{BUCKET}/out", *COMPRESSED, *more, "--resume")
    again = [request.key for request in store.faults.seen if "partNumber" in request.query]
    assert not [key for key in again if key.endswith((WEIGHTS[0], WEIGHTS[1]))]
    assert store.objects() == {f"out/{name}": data for name, data in wanted.items()}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 3, 9])
def test_a_run_that_is_stopped_leaves_nothing_that_is_not_whole(
    store: Store, model: Path, wanted: dict[str, bytes], number: signal.Signals, times: int
) -> None:
    left = times

    def stall(request: Request) -> str | None:
        nonlocal left
        left -= "partNumber" in request.query and "/.out" not in f"/{request.key}"
        return "stall" if left == 0 else None

    store.faults.fault = stall
    process = subprocess.Popen(command(model, f"s3://{BUCKET}/out", *COMPRESSED))
    assert store.faults.stalled.wait(HANG)
    process.send_signal(number)
    store.faults.fault = lambda _request: None
    if number != signal.SIGKILL:
        store.faults.go_on.set()
    assert process.wait(HANG) != 0
    store.faults.go_on.set()
    assert store.objects("out").items() <= wanted.items()
    if "config.json" in store.objects("out"):  # it was just whole
        assert store.objects("out") == wanted
    succeeded(model, f"s3://{BUCKET}/out", *COMPRESSED, "--resume")
    assert store.objects() == {f"out/{name}": data for name, data in wanted.items()}


def test_a_file_is_replaced_only_by_a_whole_one(store: Store, tmp_path: Path) -> None:
    np.savez(tmp_path / "small.npz", up=np.ones((64, 128), np.float32))
    with store.filesystem.open_output_stream(f"{BUCKET}/out.gguf") as old:
        old.write(b"old")

    def stall(request: Request) -> str | None:
        is_part = "partNumber" in request.query and request.key == "out.gguf"
        return "stall" if is_part else None

    store.faults.fault = stall
    arguments = tmp_path / "small.npz", f"s3://{BUCKET}/out.gguf"
    process = subprocess.Popen(command(*arguments, "--overwrite"))
    assert store.faults.stalled.wait(HANG)
    process.send_signal(signal.SIGINT)
    store.faults.fault = lambda request: "500" if request.key == "out.gguf" else None
    store.faults.go_on.set()
    assert process.wait(HANG) == 130
    store.faults.fault = lambda _request: None
    assert store.objects()["out.gguf"] == b"old"


def test_what_is_wrong_is_told_before_weights_are_read(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "nan.npz"
    np.savez(source, up=np.full((64, 128), np.nan, np.float32))
    error = failed(source, "s3://no-such-bucket/out.gguf")
    assert "'s3://no-such-bucket/out.gguf': " in error
    assert "NO_SUCH_BUCKET" in error
    assert "that the bucket is there" in error
    error = failed(source, f"s3://{BUCKET}/out.gguf", AWS_SECRET_ACCESS_KEY="another-secret")
    assert "Check the credentials" in error
    assert "another-secret" not in error
    nowhere = f"http://127.0.0.1:{free_port()}"
    error = failed(source, f"s3://{BUCKET}/out.gguf", AWS_ENDPOINT_URL=nowhere)
    assert "Check the name, that the bucket is there, and the network" in error
    assert not store.objects()
