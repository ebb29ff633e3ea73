"""Outputs of several files, which workers of a cluster make in a folder that they share with it.

Ray and Spark are large, and Spark needs Java, so `make test-fleet` runs these.
"""

from __future__ import annotations

import os
import signal
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from child import ROOT
from conversions_on_clusters import MEMORY, sharded, written
from fleet import kill_in_the_middle
from ray.cluster_utils import Cluster
from spark_sessions import ENVIRONMENT, session
from test_ray_conversions import node, started

from pyarrowquant import Step, convert
from pyarrowquant.conversion.partial.parts import Done
from pyarrowquant.conversion.partial.results import Note, PlacedResults
from pyarrowquant.conversion.partial.work import Work

EXECUTORS = "local-cluster[2,1,1024]"
COMPRESSED = {"to": "compressed-tensors", "recipe": "NVFP4A16"}  # of which layers share scales
SPLIT = {"recipe": "Q4_K_M", "split": 300_000}
There = Callable[[], AbstractContextManager[dict[str, Any]]]

# What Python does in processes that start with a folder of it.
UNSEEN = """
    from pyarrowquant.conversion.partial.shared_folder import SharedFolder

    SharedFolder.is_reached = lambda self: False
"""
DYING = """
    import os
    from pathlib import Path

    from fleet import take_part
    from pyarrowquant.formats import _outline

    fill = _outline._fill

    def filling(file, *arguments):
        if ".partial/" in str(file.name):
            take_part(Path(__file__).parent, str(os.getpid()))
        fill(file, *arguments)

    _outline._fill = filling
"""


@contextmanager
def on_ray() -> Iterator[dict[str, Any]]:
    cluster: Cluster = started()
    try:
        yield {"engine": "ray", "address": cluster.address}
    finally:
        cluster.shutdown()


@contextmanager
def on_spark() -> Iterator[dict[str, Any]]:
    with session(EXECUTORS):
        yield {"engine": "spark"}


@pytest.fixture(params=[on_ray, on_spark], ids=["ray", "spark"])
def there(request: pytest.FixtureRequest) -> There:
    found: There = request.param
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sharded(tmp_path_factory.mktemp("source") / "model")


