"""Warnings that are errors: the first error is the one that is raised, and nothing stays open."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pyarrowquant import QuantizationError, convert
from pyarrowquant._core import placing
from pyarrowquant.conversion.partial import lock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")


@pytest.fixture(autouse=True)
def strictly() -> Iterator[None]:
    """As python -W error; a file that is not closed is an error, too."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def fill(model: Path, value: float) -> None:
    """Write the last shard anew, one of its weights being this."""
    weights = np.ones((64, 128), np.float32)
    weights[3, 4] = value
    layers = {"up.weight": weights, "down.weight": np.ones((128, 64)), "norm": np.ones(64)}
    tensors = {f"layers.3.{name}": each.astype(np.float32) for name, each in layers.items()}
    save_file(tensors, max(model.glob("*.safetensors")))


def test_a_run_that_fails_can_be_continued(model: Path, tmp_path: Path) -> None:
    fill(model, np.nan)
    out = tmp_path / "out.parquet"
    with pytest.raises(QuantizationError, match="NaN"):
        convert(model, out)
    assert (tmp_path / ".out.parquet.partial" / "00000001.arrow").exists()
    fill(model, 0)
    assert convert(model, out).layers == 8  # nobody has the lock
    assert not (tmp_path / ".out.parquet.partial").exists()


def test_a_layer_that_is_left_out_ends_the_run(model: Path, tmp_path: Path) -> None:
    fill(model, np.nan)
    out = tmp_path / "out.parquet"
    with pytest.raises(UserWarning, match="Skipped: "):
        convert(model, out, continue_on_error=True)
    assert not out.exists()
    warnings.simplefilter("ignore", UserWarning)
    assert convert(model, out, continue_on_error=True, resume=True).layers == 7


@pytest.mark.parametrize("what", ["no locks", "no syncs"])
def test_what_the_file_system_lacks(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    import fcntl

    def unsupported(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    for known in (lock._say_no_locks, placing._warn_of_sync):
        known.cache_clear()
    with monkeypatch.context() as patch:
        target = (fcntl, "flock") if what == "no locks" else (os, "fsync")
        patch.setattr(*target, unsupported)
        with pytest.raises(UserWarning, match="The file system of "):
            convert(model, tmp_path / "out.parquet")
        assert not (tmp_path / "out.parquet").exists()
    convert(model, tmp_path / "out.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out.parquet"]


def test_what_cannot_be_removed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    rmdir = os.rmdir

    def busy(path: str | Path, **options: Any) -> None:
        if str(path).endswith(".partial"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        rmdir(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", busy)
        with pytest.raises(UserWarning, match="could not be removed"):
            convert(model, out)
    assert out.exists()
    convert(model, out, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out.parquet"]
