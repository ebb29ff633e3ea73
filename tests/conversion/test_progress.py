"""What a conversion tells of itself: also within a batch, and within a layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import feather
from safetensors.numpy import save_file

from pyarrowquant import Step, convert, numpy_to_arrow_table
from pyarrowquant.conversion import progress

LARGE, SMALL = (1024, 512), (8, 128)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of one batch, of which each part is told that Go tells of."""
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_PARTS", 0)
    monkeypatch.setenv("PYARROWQUANT_KERNEL", "scalar")  # which takes longer than Go is waited for
    rng = np.random.default_rng(0)
    path = tmp_path / "model.safetensors"
    shapes = {"embed": LARGE, "a": SMALL, "b": SMALL}
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    save_file({**tensors, "norm": np.ones(8, np.float32)}, path)
    return path


@pytest.mark.parametrize("options", [{}, {"bits_per_weight": 4.6}], ids=["bits", "budget"])
def test_parts_of_a_batch_are_told(source: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    steps: list[Step] = []
    convert(source, tmp_path / "o.arrow", method="hqq", threads=1, progress=steps.append, **options)
    whole = 4 * (np.prod(LARGE) + 2 * np.prod(SMALL) + 8)
    for what in {step.what for step in steps}:
        done = [step.bytes for step in steps if step.what == what]
        assert done == sorted(done)
        assert len({size for size in done if 0 < size < 4 * np.prod(LARGE)}) > 1, what
    last = steps[-1]
    assert (last.what, last.layers) == ("quantize", 3)
    assert last.bytes == last.total == whole


def test_not_more_is_told_than_people_read(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_PARTS", 3600)
    steps: list[Step] = []
    convert(source, tmp_path / "out.arrow", progress=steps.append)
    assert len(steps) <= 3
    assert steps[-1].layers == 3


def test_an_error_in_it_ends_the_run(source: Path, tmp_path: Path) -> None:
    def fails(step: Step) -> None:
        if step.bytes:
            raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError, match="out of paper"):
        convert(source, tmp_path / "out.arrow", progress=fails)
    assert list(tmp_path.iterdir()) == [source]


def saved(folder: Path, kind: str) -> Path:
    """Layers, some of which have few bytes in their file, and some of which are small."""
    tensors = {"large": np.zeros((512, 512), np.float32)}
    tensors |= {f"small.{i}": np.ones((8, 8), np.float32) for i in range(100)}
    path = folder / f"model.{kind}"
    if kind == "npz":
        np.savez_compressed(path, **tensors)
    elif kind == "safetensors":
        save_file(tensors, path)
    else:
        table = numpy_to_arrow_table(tensors)
        if kind == "parquet":
            pq.write_table(table, path, compression="zstd", row_group_size=10)
        else:
            feather.write_feather(table, path, compression="zstd")
    return path


@pytest.mark.parametrize("more", [{}, {"bits_per_weight": 5}], ids=["bits", "budget"])
@pytest.mark.parametrize("kind", ["parquet", "arrow", "npz", "safetensors"])
def test_no_more_is_done_than_there_is(tmp_path: Path, kind: str, more: dict[str, Any]) -> None:
    steps: list[Step] = []
    source = saved(tmp_path, kind)
    convert(source, tmp_path / "out.parquet", progress=steps.append, **more)
    whole = 4 * (512 * 512 + 100 * 64)
    assert {step.total for step in steps} == {whole}
    for what in {step.what for step in steps}:
        done = [step.bytes for step in steps if step.what == what]
        assert done == sorted(done)
        assert done[-1] == whole
