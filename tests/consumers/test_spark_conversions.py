"""Conversions whose batches are tasks on Spark: what one machine makes, byte for byte.

Spark is large and needs Java, so `make test-fleet` runs these in an environment of their own.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
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
from pyspark import SparkContext
from pyspark.sql import SparkSession
from spark_sessions import ENVIRONMENT, session

import pyarrowquant
from pyarrowquant import Step, UsageError, convert
from pyarrowquant.conversion.clusters import cluster

EXECUTORS = "local-cluster[2,1,1024]"  # processes of their own, of one CPU each
THERE: dict[str, Any] = {"engine": "spark"}


@pytest.fixture(scope="module")
def two_executors() -> Iterator[SparkSession]:
    with session(EXECUTORS) as spark:
        yield spark


def executors() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    said = [" ".join(process.as_dict(["cmdline"])["cmdline"] or ()) for process in found]
    return [
        process
        for process, command in zip(found, said, strict=True)
        if "CoarseGrainedExecutorBackend" in command
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sharded(tmp_path_factory.mktemp("source") / "model")


def nothing_runs(spark: SparkSession) -> bool:
    return not spark.sparkContext.statusTracker().getActiveJobsIds()


class TestAnAddress:
    """These come first, as there is no session yet."""

    def test_where_nothing_answers(self, model: Path, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            address = f"spark://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=f"no Spark at '{address}': "):
            convert(model, tmp_path / "out.gguf", address=address, **THERE)
        assert written(tmp_path) == {}

    def test_where_something_else_answers(self, model: Path, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"spark://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(ConnectionError, match=r"no Spark at .*: 127.0.0.1:\d+ does not"):
                convert(model, tmp_path / "out.gguf", address=address, **THERE)

    @pytest.mark.parametrize("address", ["here", "sc://127.0.0.1:15002", "spark://127.0.0.1"])
    def test_that_is_none(self, model: Path, tmp_path: Path, address: str) -> None:
        with pytest.raises(UsageError, match=r"spark://\S+:\S+"):
            convert(model, tmp_path / "out.gguf", address=address, **THERE)

    def test_of_a_cluster_that_ends_with_the_run(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        check_interrupt(["--engine", "spark", "--address", EXECUTORS], model, tmp_path)


@pytest.mark.usefixtures("two_executors")
class TestOnASession:
    @conversions
    def test_bytes_are_those_of_one_machine(
        self, model: Path, tmp_path: Path, name: str, options: dict[str, Any]
    ) -> None:
        columns = importance(model.parent / "imatrix.gguf")
        check_bytes(THERE, model, columns, tmp_path, name, options)

    @pytest.mark.parametrize(
        "options", [{}, {"bits_per_weight": 4.6}], ids=["quantized", "measured"]
    )
    def test_a_failing_layer_is_named_or_left_out(
        self, model: Path, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        check_failing_layer(THERE, model, tmp_path, options)

    def test_an_interrupted_run_goes_on_on_any_engine(
        self, two_executors: SparkSession, model: Path, tmp_path: Path
    ) -> None:
        check_resumes(THERE, model, tmp_path)
        assert nothing_runs(two_executors)

    def test_results_of_several_pieces(self, tmp_path: Path) -> None:
        """A result of 134 MB is more than Spark hands over in one piece."""
        rng = np.random.default_rng(0)
        np.savez(tmp_path / "large.npz", up=rng.standard_normal((2**14, 2**13), dtype=np.float32))
        settings = {"bit_width": 8, "method": "rtn", "max_memory": 500_000_000}
        convert(tmp_path / "large.npz", tmp_path / "here.parquet", **settings)
        convert(tmp_path / "large.npz", tmp_path / "there.parquet", **settings, **THERE)
        assert written(tmp_path)["here.parquet"] == written(tmp_path)["there.parquet"]

    def test_an_executor_is_killed_in_the_middle(self, model: Path, tmp_path: Path) -> None:
        """What it was about to do, others do again."""
        convert(model, tmp_path / "here.gguf", max_memory=MEMORY)
        killed: list[int] = []

        def kill(step: Step) -> None:
            if step.layers and not killed:
                victim = executors()[0]
                victim.send_signal(signal.SIGKILL)
                killed.append(victim.pid)

        convert(model, tmp_path / "there.gguf", max_memory=MEMORY, progress=kill, **THERE)
        assert killed
        assert written(tmp_path)["here.gguf"] == written(tmp_path)["there.gguf"]

    def test_results_that_the_driver_has_no_memory_for(self, model: Path, tmp_path: Path) -> None:
        heap = SparkContext._active_spark_context._jvm.java.lang.Runtime.getRuntime().maxMemory()
        with pytest.warns(UserWarning, match=r"No more than 1 of 2 tasks run at a time"):
            convert(model, tmp_path / "there.parquet", max_memory=heap * 2, **THERE)
        convert(model, tmp_path / "here.parquet")
        assert written(tmp_path)["here.parquet"] == written(tmp_path)["there.parquet"]


@pytest.mark.usefixtures("two_executors")
class TestBeforeAnyWork:
    def test_there_is_a_session_already(self, model: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="a session of Spark already: leave out address="):
            convert(model, tmp_path / "out.gguf", address="local[1]", **THERE)

    def test_other_threads_than_a_task_has(self, model: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"threads=2 differs from .*session has 1"):
            convert(model, tmp_path / "out.gguf", threads=2, **THERE)

    def test_workers_of_another_version(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cluster, "__version__", "0.0.1")
        has = f"has pyarrowquant {pyarrowquant.__version__}, and the driver 0.0.1. Install"
        with pytest.raises(ValueError, match=rf"Worker \S+ {has} pyarrowquant 0.0.1"):
            convert(model, tmp_path / "out.gguf", **THERE)
        assert written(tmp_path) == {}

    def test_a_source_that_workers_do_not_see(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A path that leads each process to its own folder stands for disks of machines."""
        monkeypatch.chdir(tmp_path)
        np.savez("model.npz", up=np.ones((8, 256), np.float32))
        source = "/proc/self/cwd/model.npz"
        with pytest.raises(ValueError, match=rf"Worker \S+ cannot open '{source}': "):
            convert(source, "out.gguf", **THERE)
