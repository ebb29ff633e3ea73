"""Conversions whose batches are tasks on a cluster of Ray: what one machine makes, byte for byte.

Ray is large, so `make test-fleet` runs these in an environment of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf_models
import hf_folders
import numpy as np
import pytest
import ray
from child import HANG
from exports import files
from models import write_shards
from ray.cluster_utils import Cluster
from safetensors.numpy import load_file

import pyarrowquant
from pyarrowquant import QuantizationError, Step, UsageError, convert
from pyarrowquant.conversion import cluster as cluster_module

STORE = 200_000_000  # bytes for blocks in shared memory
MEMORY = 140_000_000  # of which a batch has some MB
BAD = "model.layers.3.mlp.up_proj.weight"


def node(cpus: int) -> dict[str, Any]:
    return {"num_cpus": cpus, "object_store_memory": STORE, "include_dashboard": False}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which workers run."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def cluster(elsewhere: Path) -> Iterator[Cluster]:
    """A machine that has no CPUs for tasks, and two with one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)
        made = started()
    yield made
    made.shutdown()


def started() -> Cluster:
    made = Cluster(initialize_head=True, head_node_args=node(0))
    for _ in range(2):
        made.add_node(**node(1))
    made.wait_for_nodes()
    return made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a language model in shards; layers that engines join lie in different ones."""
    folder = hf_folders.write(tmp_path_factory.mktemp("source") / "model", hf_folders.llama(8))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {f"model-0000{i + 1}-of-00004.safetensors": names[i::4] for i in range(4)}
    return write_shards(
        folder, {file: {name: tensors[name] for name in each} for file, each in shards.items()}
    )


@pytest.fixture(scope="module")
def importance(model: Path) -> Path:
    columns = np.arange(1, 257, dtype=np.float32)
    names = [f"model.layers.{i}.self_attn.{part}_proj.weight" for i in range(8) for part in "qkv"]
    return gguf_models.imatrix(
        model.parent / "imatrix.gguf", {name: (columns, np.ones(1)) for name in names}
    )


def written(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(folder).items() if not name.startswith(".")}


def with_nan(model: Path, folder: Path) -> Path:
    """The model, one of whose layers has a NaN."""
    folder.mkdir()
    for file in model.iterdir():
        data = bytearray(file.read_bytes())
        if file.suffix == ".safetensors":
            start = 8 + int.from_bytes(data[:8], "little")
            header = json.loads(data[8:start])
            if BAD in header:
                at = start + header[BAD]["data_offsets"][0] + 20
                data[at : at + 4] = np.float32("nan").tobytes()
        (folder / file.name).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out.gguf", {"recipe": "Q4_K_M"}),
        ("out", {"to": "compressed-tensors", "recipe": "NVFP4A16"}),
        ("out.parquet", {"quality_floor": 0.9975}),
        ("out", {"to": "arrow", "bits_per_weight": 4.4}),
        ("out", {"to": "compressed-tensors", "rescale": "on", "importance": True}),
    ],
    ids=["gguf", "nvfp4", "floor", "budget", "rescaled"],
)
def test_bytes_are_those_of_one_machine(
    cluster: Cluster,
    model: Path,
    importance: Path,
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
) -> None:
    if "importance" in options:
        options = {**options, "importance": importance}
    made = []
    for folder, engine in (("here", {}), ("there", {"engine": "ray", "address": cluster.address})):
        (tmp_path / folder).mkdir()
        steps: list[Step] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path / folder)
            source = os.path.relpath(model)
            done = convert(
                source, name, max_memory=MEMORY, progress=steps.append, **engine, **options
            )
        assert steps[-1].layers == done.layers
        made.append((done, steps[-1], written(tmp_path / folder)))
    (here, last_here, wanted), (there, last_there, found) = made
    assert found == wanted
    assert last_here == last_there
    for said in ("layers", "missed", "underflows", "weights", "bytes", "relative_error"):
        assert getattr(here, said) == getattr(there, said)
    assert not ray.is_initialized()


def test_a_connection_of_the_program_is_used(cluster: Cluster, model: Path, tmp_path: Path) -> None:
    convert(model, tmp_path / "here.parquet")
    cluster.connect()
    try:
        convert(model, tmp_path / "there.parquet", engine="ray")
        with pytest.raises(UsageError, match="connected to a cluster already: leave out address="):
            convert(model, tmp_path / "no.parquet", engine="ray", address=cluster.address)
        assert ray.is_initialized()
    finally:
        ray.shutdown()
    assert written(tmp_path)["here.parquet"] == written(tmp_path)["there.parquet"]


def test_a_failing_layer_is_named_or_left_out(
    cluster: Cluster, model: Path, tmp_path: Path
) -> None:
    bad = with_nan(model, tmp_path / "bad")
    there = {"engine": "ray", "address": cluster.address, "max_memory": MEMORY}
    place = r"\(batch \d+ of '.*bad' on the worker \S+\)"
    with pytest.raises(QuantizationError, match=f"Layer '{BAD}' contains NaN.*{place}") as caught:
        convert(bad, tmp_path / "out.parquet", **there)
    assert [error.layer_name for error in caught.value.errors] == [BAD]

    told = []
    for name, options in (("here.parquet", {"max_memory": MEMORY}), ("there.parquet", there)):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UserWarning)
            done = convert(bad, tmp_path / name, continue_on_error=True, **options)
        told.append((done.skipped, [str(each.message) for each in warned]))
    assert told[0] == told[1]
    assert written(tmp_path)["here.parquet"] == written(tmp_path)["there.parquet"]


def test_an_interrupted_run_goes_on_on_any_engine(
    cluster: Cluster, model: Path, tmp_path: Path
) -> None:
    convert(model, tmp_path / "whole.gguf", max_memory=MEMORY)
    there = {"engine": "ray", "address": cluster.address}

    def fails(step: Step) -> None:
        if step.layers > 10:
            raise RuntimeError("out of paper")

    for name, first, second in (("a.gguf", there, {}), ("b.gguf", {}, there)):
        with (
            pytest.raises(RuntimeError, match="out of paper"),
            pytest.warns(UserWarning, match="What is done stays"),
        ):
            convert(model, tmp_path / name, max_memory=MEMORY, progress=fails, **first)
        steps: list[Step] = []
        convert(
            model,
            tmp_path / name,
            max_memory=MEMORY,
            resume=True,
            progress=steps.append,
            **second,
        )
        assert 0 < steps[-1].layers < 8 * 7
        assert written(tmp_path)[name] == written(tmp_path)["whole.gguf"]


def test_an_interrupt_leaves_what_resume_continues(
    cluster: Cluster, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    command = [sys.executable, "-m", "pyarrowquant", "quantize", model, out, "--max-memory", "140M"]
    there = ["--engine", "ray", "--address", cluster.address]
    # Sends itself Ctrl-C once something is on the disk.
    program = """
