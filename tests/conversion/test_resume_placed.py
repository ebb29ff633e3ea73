"""Runs whose results have their places in the output: interrupted, and continued otherwise."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from commands import run
from exports import files

from conversion.killing import FORMATS, killed_after
from pyarrowquant.conversion.partial.checksums import with_checksum
from pyarrowquant.conversion.partial.work import Work
from pyarrowquant.formats._outline import Outline

KEPT = "--continue-on-error"  # results are collected in parts then


class Runs:
    """Runs of one kind over a model, beside one that nothing has disturbed."""

    def __init__(self, model: Path, folder: Path, kind: str) -> None:
        self._model = model
        self._name, self._options = FORMATS[kind]
        self.place, whole = folder / "place", folder / "whole"
        for each in (self.place, whole):
            each.mkdir()
        assert run("quantize", model, whole / self._name, *self._options).exit_code == 0
        self._wanted = files(whole)
        self.partial = self.place / f".{self._name}.partial"
        self.output = self.partial / "output" / self._name

    def run(self, *more: str) -> Any:
        return run("quantize", self._model, self.place / self._name, *self._options, *more)

    def killed_after(self, owner: type, method: str, times: int, *more: str) -> None:
        """Run until a method has been called so many times."""
        with killed_after(owner, method, times):
            self.run(*more)

    def continues(self, *more: str) -> None:
        """A run goes on, and has what one has that nothing disturbed."""
        result = self.run("--resume", *more)
        assert result.exit_code == 0, result.output
        assert files(self.place) == self._wanted


@pytest.fixture(params=["compressed", "bitsandbytes", "mlx"])
def runs(model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Runs:
    return Runs(model, tmp_path, request.param)


def test_continued_with_results_in_parts(runs: Runs) -> None:
    runs.killed_after(Work, "note_done", 2)
    runs.continues(KEPT)


def test_parts_say_nothing_of_an_output_that_has_begun(runs: Runs) -> None:
    runs.killed_after(Work, "add", 2, KEPT)
    runs.killed_after(Outline, "fill_known", 1, "--resume")
    assert list(runs.partial.glob("*.arrow"))
    runs.continues()


def test_continued_with_parts_of_before(runs: Runs) -> None:
    runs.killed_after(Work, "add", 2, KEPT)
    runs.killed_after(Work, "note_done", 1, "--resume")
    runs.killed_after(Work, "add", 1, "--resume", KEPT)
    runs.continues()


@pytest.mark.parametrize("how", ["removed", "shorter", "longer", "a link"])
def test_an_output_that_is_not_whole_begins_anew(runs: Runs, tmp_path: Path, how: str) -> None:
    """Also if that run is killed, too, before anything is done of it."""
    runs.killed_after(Work, "note_done", 2)
    file = min(runs.output.glob("*.safetensors"))
    content = file.read_bytes()
    if how == "removed":
        file.unlink()
    elif how == "a link":
        mine = file.rename(tmp_path / "mine")
        file.symlink_to(mine)
    else:
        os.truncate(file, len(content) + (1 if how == "longer" else -1))
    runs.killed_after(Outline, "fill_known", 1, "--resume")
    runs.continues()
    if how == "a link":
        assert mine.read_bytes() == content


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "0", "garbage", '{"batches": 1, "read": 2}'),
        *('{"batches": -1, "read": 2, "totals": {}}', '{"batches": "1", "read": 2, "totals": {}}'),
        *('{"batches": 1, "read": 2, "totals": []}', '{"batches": 1, "read": 2, "totals": null}'),
        '{"batches": 1, "read": 2, "totals": {"skipped": [], "layers": "many"}}',
    ],
)
def test_damaged_notes_are_refused(runs: Runs, text: str) -> None:
    runs.killed_after(Work, "note_done", 2)
    (runs.partial / "done.json").write_bytes(with_checksum(text))
    result = runs.run("--resume")
    assert result.exit_code == 1, result.output
    assert "done.json' of an earlier run is damaged" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert runs.run().exit_code == 0


def test_a_dry_run_says_what_can_be_continued(runs: Runs) -> None:
    runs.killed_after(Work, "note_done", 2)
    for options, done in (([], True), ([KEPT], False)):
        said = json.loads(runs.run("--resume", "--dry-run", "--json", *options).stdout)
        assert (said["continued"] is not None) == done


def test_what_needs_no_results_is_on_the_disk_before_notes(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else files of the right size may lack it after a loss of power."""
    synced: set[int] = set()
    fsync, note = os.fsync, Work.note_done
    noted = 0

    def counted(number: int) -> None:
        synced.add(os.fstat(number).st_ino)
        fsync(number)

    def noting(self: Work, *arguments: Any) -> None:
        nonlocal noted
        noted += 1
        files_of_output = [path.stat().st_ino for path in runs.output.rglob("*")]
        assert synced.issuperset(files_of_output)
        note(self, *arguments)

    monkeypatch.setattr(os, "fsync", counted)
    monkeypatch.setattr(Work, "note_done", noting)
    assert runs.run().exit_code == 0
    assert noted > 2
