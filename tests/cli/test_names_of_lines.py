"""Names of files with a line break in them: messages stay in their lines."""

from __future__ import annotations

import json
from pathlib import Path

import hf_folders
import pytest
from commands import failed, run

ODD = "of\ntwo lines"
SHOWN = "of\\ntwo lines"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder of such a name, with a model in it."""
    hf_folders.write(tmp_path / ODD / "model")
    return tmp_path / ODD


def test_errors(odd: Path) -> None:
    model, exists = odd / "model", odd / "exists.parquet"
    exists.touch()
    other = odd / "other"
    hf_folders.write(other, model_type="gpt_oss")
    table = odd / "table.parquet"
    assert run("quantize", model, table).exit_code == 0
    (odd / "broken").mkdir()
    (odd / "broken/config.json").write_text("{")
    for code, command in (
        (1, ["inspect", odd / "missing"]),
        (1, ["quantize", model, exists]),
        (1, ["quantize", odd / "missing", odd / "out", "--to", "mlx"]),
        (1, ["quantize", odd / "broken", odd / "out", "--to", "mlx"]),
        (2, ["quantize", model, odd / "missing" / "out", "--to", "mlx"]),
        (2, ["quantize", other, odd / "out", "--to", "mlx"]),
        (1, ["dequantize", model, odd / "out.safetensors"]),
        (1, ["quantize", model, odd / "out", "--to", "mlx", f"--recipe={odd / 'r.json'}"]),
    ):
        error = failed(*command, code=code)
        lines = [line for line in error.splitlines() if not line.startswith(("Usage:", "Try"))]
        assert len([line for line in lines if line]) == 1, error
        assert SHOWN in error, error
    compared = run("compare", model, table)
    assert compared.exit_code == 1
    assert SHOWN in compared.stderr
    assert ODD not in compared.stderr


def test_folders_that_commands_run_in(odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(odd)
    error = failed("quantize", "model", "missing/out", "--to", "mlx", code=2)
    assert ODD not in error


def test_what_is_done(odd: Path) -> None:
    table, page = odd / "table.parquet", odd / "page.html"
    for command in (
        ["quantize", odd / "model", table],
        ["report", table, "--html", page],
        ["dequantize", table, odd / "out.safetensors"],
    ):
        done = run(*command)
        assert done.exit_code == 0
        assert SHOWN in done.stdout
        assert ODD not in done.stdout
    listed = json.loads(run("quantize", odd / "model", odd / "x.parquet", "--json").stdout)
    assert listed["destination"] == str(odd / "x.parquet")
