"""Writers that are killed at each of their calls that change files, and what the next one finds.

For a process of its own, which forks for each attempt: so it must not call the Go library.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors.numpy
from exports import files

from pyarrowquant import Recipe
from pyarrowquant._core import library, placing
from pyarrowquant.formats import write_compressed_tensors, write_gguf, write_mlx, write_onnx
from pyarrowquant.formats.tables import write_batches

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.chmod", "open"}
FAILURE = "the disk is gone"
Write = Callable[[pa.Table, Path], None]


def model_folder(path: Path) -> Path:
    path.mkdir()
    tensors = {"a.weight": np.ones((2, 64), np.float32), "norm": np.ones(2, np.float32)}
    safetensors.numpy.save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text('{"model_type": "llama", "torch_dtype": "float16"}')
    return path


def writers(folder: Path) -> dict[str, tuple[str, Write]]:
    """What is written under which name, by kind."""
    model = model_folder(folder / "model")

    def tensors(results: pa.Table, path: Path) -> None:
        write_compressed_tensors(results, path, model=model, overwrite=True)

    def mlx(results: pa.Table, path: Path) -> None:
        write_mlx(results, path, overwrite=True)

    def recipe(results: pa.Table, path: Path) -> None:
        Recipe(default={"bit_width": results["bit_width"][0].as_py()}).save(path)

    return {
        "gguf": ("out.gguf", lambda results, path: write_gguf(results, path, overwrite=True)),
        "onnx": ("out.onnx", lambda results, path: write_onnx(results, path, overwrite=True)),
        "parquet": (
            "out.parquet",
            lambda results, path: write_batches(results.to_reader(), path, "parquet", True),
        ),
        "compressed-tensors": ("out", tensors),
        "mlx": ("out", mlx),
        "recipe": ("out.json", recipe),
    }


class Case:
    """A writer, and what its folder is before and after."""

    def __init__(self, folder: Path, kind: str, mode: str) -> None:
        self.place = folder / "place"
        self._begin = folder / "begin"
        name, self._write = writers(folder)[kind]
        self._target = self.place / name
        old, self._results = (
            pa.ipc.open_file(folder / f"{which}.arrow").read_all() for which in ("old", "new")
        )
        self.place.mkdir()
        if mode != "fresh":
            self._write(old, self._target)
        if mode == "among others":
            (self._target / "tokenizer.json").write_text("{}")
        shutil.copytree(self.place, self._begin)
        self.old = files(self.place)
        self._write(self._results, self._target)
        self.new = files(self.place)
        assert self.old != self.new

    def reset(self) -> None:
        shutil.rmtree(self.place)
        shutil.copytree(self._begin, self.place)

    def run(self, at: int = 0, fails: bool = False) -> tuple[int, int]:
        """Write in a fork, which is killed at its n-th change, or fails when all is written.

        Gives the code, and how many changes there were.
        """
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                seen = self._arm(at)
                if fails:
                    os.fsync = _fail
                self._write(self._results, self._target)
                os.write(writing, str(len(seen)).encode())
                code = 0
            except Exception as error:
                if str(error) != FAILURE:
                    traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writing)
        counted = os.read(reading, 100)
        os.close(reading)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return code, int(counted or 0)

    def _arm(self, at: int) -> list[str]:
        seen: list[str] = []

        def watch(event: str, arguments: Any) -> None:
            if event not in CHANGES or not str(arguments[0]).startswith(str(self.place)):
                return
            seen.append(event)
            if len(seen) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        return seen

    def found(self) -> dict[str, bytes]:
        """All but what is hidden."""
        found = files(self.place).items()
        return {name: data for name, data in found if not _is_hidden(name)}

    def problem(self, mode: str) -> str | None:
        """What is wrong with what a writer that was killed has left."""
        found = self.found()
        if self.old.items() <= found.items() or self.new.items() <= found.items():
            more = found.keys() - self.old.keys() - self.new.keys()
            return f"there is {sorted(more)}" if more else None
        if mode == "among others" and "out/config.json" not in found:  # so nothing loads it
            return None
        return f"neither old nor new: {sorted(found)}"


def _fail(_: int) -> None:
    raise OSError(FAILURE)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def survey(folder: Path, kind: str, mode: str, renames: str) -> list[str]:
    """Kill a writer at each change; gives what is wrong."""
    if renames == "plain":
        placing._system_call = lambda _: None  # type: ignore[assignment]
    # Go does not survive forks. What it writes is for other tests.
    library.lay_out = lambda *arguments: arguments[-1].fill(7)  # type: ignore[assignment]
    case = Case(folder, kind, mode)
    case.reset()
    code, calls = case.run()
    assert code == 0
    assert calls > 6, calls
    wrong = []
    for at in range(1, calls + 1):
        case.reset()
        code, _ = case.run(at)
        what = f"{kind}, {mode}, change {at} of {calls}"
        if code != -signal.SIGKILL:
            wrong.append(f"{what}: ends with {code}")
        if renames == "system" and (problem := case.problem(mode)):
            wrong.append(f"{what}: {problem}")
        code, _ = case.run(fails=True)
        found = files(case.place)
        if code != 1 or found not in (case.old, case.new):
            wrong.append(f"{what}: after a failure there is {sorted(found)}")
        code, _ = case.run()
        if code != 0 or files(case.place) != case.new:
            wrong.append(f"{what}: in the end {code}, {sorted(files(case.place))}")
    return wrong
