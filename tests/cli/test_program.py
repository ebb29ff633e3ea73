"""The program in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from child import HANG, wait_until
from safetensors.numpy import save_file

from cli.outputs import names_in


def script(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pyarrowquant", *map(str, arguments)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, **options)


def test_the_installed_command(model: Path, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("pyarrowquant")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pyarrowquant, version ")
    process = script("quantize", model, tmp_path / "out.parquet")
    assert process.wait(HANG) == 0, process.communicate()
    process.communicate()


THREADS = """
import os
import sys
from pathlib import Path
from pyarrowquant.__main__ import main

sys.argv = ["pyarrowquant", "--version"]
try:
    main()
finally:
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    print(names.count(Path("/proc/self/comm").read_text()), "numpy" in sys.modules)
    print(os.environ.get("OPENBLAS_NUM_THREADS"))
"""


@pytest.mark.parametrize("said", [None, "1"])
def test_imports_start_no_threads_of_numpy(said: str | None) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    if said:
        environment["OPENBLAS_NUM_THREADS"] = said
    done = subprocess.run(
        [sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[1:] == ["1 True", str(said)]  # torch may want its own


@pytest.mark.parametrize("out", ["out.parquet", "out.gguf"])
def test_pandas_and_compute_are_not_imported(model: Path, tmp_path: Path, out: str) -> None:
    import pandas  # noqa: F401, PyArrow imports it where it is there

    command = [sys.executable, "-X", "importtime", "-m", "pyarrowquant"]
    more = ["--tensors-only"] if out.endswith(".gguf") else []
    done = subprocess.run(
        [*command, "quantize", model, tmp_path / out, *more],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pyarrow.lib" in imported
    assert not any(name.startswith("pandas.") for name in imported)
    assert "pyarrow.compute" not in imported  # a tenth of a second for its table of functions


@pytest.mark.skipif(sys.platform == "win32", reason="signals and file limits of POSIX")
@pytest.mark.parametrize("how", ["interrupt", "kill", "full disk"])
def test_nothing_incomplete_gets_the_final_name(tmp_path: Path, how: str) -> None:
    block = np.random.default_rng(0).standard_normal((256, 1024), np.float32)
    source = tmp_path / "source"
    source.mkdir()
    model = source / "model.safetensors"
    save_file({f"layer.{k}.weight": block for k in range(60)}, model)
    before = model.read_bytes()
    target = tmp_path / "target"
    target.mkdir()
    out = target / "out.parquet"
    slow = ["--method", "hqq", "--zero-point", "float"]
    options: dict[str, Any] = {"env": {**os.environ, "PYARROWQUANT_KERNEL": "scalar"}}
    if how == "full disk":
        import resource

        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

        options = {"preexec_fn": limit}
    process = script("quantize", model, out, *slow, **options)
    if how != "full disk":
        assert wait_until(lambda: any(name.endswith(".partial") for name in names_in(target)))
        process.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=HANG)
    assert process.returncode == {"interrupt": 130, "kill": -9, "full disk": 1}[how], stderr
    assert not out.exists()
    assert not stdout
    if how == "interrupt":
        assert stderr.splitlines()[-1] == "Interrupted"
    elif how == "full disk":
        *progress, error = stderr.splitlines()
        assert error.startswith("Error: ")
        assert all(line.startswith("quantize: ") for line in progress)
    if how != "kill":
        assert names_in(target) == []
    assert model.read_bytes() == before
