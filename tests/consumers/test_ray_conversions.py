"""Conversions whose batches are tasks on a cluster of Ray: what one machine makes, byte for byte.

Ray is large, so `make test-fleet` runs these in an environment of their own.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from child import HANG, wait_until
from conversions_on_clusters import (
    MEMORY,
    check_bytes,
    check_failing_layer,
    check_interrupt,
    check_resumes,
    conversions,
    importance,
    sharded,
    written,
)
from ray.cluster_utils import Cluster
from s3_server import free_port

import pyarrowquant
from pyarrowquant import Step, UsageError, convert
from pyarrowquant.conversion.clusters import cluster as cluster_module

STORE = 200_000_000  # bytes for blocks in shared memory


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


@contextmanager
def started_by_command(options: list[str], environment: dict[str, str]) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", *options], env=environment
    ) as head:
        try:
            yield
        finally:
            head.terminate()


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as opened:
        return opened.connect_ex((host, int(port))) == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sharded(tmp_path_factory.mktemp("source") / "model")


@conversions
def test_bytes_are_those_of_one_machine(
    cluster: Cluster, model: Path, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    there = {"engine": "ray", "address": cluster.address}
    columns = importance(model.parent / "imatrix.gguf")
    check_bytes(there, model, columns, tmp_path, name, options)
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


@pytest.mark.parametrize("options", [{}, {"bits_per_weight": 4.6}], ids=["quantized", "measured"])
def test_a_failing_layer_is_named_or_left_out(
    cluster: Cluster, model: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    check_failing_layer({"engine": "ray", "address": cluster.address}, model, tmp_path, options)


def test_an_interrupted_run_goes_on_on_any_engine(
    cluster: Cluster, model: Path, tmp_path: Path
) -> None:
    check_resumes({"engine": "ray", "address": cluster.address}, model, tmp_path)


def test_an_interrupt_leaves_what_resume_continues(
    cluster: Cluster, model: Path, tmp_path: Path
) -> None:
    check_interrupt(["--engine", "ray", "--address", cluster.address], model, tmp_path)


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


def test_a_cluster_that_asks_for_a_token(model: Path, tmp_path: Path) -> None:
    """As one of `ray start` does where a token has been made, such as by `ray.init()`."""
    address = f"127.0.0.1:{free_port()}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "that-of-the-cluster"}
    plain = {name: value for name, value in os.environ.items() if name not in token}
    start = ["--head", "--block", "--num-cpus=1", "--include-dashboard=false"]
    command = [sys.executable, "-m", "pyarrowquant", "quantize", str(model)]
    command += [str(tmp_path / "there.gguf"), "--engine", "ray", "--address", address]
    with (
        tempfile.TemporaryDirectory() as folder,
        started_by_command(
            [*start, f"--port={address.rpartition(':')[2]}", f"--temp-dir={folder}"], plain | token
        ),
    ):
        assert wait_until(lambda: answers(address))
        for environment, said in (
            (plain, "asks for its token. Set RAY_AUTH_MODE=token"),
            (plain | token | {"RAY_AUTH_TOKEN": "another"}, "asks for its token"),
            (plain | token, ""),
        ):
            done = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                text=True,
                timeout=HANG,
                check=False,
            )
            assert said in done.stderr
            assert done.returncode == (1 if said else 0), done.stderr
    convert(model, tmp_path / "here.gguf")
    assert written(tmp_path)["here.gguf"] == written(tmp_path)["there.gguf"]


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
