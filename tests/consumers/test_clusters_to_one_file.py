"""Outputs of one large file, whose pieces workers of a cluster write in a folder that they share.

Ray and Spark are large, and Spark needs Java, so `make test-fleet` runs these.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from child import HANG
from conversion.on_workers import Counted
from conversions_on_clusters import BAD, MEMORY, sharded, with_nan, written
from test_clusters_to_folders import (
    UNSEEN,
    There,
    losing_a_worker,
    on_ray,
    on_spark,
    starting_with,
)

from pyarrowquant import QuantizationError, Step, convert

GGUF: dict[str, Any] = {"recipe": "Q4_K_M"}
# Of the folder for MLX all weights are in one file.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gguf": ("out.gguf", GGUF),
    "mlx": ("out", {"to": "mlx"}),
}

# Sends itself a signal when it has noted something three times.
STOPPED = """
import os, signal, sys
from pyarrowquant.conversion.partial.work import Work
note = Work.note_done
left, how = 3, getattr(signal, sys.argv.pop(1))

def noting(*arguments):
    global left
    note(*arguments)
    left -= 1
    if not left:
        os.kill(os.getpid(), how)

Work.note_done = noting
from pyarrowquant.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sharded(tmp_path_factory.mktemp("source") / "model")


@pytest.fixture(scope="module")
def wanted(
    model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[dict[str, bytes], int]]:
    """What local runs make, and of how many layers."""
    found = {}
    for kind, (name, options) in KINDS.items():
        folder = tmp_path_factory.mktemp(kind)
        done = convert(model, folder / name, max_memory=MEMORY, **options)
        found[kind] = written(folder), done.layers
    return found


@pytest.fixture(params=[on_ray, on_spark], ids=["ray", "spark"])
def there(request: pytest.FixtureRequest) -> There:
    found: There = request.param
    return found


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@pytest.fixture(scope="class")
def clusters() -> Iterator[dict[str, dict[str, Any]]]:
    with on_ray() as ray, on_spark() as spark:
        yield {"ray": ray, "spark": spark, "local": {}}


Clusters = dict[str, dict[str, Any]]
Wanted = dict[str, tuple[dict[str, bytes], int]]


