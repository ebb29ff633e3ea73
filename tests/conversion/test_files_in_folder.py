"""Files that are made as a whole in the folder of a run, as workers of a cluster make them.

This process stands for the workers; `make test-fleet` has real ones.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import failed, succeeded

from conversion.killing import FORMATS, SHARDS
from conversion.on_workers import SPLIT, Runs, base_of_gguf
from pyarrowquant.conversion.engines import _LocalRun
from pyarrowquant.conversion.partial.journal import Stamp
from pyarrowquant.conversion.partial.results import PlacedResults
from pyarrowquant.conversion.partial.shared_folder import FilesInFolder, SharedFolder
from pyarrowquant.conversion.partial.work import Work


@pytest.fixture(params=["compressed", "bitsandbytes", "split"])
def runs(model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Runs:
    if request.param != "split":
        return Runs(model, tmp_path, *FORMATS[request.param])
    return Runs(base_of_gguf(tmp_path / "base"), tmp_path, "out.gguf", SPLIT)


@pytest.fixture
def one(model: Path, tmp_path: Path) -> Runs:
    return Runs(model, tmp_path, *FORMATS["compressed"])


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that were noted as whole."""
    found: list[str] = []
    note = Work.note_file

    def watched(self: Work, name: str, *more: Any) -> None:
        found.append(name)
        note(self, name, *more)

    monkeypatch.setattr(Work, "note_file", watched)
    return found


def unseen(times: int | None = None) -> Callable[[SharedFolder], bool]:
    """Stand for workers that do not see the folder, or only after so many that do."""
    seen = SharedFolder.is_reached
    left = times or 0

    def is_reached(self: SharedFolder) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and seen(self)

    return is_reached


def test_no_results_go_through_the_driver(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlacedResults, "add", None)
    runs.ends(on_workers=True)


def test_what_is_there_is_replaced(runs: Runs, noted: list[str]) -> None:
    runs.ends()
    runs.ends("--overwrite", on_workers=True)
    assert len(noted) == len(runs.weights) > 2


def test_few_files_go_through_the_driver(one: Runs, noted: list[str]) -> None:
    """So that more workers than there are files have something to do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_LocalRun, "fewest_files", SHARDS + 1)
        one.ends()
    assert not noted


@pytest.mark.parametrize("on_workers", [True, False], ids=["on workers", "here"])
def test_what_workers_have_made_is_not_made_again(
    runs: Runs, noted: list[str], on_workers: bool
) -> None:
    runs.killed_after("note_file", 2, on_workers=True)
    runs.ends("--resume", on_workers=on_workers)
    assert len(noted) == len(set(noted)) == len(runs.weights)


def test_the_rest_goes_through_the_driver(
    runs: Runs, noted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the second run has workers that do not see the folder; a third one has others."""
    runs.killed_after("note_file", 2, on_workers=True)
    with monkeypatch.context() as patch:
        patch.setattr(SharedFolder, "is_reached", unseen())
        runs.killed_after("note_done", 1, "--resume", on_workers=True)
    runs.ends("--resume", on_workers=True)
    assert len(noted) == 2


def test_a_run_that_began_here_ends_on_workers(runs: Runs, noted: list[str]) -> None:
    runs.killed_after("note_done", 2)
    runs.ends("--resume", on_workers=True)
    assert not noted


def test_results_in_parts_take_the_place_of_files(one: Runs) -> None:
    one.killed_after("note_file", 2, on_workers=True)
    one.killed_after("add", 1, "--resume", "--continue-on-error")
    one.killed_after("note_file", 1, "--resume", on_workers=True)
    one.ends("--resume", "--continue-on-error")


def test_no_worker_sees_the_folder(
    runs: Runs, noted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SharedFolder, "is_reached", unseen())
    assert "Warning" not in runs.ends(on_workers=True)
    assert not noted


