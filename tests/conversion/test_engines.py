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
    with pytest.raises(UsageError, match="engine='dask' must be one of 'local', 'ray', 'spark'"):
        convert(source, tmp_path / "out.parquet", engine="dask")


def test_an_address_is_that_of_a_cluster(source: Path, tmp_path: Path) -> None:
    error = failed("quantize", source, tmp_path / "out.parquet", "--address", "a:1", code=2)
    assert (
        "--address is that of a cluster. Leave it out, or say --engine ray or --engine spark"
        in error
    )


@pytest.mark.parametrize(
    ("engine", "package", "called"), [("ray", "ray", "Ray"), ("spark", "pyspark", "PySpark")]
)
def test_an_engine_that_is_not_installed(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    package: str,
    called: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    error = failed("quantize", source, tmp_path / "out.parquet", "--engine", engine)
    assert error.splitlines() == [
        f"Error: --engine {engine} needs {called}: pip install 'pyarrowquant[{engine}]'",
    ]
    assert list(tmp_path.iterdir()) == [source]