import os, signal, sys
from pyarrowquant.conversion.work import Work
add = Work.add

def added(*arguments):
    add(*arguments)
    os.kill(os.getpid(), signal.SIGINT)

Work.add = added
from pyarrowquant.__main__ import main
main()
"""
    interrupted = subprocess.run(
        [sys.executable, "-c", program, *map(str, command[3:]), *there],
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert interrupted.returncode == 130, interrupted.stderr
    assert "Interrupted" in interrupted.stderr
    assert not out.exists()
    subprocess.run([*command, *there, "--resume"], check=True, timeout=HANG)
    convert(model, tmp_path / "whole.parquet", max_memory=MEMORY)
    assert written(tmp_path)["out.parquet"] == written(tmp_path)["whole.parquet"]


class TestBeforeAnyWork:
    def test_an_address_that_does_not_answer(self, model: Path, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        with pytest.raises(ConnectionError, match=f"no cluster of Ray at .*:{port}'"):
            convert(model, tmp_path / "out.gguf", engine="ray", address=f"127.0.0.1:{port}")
        assert written(tmp_path) == {}

    def test_an_address_where_something_else_answers(self, model: Path, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(ConnectionError, match="what answers there is not Ray"):
                convert(model, tmp_path / "out.gguf", engine="ray", address=address)

    @pytest.mark.parametrize("address", ["here", "ray://127.0.0.1:10001", "127.0.0.1:"])
    def test_an_address_that_is_none(self, model: Path, tmp_path: Path, address: str) -> None:
        with pytest.raises(UsageError, match=r"HOST:PORT|of a proxy"):
            convert(model, tmp_path / "out.gguf", engine="ray", address=address)

    def test_more_threads_than_a_worker_has(
        self, cluster: Cluster, model: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match="threads=2 is more than any worker"):
            convert(model, tmp_path / "out.gguf", engine="ray", address=cluster.address, threads=2)

    def test_workers_of_another_version(
        self, cluster: Cluster, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cluster_module, "__version__", "0.0.1")
        has = f"has pyarrowquant {pyarrowquant.__version__}, and the driver 0.0.1. Install"
        with pytest.raises(ValueError, match=rf"Worker [\d.]+ {has} pyarrowquant 0.0.1"):
            convert(model, tmp_path / "out.gguf", engine="ray", address=cluster.address)

    def test_a_source_that_workers_do_not_see(
        self,
        cluster: Cluster,
        elsewhere: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A path that leads each process to its own folder stands for disks of machines."""
        monkeypatch.chdir(tmp_path)
        np.savez("model.npz", up=np.ones((8, 256), np.float32))
        source, there = "/proc/self/cwd/model.npz", {"engine": "ray", "address": cluster.address}
        with pytest.raises(ValueError, match=rf"Worker [\d.]+ cannot open '{source}': "):
            convert(source, "out.gguf", **there)
        np.savez(elsewhere / "model.npz", up=np.zeros((8, 256), np.float32))
        with pytest.raises(ValueError, match=rf"Worker [\d.]+ finds other files under '{source}'"):
            convert(source, "out.gguf", **there)
        shutil.copy(tmp_path / "model.npz", elsewhere)
        convert(source, "out.gguf", **there)


def test_a_node_is_killed_in_the_middle(model: Path, tmp_path: Path) -> None:
    """What it had done and nobody had taken, and what it was about to do, the other does again."""
    convert(model, tmp_path / "here.gguf", max_memory=MEMORY)
    cluster = Cluster(initialize_head=True, head_node_args=node(0))
    victim = cluster.add_node(**node(1))
    cluster.add_node(**node(1))
    cluster.wait_for_nodes()
    killed = threading.Event()

    def kill(step: Step) -> None:
        if step.layers and not killed.is_set():
            killed.set()
            cluster.remove_node(victim, allow_graceful=False)

    try:
        there = {"engine": "ray", "address": cluster.address}
        convert(model, tmp_path / "there.gguf", max_memory=MEMORY, progress=kill, **there)
    finally:
        cluster.shutdown()
    assert killed.is_set()
    assert written(tmp_path)["here.gguf"] == written(tmp_path)["there.gguf"]
