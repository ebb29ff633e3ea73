"""Paths of another type are errors that name the argument."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyarrowquant import convert, plan


@pytest.mark.parametrize("wrong", [{"up": np.ones(8)}, np.ones((8, 8)), 5, None, b"model.npz"])
@pytest.mark.parametrize("call", [convert, plan])
def test_paths(tmp_path: Path, call: Any, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^source must be a str or a path, got ") as caught:
        call(wrong, tmp_path / "out.parquet")
    assert isinstance(caught.value, ValueError)
    with pytest.raises(TypeError, match=r"^destination must be a str or a path, got ") as caught:
        call(tmp_path / "model.npz", wrong)
    assert isinstance(caught.value, ValueError)
