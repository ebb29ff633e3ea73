"""Calls that change a file, failed and killed: nothing is lost, and runs continue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
STEP = os.environ.get("FAULT_STEP", "29")  # of calls before the last ones; 1 for all, in all ways
KINDS = (
    *("parquet", "shards", "compressed-tensors", "bitsandbytes", "mlx", "gguf", "gguf-model"),
    *("gguf-split", "onnx", "importance"),
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="preloads into glibc programs")


@pytest.fixture(scope="session")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("faulty") / "faulty.so"
    compiler = os.environ.get("CC", "cc")
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", library, HERE / "faulty.c", "-ldl"], check=True
    )
    return library


@pytest.mark.parametrize("how", ["killed", "failed"])
@pytest.mark.parametrize("mode", ["fresh", "overwrite", "resume"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_call(tmp_path: Path, faulty: Path, kind: str, mode: str, how: str) -> None:
    survey(tmp_path, faulty, kind, mode, how)


@pytest.mark.parametrize("how", ["killed", "failed"])
@pytest.mark.parametrize("mode", ["fresh", "overwrite", "resume"])
@pytest.mark.parametrize("kind", ["parquet", "shards"])  # a file and a folder
def test_where_names_are_not_exchanged(
    tmp_path: Path, faulty: Path, monkeypatch: pytest.MonkeyPatch, kind: str, mode: str, how: str
) -> None:
    monkeypatch.setenv("FAULTY_PLAIN", "1")
    survey(tmp_path, faulty, kind, mode, how)


def survey(folder: Path, faulty: Path, kind: str, mode: str, how: str) -> None:
    environment = {
        **os.environ,
        "LD_PRELOAD": str(faulty),
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, HERE / "faulted.py", folder, kind, mode, how, STEP],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    calls, wrong = json.loads(done.stdout)
    print(f"{kind}, {mode}: {calls} calls of many {how}")
    assert calls > 10
    assert not wrong, "\n".join([f"{len(wrong)} of {calls} are wrong", *wrong[:20]])
