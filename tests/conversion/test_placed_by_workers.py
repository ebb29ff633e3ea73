"""Results that workers of a cluster write to their places in an output in the folder of a run.

This process stands for the workers; `make test-fleet` has real ones.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx_models
import pytest
from commands import failed, succeeded
from models import write_shards

from conversion.killing import FORMATS, SHARDS
from conversion.on_workers import WHOLE, Counted, Runs, base_of_gguf, workers
from pyarrowquant import Step, convert
from pyarrowquant.conversion.partial.checksums import with_checksum
from pyarrowquant.conversion.partial.parts import Done
from pyarrowquant.conversion.partial.results import Note, PlacedResults
from pyarrowquant.conversion.partial.shared_folder import SharedFolder, SharedOutput
from pyarrowquant.conversion.partial.work import Work
from pyarrowquant.conversion.placing import Placer

MANY = 100  # files, of which no output of these has as many
LAYERS = 2 * SHARDS
Opened = dict[Path, IO[bytes]] | None


@pytest.fixture(params=["compressed", "bitsandbytes", "mlx", "gguf"])
def runs(model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Runs:
    if request.param == "gguf":
        return Runs(base_of_gguf(tmp_path / "base"), tmp_path, "out.gguf", WHOLE, MANY)
    return Runs(model, tmp_path, *FORMATS[request.param], MANY)


@pytest.fixture
def one(model: Path, tmp_path: Path) -> Runs:
    return Runs(model, tmp_path, *FORMATS["mlx"], MANY)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def unseen_after(times: int, patch: pytest.MonkeyPatch) -> None:
    """Stand for workers that do not see the folder, after so many that do."""
    seen = SharedFolder.is_reached
    left = times

    def is_reached(self: SharedFolder) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and seen(self)

    patch.setattr(SharedFolder, "is_reached", is_reached)


def elsewhere_after(times: int, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Stand for workers that have a layer of their own over what is shared, after others."""
    opened = SharedOutput.opened
    left = times

    @contextmanager
    def opening(self: SharedOutput, paths: Iterable[Path]) -> Iterator[Opened]:
        nonlocal left
        left -= 1
        if left >= 0:
            with opened(self, paths) as files:
                yield files
            return
        with ExitStack() as stack:
            files = {}
            for path in paths:
                copy = Path(shutil.copy(path, folder / f"layer-{path.name}"))
                files[path] = stack.enter_context(copy.open("r+b"))
            yield files

    patch.setattr(SharedOutput, "opened", opening)


def test_no_results_go_through_the_driver(runs: Runs, counted: Counted) -> None:
    runs.ends(on_workers=True)
    assert counted.added == 0
    assert counted.taken > 2


def test_data_of_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(onnx_models.mlp(256).proto().SerializeToString())
    runs = Runs(model, tmp_path, "out.onnx", [], MANY)
    counted = Counted(monkeypatch)
    runs.ends(on_workers=True)
    assert (counted.taken, counted.added) == (2, 0)


def test_what_is_there_is_replaced(runs: Runs, counted: Counted) -> None:
    runs.ends()
    taken, added = counted.taken, counted.added
    runs.ends("--overwrite", on_workers=True)
    assert (taken, counted.added) == (0, added)
    assert counted.taken == added


@pytest.mark.parametrize("first", [True, False], ids=["begun by workers", "begun here"])
def test_another_run_does_the_rest(runs: Runs, counted: Counted, first: bool) -> None:
    runs.killed_after("note_done", 2, on_workers=first)
    before = counted.taken, counted.added
    assert bool(before[0]) == first != bool(before[1])
    runs.ends("--resume", on_workers=not first)
    after = counted.taken - before[0], counted.added - before[1]
    assert bool(after[0]) != first == bool(after[1])
    runs.ends("--overwrite")


def test_workers_go_on(runs: Runs, counted: Counted) -> None:
    runs.killed_after("note_done", 2, on_workers=True)
    runs.ends("--resume", on_workers=True)
    taken = counted.taken
    runs.ends("--overwrite", on_workers=True)
    assert taken == counted.taken - taken
    assert not counted.added


def test_failing_layers_are_left_out(runs: Runs, counted: Counted) -> None:
    """The output follows from what is left, so results are collected first."""
    runs.killed_after("note_done", 2, on_workers=True)
    taken = counted.taken
    runs.ends("--resume", "--continue-on-error", on_workers=True)
    assert counted.taken == taken
    assert not counted.added


