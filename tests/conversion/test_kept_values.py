"""NaN and Inf in tensors that stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import hf_folders
import ml_dtypes
import numpy as np
import pytest
from commands import run, succeeded
from safetensors.numpy import load_file, save_file

from conversion.killing import killed_after
from conversion.on_workers import workers
from pyarrowquant import convert
from pyarrowquant.conversion.partial.work import Work

NORM = "model.layers.1.input_layernorm.weight"
EMBEDDINGS = "model.embed_tokens.weight"
FORMATS = ["compressed-tensors", "bitsandbytes", "mlx"]


def folder(path: Path, values: dict[str, tuple[int, float]], dtype: str = "float32") -> Path:
    """Write a model with values at places of tensors."""
    tensors = {
        name: array.astype(np.dtype(getattr(ml_dtypes, dtype, dtype)))
        for name, array in hf_folders.llama().items()
    }
    for name, (index, value) in values.items():
        tensors[name].reshape(-1)[index] = value
    return hf_folders.write(path, tensors, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("value", "said"),
    [(np.nan, "NaN"), (-np.nan, "NaN"), (np.inf, "Inf"), (-np.inf, "Inf")],
)
@pytest.mark.parametrize("to", FORMATS)
def test_they_are_told(tmp_path: Path, to: str, value: float, said: str, dtype: str) -> None:
    source = folder(tmp_path / "model", {NORM: (255, value)}, dtype)
    place = rf"model/model\.safetensors': '{NORM}', which is not quantized, has {said} at index 255"
    with pytest.warns(UserWarning, match=place) as caught:
        convert(source, tmp_path / "out", to=to)
    assert len(caught) == 1
    found = load_file(tmp_path / "out/model.safetensors")[NORM]
    assert found.tobytes() == load_file(source / "model.safetensors")[NORM].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_first_of_a_tensor_of_many_pieces(tmp_path: Path, dtype: str) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    tensors: dict[str, np.ndarray[Any, Any]] = hf_folders.llama()
    tensors = {name: array.astype(kind) for name, array in tensors.items()}
    rows = (5 << 20) // hf_folders.COLUMNS + 1
    tensors[EMBEDDINGS] = np.ones((rows, hf_folders.COLUMNS), kind)
    tensors["lm_head.weight"] = np.ones((rows, hf_folders.COLUMNS), kind)
    index = (5 << 20) + 3
    for place in (index, index + 9):
        tensors[EMBEDDINGS].reshape(-1)[place] = np.nan
    source = hf_folders.write(tmp_path / "model", tensors, dtype=dtype)
    with pytest.warns(UserWarning, match=f"'{EMBEDDINGS}'.* has NaN at index {index}\\.") as caught:
        convert(source, tmp_path / "out", to="compressed-tensors")
    assert len(caught) == 1


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_largest_numbers_are_none(tmp_path: Path, dtype: str) -> None:
    kind = getattr(ml_dtypes, dtype, dtype)
    largest = float(ml_dtypes.finfo(kind).max)
    source = folder(tmp_path / "model", {NORM: (0, largest), EMBEDDINGS: (1, -largest)}, dtype)
    convert(source, tmp_path / "out", to="compressed-tensors")  # warnings are errors


def test_shards_are_named_by_commands(tmp_path: Path) -> None:
    source = folder(tmp_path / "model", {})
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    tensors[NORM][2] = np.nan
    tensors[EMBEDDINGS][1, 1] = np.nan
    save_file({EMBEDDINGS: tensors.pop(EMBEDDINGS)}, source / "a.safetensors")
    save_file(tensors, source / "b.safetensors")
    told = run("quantize", source, tmp_path / "out", "--to", "compressed-tensors")
    assert told.exit_code == 0
    assert f"'{source}/a.safetensors': '{EMBEDDINGS}', which is not quantized, has" in told.stderr
    assert f"'{source}/b.safetensors': '{NORM}', which is not quantized, has NaN" in told.stderr
    assert told.stderr.count("\n") == 2
    again = run("dequantize", tmp_path / "out", tmp_path / "plain")
    assert again.exit_code == 0
    assert f"'{tmp_path}/out/b.safetensors': '{NORM}', which is not quantized" in again.stderr
    succeeded("dequantize", tmp_path / "out", tmp_path / "plain", "--overwrite")


@pytest.mark.parametrize(
    ("method", "times", "first", "then", "more"),
    [
        ("note_done", 1, nullcontext, nullcontext, {}),
        ("note_done", 3, nullcontext, nullcontext, {}),
        ("publish", 1, nullcontext, nullcontext, {}),
        # Results are kept in parts first.
        ("add", 2, nullcontext, nullcontext, {"continue_on_error": True}),
        ("publish", 1, nullcontext, nullcontext, {"continue_on_error": True}),
        # Files are made as a whole.
        ("note_file", 2, partial(workers, 1), partial(workers, 1), {}),
        ("note_file", 2, partial(workers, 1), nullcontext, {}),
        ("publish", 1, partial(workers, 1), nullcontext, {}),
    ],
)
def test_a_resumed_run_tells_them_again(
    tmp_path: Path,
    model: Path,
    method: str,
    times: int,
    first: Callable[[], AbstractContextManager[None]],
    then: Callable[[], AbstractContextManager[None]],
    more: dict[str, Any],
) -> None:
    names = []
    for layer, shard in enumerate(sorted(model.glob("*.safetensors"))):
        names.append(f"'{shard}': 'layers.{layer}.norm'")
        tensors = load_file(shard)
        tensors[f"layers.{layer}.norm"][7] = np.nan
        save_file(tensors, shard)
    with first(), killed_after(Work, method, times):
        convert(model, tmp_path / "out", to="compressed-tensors", **more)
    with then(), pytest.warns(UserWarning, match="has NaN at index 7") as caught:
        convert(model, tmp_path / "out", to="compressed-tensors", resume=True, **more)
    assert sorted(str(each.message).partition(", which")[0] for each in caught) == names
