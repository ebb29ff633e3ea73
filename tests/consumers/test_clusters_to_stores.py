"""Outputs of several files, which workers of a cluster make and put into a real S3 server.

It needs Ray, Java and Maven, so `make test-fleet` runs these.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import psutil
import pytest
from child import HANG, wait_until
from conversions_on_clusters import MEMORY, sharded, with_nan, written
from fsspec.implementations.memory import MemoryFileSystem
from ray.cluster_utils import Cluster
from s3_server import BUCKET, Proxy, Request, Server, Store
from spark_sessions import ENVIRONMENT, session
from test_ray_conversions import started

from pyarrowquant import QuantizationError, convert
from pyarrowquant.conversion.stores import store as store_module

WEIGHTS = [f"model-{n:05d}-of-00004.safetensors" for n in range(1, 5)]
EXECUTORS = "local-cluster[2,1,1024]"
COMPRESSED = {"to": "compressed-tensors", "recipe": "NVFP4A16"}  # of which layers share scales
SPLIT = {"recipe": "Q4_K_M", "split": 300_000}
OUT = f"s3://{BUCKET}/out"


@pytest.fixture(scope="module", autouse=True)
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    server = Server(tmp_path_factory.mktemp("s3proxy"))
    made = Proxy(server)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**made.environment, **ENVIRONMENT}.items():
            patch.setenv(name, value)  # before workers start
        yield made
    made.stop()
    server.stop()


@pytest.fixture(scope="module")
def ray_there() -> Iterator[dict[str, Any]]:
    cluster: Cluster = started()
    yield {"engine": "ray", "address": cluster.address}
    cluster.shutdown()


@pytest.fixture(scope="module")
def spark_there(proxy: Proxy) -> Iterator[dict[str, Any]]:
    with session(EXECUTORS, proxy.environment):
        yield {"engine": "spark"}


@pytest.fixture(params=["ray", "spark"])
def there(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_there")


@pytest.fixture
def store(proxy: Proxy) -> Store:
    return Store(proxy)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sharded(tmp_path_factory.mktemp("source") / "model")


@pytest.fixture(scope="module")
def wanted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a local run makes."""
    folder = tmp_path_factory.mktemp("here")
    convert(model, folder / "out", max_memory=MEMORY, **COMPRESSED)
    return whole(folder / "out")


def whole(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in written(folder).items() if (folder / name).is_file()}


def is_put(request: Request, name: str) -> bool:
    return request.method in ("PUT", "POST") and request.key.endswith(name)


@pytest.mark.parametrize("options", [COMPRESSED, SPLIT], ids=["compressed", "split"])
def test_workers_write_what_one_machine_does(
    store: Store,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: dict[str, Any],
    options: dict[str, Any],
) -> None:
    by_driver: list[str] = []
    upload = store_module.Store.upload

    def watched(self: store_module.Store, file: Path, path: str) -> store_module.Stamp:
        by_driver.append(path)
        return upload(self, file, path)

    name = "out" if "to" in options else "out.gguf"
    told, done = [], []
    for place, engine in ((f"s3://{BUCKET}/{name}", there), (tmp_path / name, {})):
        with warnings.catch_warnings(record=True) as warned, monkeypatch.context() as patch:
            warnings.simplefilter("always", UserWarning)
            patch.setattr(store_module.Store, "upload", watched)
            done.append(convert(model, place, max_memory=MEMORY, **options, **engine))
        told.append([str(each.message) for each in warned])
    assert store.objects() == whole(tmp_path)
    assert len([file for file in store.objects() if file.endswith(("safetensors", "gguf"))]) > 2
    assert not [path for path in by_driver if path.endswith(("safetensors", "gguf"))]
    assert told[0] == told[1]
    for said in ("layers", "missed", "underflows", "weights", "bytes", "relative_error"):
        assert getattr(done[0], said) == getattr(done[1], said)


def kill_client(port: int) -> None:
    """Kill the process that has a connection from a port."""
    for process in psutil.process_iter():
        try:
            found = any(each.laddr.port == port for each in process.net_connections("tcp"))
        except psutil.Error:
            continue
        if found and process.pid != os.getpid():
            process.send_signal(signal.SIGKILL)
            return
    raise AssertionError(f"no process is at port {port}")


