"""What quantizes: this process, or a cluster, which is asked for by name."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from commands import failed

from pyarrowquant import UsageError, convert


@pytest.fixture
def source(tmp_path: Path) -> Path:
    np.savez(tmp_path / "model.npz", up=np.ones((8, 128), np.float32))
    return tmp_path / "model.npz"


def test_an_engine_that_there_is_not(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="engine='dask' must be one of 'local', 'ray'"):
        convert(source, tmp_path / "out.parquet", engine="dask")


def test_an_address_is_that_of_a_cluster(source: Path, tmp_path: Path) -> None:
    error = failed("quantize", source, tmp_path / "out.parquet", "--address", "a:1", code=2)
    assert "--address is that of a cluster, for --engine ray" in error


def test_an_engine_that_is_not_installed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    error = failed("quantize", source, tmp_path / "out.parquet", "--engine", "ray")
    assert error.splitlines() == [
        "Error: --engine ray needs Ray: pip install 'pyarrowquant[ray]'",
    ]
    assert list(tmp_path.iterdir()) == [source]
