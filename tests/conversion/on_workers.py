"""Runs whose stages are done as by workers of a cluster, for whom this process stands."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import hf_folders
import pytest
from commands import run, succeeded
from exports import files
from models import write_shards
from safetensors.numpy import load_file

from conversion.killing import SHARDS, killed_after, killed_at
from pyarrowquant.conversion.engines import _LocalRun
from pyarrowquant.conversion.partial.parts import Done
from pyarrowquant.conversion.partial.results import Note, PlacedResults
from pyarrowquant.conversion.partial.work import Work
from pyarrowquant.conversion.progress import Meter

WHOLE = ["--pre-tokenizer", "default", "--method", "rtn"]
SPLIT = [*WHOLE, "--split", "300k"]
ON_WORKERS = "from pyarrowquant.conversion import engines; engines._LocalRun.fewest_files = {}\n"


def in_tasks(self: _LocalRun, stage: Any, skip: int, meter: Meter) -> Generator[Any, None, None]:
    """Do each batch or file by itself, as by a worker that has just begun."""
    for number in count(skip) if stage.count is None else range(skip, stage.count):
        outcomes = list(stage.on(self.source).outcomes(number, 1, self.threads, Meter(None, None)))
        for outcome in outcomes:
            yield outcome
            outcome.tell(meter)
        if not any(outcome.batches for outcome in outcomes):
            return


@contextmanager
def workers(fewest: int) -> Iterator[None]:
    """Have workers, who make whole files where there are so many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_LocalRun, "fewest_files", fewest)
        patch.setattr(_LocalRun, "__call__", in_tasks)
        yield


class Counted:
    """How many layers that workers have written were noted, and how many of the driver."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.taken = self.added = 0
        take, add = PlacedResults.take, PlacedResults.add

        def taken(results: PlacedResults, written: dict[str, str], done: Done) -> Note:
            note = take(results, written, done)

            def counted() -> None:
                self.taken += len(written)
                note()

            return counted

        def added(results: PlacedResults, batch: Any, done: Done) -> Note:
            note, rows = add(results, batch, done), batch.num_rows

            def counted() -> None:
                self.added += rows
                note()

            return counted

        patch.setattr(PlacedResults, "take", taken)
        patch.setattr(PlacedResults, "add", added)


class Runs:
    """Runs of a kind over a model, on workers or not, beside one that nothing has disturbed.

    Parameters
    ----------
    fewest : int
        Of files that workers make as a whole.
    """

    def __init__(
        self, model: Path, folder: Path, name: str, options: list[str], fewest: int = 1
    ) -> None:
        self._model, self._name, self._options = model, name, options
        self._fewest = fewest
        self.place, whole = folder / "place", folder / "whole"
        for each in (self.place, whole):
            each.mkdir()
        succeeded("quantize", model, whole / self._name, *self._options)
        self._wanted = files(whole)
        self.weights = [name for name in self._wanted if name.endswith(("safetensors", "gguf"))]
        self.partial = self.place / f".{self._name}.partial"
        self.output = self.partial / "output" / self._name

    @property
    def arguments(self) -> list[object]:
        return ["quantize", self._model, self.place / self._name, *self._options]

    def run(self, *more: str, on_workers: bool = False) -> Any:
        with workers(self._fewest) if on_workers else nullcontext():
            return run(*self.arguments, *more)

    def ends(self, *more: str, on_workers: bool = False) -> str:
        """A run has what one has that nothing disturbed, and says so."""
        result = self.run(*more, on_workers=on_workers)
        assert result.exit_code == 0, result.output
        self.check()
        said: str = result.output
        return said

    def check(self) -> None:
        assert files(self.place) == self._wanted

    def killed_after(self, method: str, times: int, *more: str, on_workers: bool = False) -> None:
        """Run until the work was told something so many times."""
        with killed_after(Work, method, times):
            self.run(*more, on_workers=on_workers)

    def continues_wherever_killed(self, least: int) -> None:
        """A run on workers is killed anywhere, and another one does the rest, there or here.

        It has more than so many places to be killed at.
        """
        on_workers = ON_WORKERS.format(self._fewest)
        for number in range(1, 200, 5):
            if not killed_at(number, *self.arguments, before=on_workers):
                assert number > least
                return
            result = self.run("--resume", on_workers=number % 2 == 0)
            if "exists" not in result.stderr:  # else only an empty folder was left to be removed
                assert result.exit_code == 0, (number, result.output)
            self.check()
            shutil.rmtree(self.place)
            self.place.mkdir()


def base_of_gguf(folder: Path) -> Path:
    """Write a language model in shards."""
    base = hf_folders.write(folder, hf_folders.llama())
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    names = [f"model-{i + 1:05d}-of-{SHARDS:05d}.safetensors" for i in range(SHARDS)]
    shards = {
        name: {each: tensors[each] for each in sorted(tensors)[i::SHARDS]}
        for i, name in enumerate(names)
    }
    return write_shards(base, shards)