@pytest.mark.parametrize("moment", ["uploading", "uploaded"])
def test_a_worker_dies(
    store: Store, model: Path, wanted: dict[str, bytes], there: dict[str, Any], moment: str
) -> None:
    """What it has put into the store, or was about to, another does again."""
    killed: list[int] = []

    def kill(request: Request) -> str | None:
        is_time = (
            is_put(request, WEIGHTS[1])
            if moment == "uploading"
            else request.method == "HEAD"
            and request.key == f"out/{WEIGHTS[1]}"
            and any(is_put(each, WEIGHTS[1]) for each in store.faults.seen)
        )
        if is_time and not killed:
            killed.append(request.port)
            kill_client(request.port)
            return "reset"
        return None

    store.faults.fault = kill
    convert(model, OUT, max_memory=MEMORY, **COMPRESSED, **there)
    assert killed
    assert store.objects() == {f"out/{name}": data for name, data in wanted.items()}


@pytest.mark.parametrize(
    ("first", "second"), [("ray", "local"), ("local", "ray"), ("spark", "ray")]
)
def test_an_interrupted_run_goes_on_on_another_engine(
    store: Store,
    model: Path,
    wanted: dict[str, bytes],
    ray_there: dict[str, Any],
    first: str,
    second: str,
) -> None:
    engines = {
        "local": [],
        "ray": ["--engine", "ray", "--address", ray_there["address"]],
        "spark": ["--engine", "spark", "--address", EXECUTORS],
    }
    options = ["--to", "compressed-tensors", "--recipe", "NVFP4A16", "--max-memory", "140M"]
    command = [sys.executable, "-m", "pyarrowquant", "quantize", model, OUT, *options]

    store.faults.fault = lambda request: "stall" if is_put(request, WEIGHTS[3]) else None
    process = subprocess.Popen([*command, *engines[first]], stderr=subprocess.PIPE, text=True)
    assert store.faults.stalled.wait(HANG)
    assert wait_until(lambda: is_noted(store, WEIGHTS[0]))
    process.send_signal(signal.SIGINT)
    store.faults.fault = lambda _request: None
    store.faults.go_on.set()
    _, error = process.communicate(timeout=HANG)
    assert process.returncode == 130, error
    assert f"What is done stays in 's3://{BUCKET}/.out.partial'" in error
    assert not store.objects("out").keys() & {"config.json", "model.safetensors.index.json"}
    store.faults.seen.clear()
    subprocess.run([*command, *engines[second], "--resume"], check=True, timeout=HANG)
    assert not [each for each in store.faults.seen if is_put(each, WEIGHTS[0])]
    assert store.objects() == {f"out/{name}": data for name, data in wanted.items()}


def is_noted(store: Store, name: str) -> bool:
    """Whether a run has noted a file as whole."""
    with store.filesystem.open_input_stream(f"{BUCKET}/.out.partial/stored.json") as opened:
        _, _, text = opened.read().partition(b"\n")  # the checksum comes first
    try:
        return name in json.loads(text)["files"]
    except ValueError:  # it was replaced meanwhile
        return False


def test_an_error_names_the_layer_the_file_and_the_worker(
    store: Store, model: Path, tmp_path: Path, ray_there: dict[str, Any]
) -> None:
    bad = with_nan(model, tmp_path / "bad")
    where = rf"\(file 'model-0000\d-of-00004.safetensors' of '{bad}' on the worker \S+\)"
    with pytest.raises(QuantizationError, match=f"contains NaN.*{where}"):
        convert(bad, OUT, to="compressed-tensors", max_memory=MEMORY, **ray_there)
    assert not store.objects("out").keys() & {"config.json", "model.safetensors.index.json"}


def test_a_store_that_workers_do_not_reach(model: Path, there: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Worker \S+ does not find in 'memory://bucket/out' what"):
        convert(model, "memory://bucket/out", to="compressed-tensors", **there)


class OnlyHere(MemoryFileSystem):
    """A store of a kind that workers do not know."""

    protocol = "onlyhere"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(MemoryFileSystem._strip_protocol(path.removeprefix("onlyhere:/")))


def test_a_store_that_workers_cannot_open(model: Path, there: dict[str, Any]) -> None:
    fsspec.register_implementation("onlyhere", OnlyHere, clobber=True)
    where = r"\(file 'model-0000\d-of-00004.safetensors' of '.*' on the worker \S+\)$"
    with pytest.raises((OSError, ValueError), match=f"onlyhere.* {where}") as caught:
        convert(model, "onlyhere://bucket/out", to="compressed-tensors", **there)
    assert "\n" not in str(caught.value)