def test_some_workers_see_the_folder(
    one: Runs, noted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SharedFolder, "is_reached", unseen(3))
    said = one.ends(on_workers=True)
    assert len(noted) == 3
    assert "Results of 2 layers came through this process, as some workers cannot" in said
    assert f"cannot write in '{one.partial}'" in said


def test_a_folder_of_the_worker_that_looks_as_the_drivers(
    runs: Runs, noted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written there, as into a layer over what is shared, is not what the driver has."""
    deliver = SharedFolder.deliver

    def elsewhere(self: SharedFolder, name: str, path: Path) -> Stamp:
        stamp = deliver(self, name, path)
        Path(self.path, name).unlink()
        return stamp

    monkeypatch.setattr(SharedFolder, "deliver", elsewhere)
    runs.ends(on_workers=True)
    assert not noted


def test_what_comes_is_not_what_was_made(
    one: Runs, noted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver = SharedFolder.deliver

    def damaged(self: SharedFolder, name: str, path: Path) -> Stamp:
        stamp = deliver(self, name, path)
        with Path(self.path, name).open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"\xff")
        return stamp

    monkeypatch.setattr(SharedFolder, "deliver", damaged)
    one.ends(on_workers=True)
    assert not noted


def test_a_folder_that_others_may_not_write_in(tmp_path: Path) -> None:
    """Nor does a worker make the folder where there is none."""
    missing = tmp_path / "files" / "name"
    assert not SharedFolder(str(missing)).is_reached()
    assert list(tmp_path.iterdir()) == []


def test_a_task_that_is_held_to_be_lost_does_no_harm(
    one: Runs, noted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes the same file under a name of its own, and delivers it when the driver has it."""
    take = FilesInFolder.take

    def taken(self: FilesInFolder, name: str, stamp: Stamp) -> bool:
        folder = Path(self.depot.path)
        shutil.copy(folder / name, folder / "late.tmp")
        (folder / "half.tmp").write_bytes(b"of a worker that died")
        is_taken = take(self, name, stamp)
        self.depot.deliver(name, folder / "late.tmp")
        return is_taken

    monkeypatch.setattr(FilesInFolder, "take", taken)
    one.ends(on_workers=True)
    assert len(noted) == SHARDS
    assert not one.partial.exists()


@pytest.mark.parametrize("how", ["removed", "shorter", "longer", "changed", "a link"])
def test_a_whole_file_that_has_changed_is_not_continued(
    one: Runs, tmp_path: Path, how: str
) -> None:
    one.killed_after("note_file", 2, on_workers=True)
    file = min(one.output.glob("*.safetensors"))
    content = file.read_bytes()
    if how == "a link":
        file.rename(tmp_path / "mine").chmod(0o600)
        file.symlink_to(tmp_path / "mine")
    else:
        file.unlink()
    if how in ("shorter", "longer", "changed"):
        changed = {"shorter": content[:-1], "longer": content + b"0"}
        file.write_bytes(changed.get(how, content[:-1] + bytes([content[-1] ^ 1])))
    said = failed(*one.arguments, "--resume")
    assert f"'{file.name}' was complete, and is not there any more or has changed since" in said
    one.ends()


def test_a_damaged_note_is_not_continued(one: Runs) -> None:
    one.killed_after("note_file", 2, on_workers=True)
    note = one.partial / "files.json"
    data = bytearray(note.read_bytes())
    data[len(data) // 2] ^= 1
    note.write_bytes(data)
    assert "files.json' of an earlier run is damaged" in failed(*one.arguments, "--resume")
    one.ends()


def test_a_plan_says_what_is_done(one: Runs) -> None:
    one.killed_after("note_file", 2, on_workers=True)
    said = json.loads(succeeded(*one.arguments, "--resume", "--dry-run", "--json"))
    assert said["continued"]["bytes"] > 0
    assert not said["continued"]["is_complete"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_killed_anywhere_and_continued(one: Runs) -> None:
    one.continues_wherever_killed(30)
