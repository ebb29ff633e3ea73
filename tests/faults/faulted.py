"""Runs of `quantize` and `calibrate` in which the n-th call that changes a file fails, for every n.

A process of its own, with faulty.c preloaded: it imports the package once, and each run is a fork.
With FAULTY_PLAIN in its environment, the system cannot exchange two names at once.
Its arguments are a folder, a kind of destination, a mode and what happens; it prints JSON.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import re
import shutil
import signal
import sys
import warnings
from pathlib import Path

import gguf  # noqa: F401, what commands import is there for all forks
import numpy as np
import onnx
import onnxruntime  # noqa: F401
import pyarrow.fs
import pyarrow.parquet  # noqa: F401
import safetensors.numpy
import tokenizers  # noqa: F401
from exports import files
from gguf_models import llama, saved
from onnx_models import mlp
from token_models import ARRAYS
from token_models import model as token_model
from token_models import saved as saved_with_text

import pyarrowquant.calibration.onnx_running
import pyarrowquant.cli.calibrate
import pyarrowquant.cli.quantize  # noqa: F401
from pyarrowquant.__main__ import main
from pyarrowquant.calibration import onnx_running
from pyarrowquant.cli._pandas import leave_out_pandas
from pyarrowquant.conversion import preparing
from pyarrowquant.formats.registry import FORMATS

EIGHT_BITS = ["--bits", "8"]  # of what is there before
# The name that comes last, the destination, options of what is new, and of what is old.
KINDS = {
    "parquet": ("out.parquet", "out.parquet", ["--group-size", "64"], EIGHT_BITS),
    "shards": ("out", "out", ["--to", "arrow", "--group-size", "64"], EIGHT_BITS),
    "compressed-tensors": (
        "out",
        "out",
        ["--to", "compressed-tensors", "--group-size", "64"],
        EIGHT_BITS,
    ),
    "bitsandbytes": ("out", "out", ["--to", "bitsandbytes"], ["--double"]),
    "mlx": ("out", "out", ["--to", "mlx"], EIGHT_BITS),
    "gguf": ("out.gguf", "out.gguf", ["--tensors-only"], EIGHT_BITS),
    "gguf-model": ("out.gguf", "out.gguf", ["--recipe", "Q4_0"], ["--recipe", "Q4_1"]),
    "gguf-split": (
        "out-00001-of-00002.gguf",
        "out.gguf",
        ["--recipe", "Q4_0", "--split", "80K"],
        ["--recipe", "Q4_1", "--split", "80K"],
    ),
    "onnx": ("out.onnx", "out.onnx", [], EIGHT_BITS),
    "importance": (
        "out.safetensors",
        "out.safetensors",
        ["--context", "40", "--tokens", "480"],
        ["--context", "40", "--tokens", "280"],
    ),
}
BESIDE = re.compile(r"out\.onnx\.[0-9a-f]{16}\.data|out-\d{5}-of-\d{5}\.gguf")
ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, -signal.SIGINT)
PLACING = 40  # about so many changes come last, when the output is complete

tuple(FORMATS.values())  # which imports them
preparing.batch_bytes = lambda _: 1  # each layer is a batch
onnx_running.WINDOWS_TOGETHER = 4  # after so many the sums are kept
_library = ctypes.CDLL(None)
_library.faulty_seen.restype = ctypes.c_long
_library.faulty_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int]


class Case:
    """A source, and what the destination is before and after."""

    def __init__(self, folder: Path, kind: str, mode: str) -> None:
        self._folder = folder
        self._name, self._destination, self._options, old = KINDS[kind]
        # Parts of a new model and an old one lie together for a while, without the first one.
        self._is_split = kind == "gguf-split"
        self._command, self._totals_in = "quantize", ("layers", "weights", "relative_error")
        if kind == "importance":
            self._command, self._totals_in = "calibrate", ("layers", "tokens")
        self._sources = _sources(folder / "source", kind)
        self._bad = _bad_sources(folder / "bad", kind)
        self._place = folder / "place"
        resume = ["--resume"] if mode == "resume" else []
        self._more = [] if mode == "fresh" else ["--overwrite", *resume]
        self._mode = mode
        self.old = self._made(*old) if mode != "fresh" else {}
        self.new = self._made()
        self._totals = self.summary
        self._begin = folder / "begin"  # what the place has before each run
        self._begin.mkdir()
        self._reset()
        if mode != "fresh":
            assert self.run(*old) == 0
        if mode == "resume":
            self._half_done()
        shutil.rmtree(self._begin)
        shutil.copytree(self._place, self._begin, copy_function=shutil.copy2)

    def _half_done(self) -> None:
        """Kill a run at the first change after something is done."""
        partial = self._place / f".{self._destination}.partial"
        before = self._folder / "before"
        shutil.copytree(self._place, before, copy_function=shutil.copy2)
        at = 10
        while not [*partial.glob("*.arrow"), *partial.glob("done.json")] and not partial.is_file():
            shutil.rmtree(self._place)
            shutil.copytree(before, self._place, copy_function=shutil.copy2)
            assert self.run("--overwrite", at=at, action=-signal.SIGKILL) == -signal.SIGKILL
            at += 1

    def _made(self, *options: str) -> dict[str, bytes]:
        self._reset()
        assert self.run(*options) == 0, self.said
        return files(self._place)

    def _reset(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        begin = self._folder / "begin"
        if begin.exists():
            shutil.copytree(begin, self._place, copy_function=shutil.copy2)
        else:
            self._place.mkdir()

    def run(
        self, *options: str, sources: list[Path] | None = None, at: int = 0, action: int = 0
    ) -> int:
        """Run the command in a fork; the call number `at` has a fault."""
        output = self._folder / "said"
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            number = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(number, 1)
            os.dup2(number, 2)
            paths = [*(sources or self._sources), self._place / self._destination]
            sys.argv = ["pyarrowquant", self._command, *map(str, paths)]
            sys.argv += [*self._options, "--json", *options]
            code = 70
            try:
                _library.faulty_arm(os.fsencode(self._place), at, action)
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                counted = _library.faulty_seen()
                sys.stdout.flush()
                (self._folder / "seen").write_text(str(counted))
                os._exit(code)
        _, status = os.waitpid(child, 0)
        self.said = output.read_text()
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            said = json.loads(self.said[self.said.index("{\n") :])
            self.summary = {name: said[name] for name in self._totals_in}
        return code

    def state(self) -> str:
        """What has the final name: nothing, what was, what is new, or something wrong."""
        found = {
            name: data for name, data in files(self._place).items() if not name.startswith(".")
        }
        for state, expected in (("new", self.new), ("old", self.old)):
            if expected and expected.items() <= found.items():
                more = found.keys() - expected.keys()
                if all(BESIDE.fullmatch(name) for name in more):
                    return state
        if self._name not in found and all(BESIDE.fullmatch(name) for name in found):
            return "nothing"
        return f"wrong: {sorted(found)}"

    def calls(self) -> int:
        """How many changes a run without a fault makes."""
        self._reset()
        assert self.run(*self._more) == 0, self.said
        return int((self._folder / "seen").read_text())

    def attempt(self, at: int, action: int) -> list[str]:
        """Run with a fault, then make sure of what is there, and that another run mends it."""
        self._reset()
        wrong: list[str] = []
        code = self.run(*self._more, at=at, action=action)
        state = self.state()
        allowed = {"fresh": ("nothing", "new")}.get(self._mode, ("old", "new"))
        is_plain = "FAULTY_PLAIN" in os.environ and action == -signal.SIGKILL
        if is_plain or self._is_split:
            allowed = (*allowed, "nothing")  # which the next run mends
        what = f"call {at}, {action}: code {code}, then {state}"

        def check(right: bool, problem: str) -> None:
            if not right:
                wrong.append(f"{what}: {problem}: {self.said.strip()[-600:]}")

        check(state in allowed, "not what was or is new")
        check(code != 0 or state == "new", "success without a result")
        check("Traceback" not in self.said, "a traceback")
        check(code in (0, 1, 130, -signal.SIGKILL), "another exit code")
        if code == 0:
            check(self.summary == self._totals, f"totals are {self.summary}")
        if at % 3 == 1 and self._mode != "fresh":
            check(self.run("--overwrite", sources=self._bad) == 1, "a bad source is taken")
            before = {"nothing": "new" if self._is_split else "old"}.get(state, state)
            check(self.state() == before, f"a failing run makes it {self.state()}")
        more = {*self._more, "--resume"} if at % 3 else {"--overwrite"}
        code = self.run(*more)
        if code == 1 and self._mode == "fresh" and "--resume" in more:
            check("exists" in self.said and state == "new", "cannot be continued")
        else:
            check(code == 0, f"{more} fails")
            check(self.summary == self._totals, f"then totals are {self.summary}")
        found = files(self._place)
        check(found == self.new, f"at the end there is {sorted(found)}")
        return wrong


def _sources(folder: Path, kind: str) -> list[Path]:
    """Write a small model, of two shards but for GGUF and ONNX; a text too for its importance."""
    folder.mkdir()
    if kind.startswith("gguf-"):
        return [llama(folder / "model.gguf", layers=1)]
    if kind == "onnx":
        return [Path(mlp().save(folder / "model.onnx"))]
    if kind == "importance":
        return list(saved_with_text(folder, token_model()))
    rng = np.random.default_rng(0)
    weight_map = {}
    for shard in range(2):
        name = f"model-{shard + 1:05d}-of-00002.safetensors"
        tensors = {
            f"layers.{shard}.up.weight": rng.standard_normal((8, 64), np.float32),
            f"layers.{shard}.norm.weight": np.ones(64, np.float32),
        }
        safetensors.numpy.save_file(tensors, folder / name)
        weight_map |= dict.fromkeys(tensors, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text('{"model_type": "llama", "torch_dtype": "float32"}')
    (folder / "tokenizer.json").write_text("{}")
    return [folder]


def _bad_sources(folder: Path, kind: str) -> list[Path]:
    """Write a model with weights that are NaN."""
    folder.mkdir()
    bad = {"layers.0.up.weight": np.full((2, 64), np.nan, np.float32)}
    if kind.startswith("gguf-"):
        return [saved(folder / "bad.gguf", bad)]
    if kind == "importance":
        model = token_model()
        table = np.full_like(ARRAYS["table"], np.nan)
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(table, "table"))
        return list(saved_with_text(folder, model))
    path = folder / "bad.safetensors"
    safetensors.numpy.save_file(bad, path)
    return [path]


def _chosen(calls: int, step: int, how: str) -> list[int]:
    """Number the calls that give the output its place, and of those before every so many.

    But with a step of 1, every second one is killed, and those between fail.
    """
    first = max(calls - PLACING, 1)
    if step == 1:
        return [*range(1, calls + 1)]
    return [*range(1, first, step), *range(first + (how == "failed"), calls + 1, 2)]


def survey(folder: Path, kind: str, mode: str, how: str, step: int) -> tuple[int, list[str]]:
    """Attempt it call by call; gives how many were tried, and what was wrong."""
    case = Case(folder, kind, mode)
    calls = case.calls()
    chosen = _chosen(calls, step, how)
    wrong: list[str] = []
    for at in chosen:
        error = ERRORS[at // 2 % len(ERRORS)]
        wrong += case.attempt(at, -signal.SIGKILL if how == "killed" else error)
    return len(chosen), wrong


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # forks beside threads of numpy
    leave_out_pandas()
    gc.freeze()  # a collection in a fork would copy all that is imported
    place, kind, mode, how, step = sys.argv[1:]
    print(json.dumps(survey(Path(place), kind, mode, how, int(step))))