def test_no_worker_sees_the_folder(
    runs: Runs, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen_after(0, monkeypatch)
    assert "Warning" not in runs.ends(on_workers=True)
    assert not counted.taken


def test_some_workers_see_the_folder(
    one: Runs, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen_after(4, monkeypatch)  # asked twice for a batch
    said = one.ends(on_workers=True)
    assert (counted.taken, counted.added) == (4, LAYERS - 4)
    assert f"Results of {LAYERS - 4} layers came through this process" in said
    assert f"some workers cannot write in '{one.partial}'" in said


@pytest.mark.parametrize("times", [0, 2])
def test_what_a_worker_writes_is_not_there(
    runs: Runs, tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """So what is left comes from workers, and is counted once."""
    elsewhere_after(times, tmp_path, monkeypatch)
    said = json.loads(runs.run("--json", on_workers=True).stdout)
    runs.check()
    assert counted.added
    assert bool(counted.taken) == bool(times)
    assert said["layers"] == counted.added + counted.taken


def test_progress_does_not_count_twice_what_is_done_again(
    model: Path, tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = []
    for name, told in (("whole", nullcontext()), ("again", pytest.warns(match="6 layers"))):
        steps: list[Step] = []
        with workers(MANY), told:
            convert(model, tmp_path / name, to="mlx", progress=steps.append)
        last.append(steps[-1])
        elsewhere_after(1, tmp_path, monkeypatch)
    assert counted.added == LAYERS - 2
    assert last[0] == last[1]


def test_files_that_workers_may_not_write(
    one: Runs, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> IO[bytes]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pyarrowquant.conversion.partial.shared_folder.opened_shared", refused)
    one.ends(on_workers=True)
    assert not counted.taken


def test_a_full_disk_of_workers_is_an_error(one: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> IO[bytes]:
        return os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb")

    monkeypatch.setattr("pyarrowquant.conversion.partial.shared_folder.opened_shared", full)
    result = one.run(on_workers=True)
    assert result.exit_code == 1
    assert f"No space left on device: '{one.output}'" in result.stderr


def test_what_workers_wrote_gets_lost_later(one: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a mounted bucket, where who closes a file last writes all of it."""
    take = PlacedResults.take

    def taken(self: PlacedResults, written: dict[str, str], done: Done) -> Note:
        note = take(self, written, done)
        if done.batches == 3:
            begin_anew(one.output / "model.safetensors")
        return note

    monkeypatch.setattr(PlacedResults, "take", taken)
    result = one.run(on_workers=True)
    assert result.exit_code == 1
    assert "does not have any more what workers wrote of layer 'layers.0." in result.stderr
    assert "Give a destination elsewhere" in result.stderr
    assert not list(one.place.iterdir())


def begin_anew(file: Path) -> None:
    """Have zeros in the place of all but the header."""
    size = file.stat().st_size
    with file.open("r+b") as opened:
        header = int.from_bytes(opened.read(8), "little")
        opened.truncate(8 + header)
        opened.truncate(size)


def test_what_workers_wrote_has_changed_before_a_run_goes_on(one: Runs) -> None:
    one.killed_after("note_done", 2, on_workers=True)
    begin_anew(one.output / "model.safetensors")
    for _ in range(2):
        said = failed(*one.arguments, "--resume")
        assert "layer 'layers.0." in said
        assert "was written, and is not there any more or has changed since" in said
    one.ends()


@pytest.mark.parametrize("how", ["a bit", "no checksums", "others"])
def test_a_damaged_note_is_not_continued(one: Runs, how: str) -> None:
    one.killed_after("note_done", 2, on_workers=True)
    note = one.partial / "done.json"
    data = note.read_bytes()
    said = json.loads(data.partition(b"\n")[2])
    assert said["written"]["size"]
    if how == "a bit":
        middle = len(data) // 2
        note.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    else:
        del said["written"]
        changed = {**said, "written": 5} if how == "others" else said
        note.write_bytes(with_checksum(json.dumps(changed)))
    assert "done.json' of an earlier run is damaged" in failed(*one.arguments, "--resume")
    one.ends()


@pytest.mark.parametrize("how", ["gone", "cut off", "a bit"])
def test_what_is_noted_of_layers_is_damaged(one: Runs, how: str) -> None:
    one.killed_after("note_done", 2, on_workers=True)
    note = one.partial / "written.txt"
    data = note.read_bytes()
    note.unlink()
    if how != "gone":
        note.write_bytes(data[:-1] if how == "cut off" else data[:-2] + b"x\n")
    assert "written.txt' of an earlier run is damaged" in failed(*one.arguments, "--resume")
    one.ends()


def test_what_was_not_noted_any_more_does_not_count(one: Runs, counted: Counted) -> None:
    """A run may be killed between its lines and the note that they count."""
    one.killed_after("note_done", 2, on_workers=True)
    with (one.partial / "written.txt").open("ab") as file:
        file.write(b"half a li")
    one.killed_after("note_done", 1, "--resume", on_workers=True)
    one.ends("--resume", on_workers=True)
    assert (counted.taken, counted.added) == (LAYERS, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts what a thread writes")
def test_notes_grow_with_the_layers_and_not_with_their_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = PlacedResults.take
    written = 0

    def taken(self: PlacedResults, layers: dict[str, str], done: Done) -> Note:
        note = take(self, layers, done)

        def counted() -> None:
            nonlocal written
            before = bytes_of_thread()
            note()
            written += bytes_of_thread() - before

        return counted

    monkeypatch.setattr(PlacedResults, "take", taken)
    counts = []
    for layers in (16, 128):
        model = tmp_path / f"{layers}-layers"
        model.mkdir()
        weights = np.random.default_rng(0).standard_normal((8, 64), np.float32)
        write_shards(model, {f"{i}.safetensors": {f"l.{i}.weight": weights} for i in range(layers)})
        (model / "config.json").write_text('{"model_type": "llama"}')
        before = written
        with workers(MANY):
            convert(model, tmp_path / f"{layers}-out", to="mlx")
        counts.append(written - before)
    assert counts[0] > 16
    assert counts[1] < 9 * counts[0]  # of eight times as many layers, each of which is a batch


def bytes_of_thread() -> int:
    """Count what this thread has written to files."""
    lines = Path("/proc/thread-self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("wchar:")).split()[1])


def test_a_task_of_a_run_that_has_ended_writes_nothing(one: Runs) -> None:
    """Its folder is gone, though another run has files of the same names."""
    one.killed_after("note_done", 1, on_workers=True)
    file = one.output / "model.safetensors"
    before = file.read_bytes()
    folder = SharedFolder(str(one.partial / "files" / "of a run that has ended"))
    with SharedOutput(folder, str(one.output)).opened([file]) as opened:
        assert opened is None
    assert file.read_bytes() == before


def test_a_task_that_is_held_to_be_lost_does_no_harm(
    one: Runs, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes the same bytes, also when the driver has them."""
    take, outcomes = PlacedResults.take, Placer.outcomes
    late: list[Callable[[], object]] = []

    def done(self: Placer, *arguments: Any) -> Any:
        late.append(lambda: list(outcomes(self, *arguments)))
        return outcomes(self, *arguments)

    def taken(self: PlacedResults, written: dict[str, str], done: Done) -> Note:
        note = take(self, written, done)
        for again in late:
            again()
        return note

    monkeypatch.setattr(Placer, "outcomes", done)
    monkeypatch.setattr(PlacedResults, "take", taken)
    one.ends(on_workers=True)
    assert late
    assert not counted.added


def test_a_plan_says_what_is_done(one: Runs) -> None:
    one.killed_after("note_done", 2, on_workers=True)
    said = json.loads(succeeded(*one.arguments, "--resume", "--dry-run", "--json"))
    assert said["continued"]["bytes"] > 0
    assert not said["continued"]["is_complete"]


def test_results_are_on_the_disk_before_notes(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is synced by who has written it, after that.

    Results of some tasks may wait to be noted, so more of them may be on the disk than are noted.
    """
    synced: list[int] = []
    fsync, note = os.fsync, Work.note_done
    noted = 0

    def syncing(number: int) -> None:
        fsync(number)
        synced.append(os.fstat(number).st_ino)

    def noting(self: Work, done: Done) -> None:
        nonlocal noted
        noted += 1
        outputs = {path.stat().st_ino for path in [runs.output, *runs.output.rglob("*")]}
        assert sum(number in outputs for number in list(synced)) >= noted
        note(self, done)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(Work, "note_done", noting)
    runs.ends(on_workers=True)
    assert noted > 2


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_killed_anywhere_and_continued(one: Runs) -> None:
    one.continues_wherever_killed(20)