class TestOnOneCluster:
    @pytest.mark.parametrize("engine", ["ray", "spark"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_workers_write_what_one_machine_does(
        self,
        clusters: Clusters,
        model: Path,
        wanted: Wanted,
        tmp_path: Path,
        counted: Counted,
        engine: str,
        kind: str,
    ) -> None:
        name, options = KINDS[kind]
        steps: list[Step] = []
        given = {"max_memory": MEMORY, "progress": steps.append, **options}
        done = convert(model, tmp_path / name, **given, **clusters[engine])
        assert (written(tmp_path), done.layers) == wanted[kind]
        assert (counted.taken, counted.added) == (done.layers, 0)
        assert steps[-1].layers == done.layers
        assert [each.name for each in tmp_path.iterdir()] == [name]

    @pytest.mark.parametrize(
        ("first", "second"), [("ray", "local"), ("local", "ray"), ("spark", "ray")]
    )
    def test_an_interrupted_run_goes_on_on_another_engine(
        self,
        clusters: Clusters,
        model: Path,
        wanted: Wanted,
        tmp_path: Path,
        counted: Counted,
        first: str,
        second: str,
    ) -> None:
        def fails(step: Step) -> None:
            if step.layers > 10:
                raise RuntimeError("out of paper")

        again = {"max_memory": MEMORY, **GGUF}
        with (
            pytest.raises(RuntimeError, match="out of paper"),
            pytest.warns(UserWarning, match="What is done stays"),
        ):
            convert(model, tmp_path / "out.gguf", progress=fails, **again, **clusters[first])
        assert not (tmp_path / "out.gguf").exists()
        before = counted.taken, counted.added
        assert (before[0] > 0, before[1] > 0) == (first != "local", first == "local")
        convert(model, tmp_path / "out.gguf", resume=True, **again, **clusters[second])
        assert (counted.taken > before[0], counted.added > before[1]) == (
            second != "local",
            second == "local",
        )
        assert (written(tmp_path), counted.taken + counted.added) == wanted["gguf"]

    @pytest.mark.parametrize("engine", ["ray", "spark"])
    def test_a_failing_layer_is_named_or_left_out(
        self, clusters: Clusters, model: Path, tmp_path: Path, counted: Counted, engine: str
    ) -> None:
        bad = with_nan(model, tmp_path / "bad")
        options = {"to": "mlx", "max_memory": MEMORY}
        place = r"\(batch \d+ of '.*bad' on the worker \S+\)"
        with (
            pytest.raises(QuantizationError, match=f"Layer '{BAD}' contains NaN.*{place}"),
            pytest.warns(UserWarning, match="What is done stays"),
        ):
            convert(bad, tmp_path / "there", **options, **clusters[engine])
        made = []
        for name, where in (("here", {}), ("there", clusters[engine])):
            again = {"continue_on_error": True, "overwrite": True, **options}
            with pytest.warns(UserWarning, match=BAD):
                done = convert(bad, tmp_path / name, **again, **where)
            made.append((done.skipped, done.layers, written(tmp_path / name)))
        assert made[0] == made[1]
        assert made[0][0]
        assert not counted.added


def test_a_driver_is_killed_and_what_it_noted_is_damaged(
    model: Path, wanted: Wanted, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    arguments = ["quantize", model, place / "out.gguf", "--recipe", "Q4_K_M"]
    arguments += ["--max-memory", MEMORY, "--engine", "ray", "--address"]
    note = place / ".out.gguf.partial" / "done.json"

    def run(*program: str, more: str = "") -> subprocess.CompletedProcess[str]:
        said = [*map(str, arguments), where["address"], *more.split()]
        command = [sys.executable, *program, *said]
        return subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)

    with on_ray() as where:
        assert run("-c", STOPPED, "SIGKILL").returncode == -signal.SIGKILL
        whole = note.read_bytes()
        said = json.loads(whole.partition(b"\n")[2])
        assert said["written"]["size"]
        note.write_bytes(whole.replace(b'"batches": 3', b'"batches": 4'))
        refused = run("-m", "pyarrowquant", more="--resume")
        assert refused.returncode == 1
        assert "done.json' of an earlier run is damaged" in refused.stderr
        note.write_bytes(whole)
        kept = shutil.copytree(note.parent, tmp_path / "kept")
        file = note.parent / "output" / "out.gguf"
        size = file.stat().st_size
        os.truncate(file, 0)
        os.truncate(file, size)
        refused = run("-m", "pyarrowquant", more="--resume")
        assert refused.returncode == 1
        assert "was written, and is not there any more or has changed since" in refused.stderr
        shutil.copy(kept / "output" / "out.gguf", file)
        ended = run("-m", "pyarrowquant", more="--resume --json")
        assert ended.returncode == 0, ended.stderr
    assert (written(place), json.loads(ended.stdout)["layers"]) == wanted["gguf"]
    assert [each.name for each in place.iterdir()] == ["out.gguf"]


def test_an_interrupt_leaves_what_resume_continues(
    model: Path, wanted: Wanted, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    arguments = ["quantize", model, place / "out", "--to", "mlx", "--max-memory", MEMORY]
    command = [sys.executable, "-c", STOPPED, "SIGINT", *map(str, arguments)]
    with on_ray() as where:
        command += ["--engine", "ray", "--address", where["address"]]
        stopped = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
        assert stopped.returncode == 130, stopped.stderr
        assert "What is done stays" in stopped.stderr
        assert [each.name for each in place.iterdir()] == [".out.partial"]
        convert(model, place / "out", to="mlx", max_memory=MEMORY, resume=True, **where)
    assert written(place) == wanted["mlx"][0]


def test_workers_that_do_not_see_the_folder(
    there: There, model: Path, wanted: Wanted, tmp_path: Path, counted: Counted
) -> None:
    """Their results go through the driver, without a word."""
    place = tmp_path / "place"
    place.mkdir()
    with starting_with(UNSEEN, tmp_path / "unseen"), there() as where:
        convert(model, place / "out.gguf", max_memory=MEMORY, **GGUF, **where)
    assert (written(place), counted.added) == wanted["gguf"]
    assert not counted.taken


def test_a_worker_dies_while_it_writes(
    there: There, model: Path, wanted: Wanted, tmp_path: Path, counted: Counted
) -> None:
    """Another one writes the same again."""
    place = tmp_path / "place"
    place.mkdir()
    begun = ".out.gguf.partial/output/out.gguf"
    with losing_a_worker(tmp_path / "dying", place, begun), there() as where:
        convert(model, place / "out.gguf", max_memory=MEMORY, **GGUF, **where)
    assert (written(place), counted.taken) == wanted["gguf"]
    assert [each.name for each in place.iterdir()] == ["out.gguf"]
    assert not counted.added