@pytest.fixture(scope="module")
def wanted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a local run makes."""
    folder = tmp_path_factory.mktemp("here")
    convert(model, folder / "out", max_memory=MEMORY, **COMPRESSED)
    return written(folder)


@contextmanager
def starting_with(program: str, folder: Path) -> Iterator[None]:
    """Have processes that start begin with a program, which Python looks for under this name."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(textwrap.dedent(program))
    path = os.pathsep.join(map(str, [folder, ROOT, ROOT / "tests", Path(__file__).parent]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        patch.setitem(ENVIRONMENT, "PYTHONPATH", path)
        yield


@contextmanager
def losing_a_worker(folder: Path, place: Path, begun: str) -> Iterator[None]:
    """Have workers, the first of which is killed while it writes.

    A pattern says what of the place it has begun by then.
    """
    found: list[Path] = []

    def kill(worker: str) -> None:
        found.extend(place.glob(begun))
        os.kill(int(worker), signal.SIGKILL)

    with starting_with(DYING, folder):
        killing = kill_in_the_middle(folder, kill)
        yield
        killing.join()
    assert found


def by_the_driver(patch: pytest.MonkeyPatch) -> tuple[list[str], list[Done]]:
    """Watch which files workers have made, and how often results come to the driver."""
    files: list[str] = []
    results: list[Done] = []
    note, add = Work.note_file, PlacedResults.add

    def noted(self: Work, name: str, *more: Any) -> None:
        files.append(name)
        note(self, name, *more)

    def added(self: PlacedResults, batch: Any, done: Done) -> Note:
        results.append(done)
        return add(self, batch, done)

    patch.setattr(Work, "note_file", noted)
    patch.setattr(PlacedResults, "add", added)
    return files, results


@pytest.fixture(scope="class")
def clusters() -> Iterator[dict[str, dict[str, Any]]]:
    with on_ray() as ray, on_spark() as spark:
        yield {"ray": ray, "spark": spark, "local": {}}


class TestOnOneCluster:
    @pytest.mark.parametrize("engine", ["ray", "spark"])
    @pytest.mark.parametrize("options", [COMPRESSED, SPLIT], ids=["compressed", "split"])
    def test_workers_write_what_one_machine_does(
        self,
        clusters: dict[str, dict[str, Any]],
        model: Path,
        tmp_path: Path,
        engine: str,
        options: dict[str, Any],
    ) -> None:
        name = "out" if "to" in options else "out.gguf"
        told, done, steps = [], [], []
        for place, where in (("here", {}), ("there", clusters[engine])):
            (tmp_path / place).mkdir()
            with warnings.catch_warnings(record=True) as warned, pytest.MonkeyPatch.context() as p:
                warnings.simplefilter("always", UserWarning)
                files, results = by_the_driver(p)
                given = {"max_memory": MEMORY, "progress": steps.append, **options, **where}
                done.append(convert(model, tmp_path / place / name, **given))
            told.append([str(each.message) for each in warned])
            steps[:-1] = steps[: place == "there"]
        assert written(tmp_path / "there") == written(tmp_path / "here")
        assert len(files) > 2
        assert not results
        assert told[0] == told[1]
        assert steps[0] == steps[1]
        for said in ("layers", "missed", "underflows", "weights", "bytes", "relative_error"):
            assert getattr(done[0], said) == getattr(done[1], said)
        assert {each.name for each in (tmp_path / "there").iterdir()} == {
            each.name for each in (tmp_path / "here").iterdir()
        }

    @pytest.mark.parametrize(
        ("first", "second"), [("ray", "local"), ("local", "ray"), ("spark", "ray")]
    )
    def test_an_interrupted_run_goes_on_on_another_engine(
        self,
        clusters: dict[str, dict[str, Any]],
        model: Path,
        wanted: dict[str, bytes],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        first: str,
        second: str,
    ) -> None:
        def fails(step: Step) -> None:
            if step.layers > 10:
                raise RuntimeError("out of paper")

        files, results = by_the_driver(monkeypatch)
        again = {"max_memory": MEMORY, **COMPRESSED}
        with (
            pytest.raises(RuntimeError, match="out of paper"),
            pytest.warns(UserWarning, match="What is done stays"),
        ):
            convert(model, tmp_path / "out", progress=fails, **again, **clusters[first])
        assert bool(files) == (first != "local")
        assert not (tmp_path / "out").exists()
        convert(model, tmp_path / "out", resume=True, **again, **clusters[second])
        assert len(files) == len(set(files)) == (0 if first == "local" else 4)
        assert bool(results) == (first == "local")
        assert written(tmp_path) == wanted


def test_workers_that_do_not_see_the_folder(
    there: There,
    model: Path,
    wanted: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their results go through the driver, without a word."""
    files, results = by_the_driver(monkeypatch)
    (tmp_path / "place").mkdir()
    with starting_with(UNSEEN, tmp_path / "unseen"), there() as where:
        convert(model, tmp_path / "place" / "out", max_memory=MEMORY, **COMPRESSED, **where)
    assert written(tmp_path / "place") == wanted
    assert not files
    assert results


def test_one_of_two_workers_does_not_see_the_folder(
    model: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    cluster = Cluster(initialize_head=True, head_node_args=node(0))
    cluster.add_node(**node(1))
    with starting_with(UNSEEN, tmp_path / "unseen"):
        cluster.add_node(**node(1))
    cluster.wait_for_nodes()
    (tmp_path / "place").mkdir()
    where = {"engine": "ray", "address": cluster.address}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of some that see it, if any do in time
            convert(model, tmp_path / "place" / "out", max_memory=MEMORY, **COMPRESSED, **where)
    finally:
        cluster.shutdown()
    assert written(tmp_path / "place") == wanted


def test_a_worker_dies_while_it_writes(
    there: There,
    model: Path,
    wanted: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it has of a file is none of the output, and another worker makes that again."""
    files, results = by_the_driver(monkeypatch)
    place = tmp_path / "place"
    place.mkdir()
    begun = ".out.partial/files/*/*.tmp"
    with losing_a_worker(tmp_path / "dying", place, begun), there() as where:
        convert(model, place / "out", max_memory=MEMORY, **COMPRESSED, **where)
    assert written(place) == wanted
    assert [each.name for each in place.iterdir()] == ["out"]
    assert len(files) == 4
    assert not results
