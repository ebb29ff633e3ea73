"""Conversions on any cluster: the bytes of one machine, and errors that say what failed where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gguf_models
import hf_folders
import numpy as np
import pytest
from child import HANG
from exports import files
from models import write_shards
from safetensors.numpy import load_file

from pyarrowquant import QuantizationError, Step, convert

MEMORY = 140_000_000  # of which a batch has some MB
BAD = "model.layers.3.mlp.up_proj.weight"

conversions = pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out.gguf", {"recipe": "Q4_K_M"}),
        ("out", {"to": "compressed-tensors", "recipe": "NVFP4A16"}),
        ("out.parquet", {"quality_floor": 0.9975}),
        ("out", {"to": "arrow", "bits_per_weight": 4.4}),
        ("out.gguf", {"size": 3_600_000, "importance": True}),
        ("out", {"to": "compressed-tensors", "quality_floor": 0.9975}),
        ("out", {"to": "compressed-tensors", "rescale": "on", "importance": True}),
        ("out", {"to": "mlx"}),
        ("out", {"to": "mlx", "bits_per_weight": 5}),
        ("out", {"to": "bitsandbytes"}),
        ("out", {"to": "bitsandbytes", "double": True}),
    ],
    ids=[
        "gguf",
        "nvfp4",
        "floor",
        "budget",
        "size",
        "floor of joined layers",
        "rescaled",
        "mlx",
        "mlx budget",
        "bitsandbytes",
        "double",
    ],
)


def sharded(folder: Path) -> Path:
    """Write a language model in shards; layers that engines join lie in different ones."""
    hf_folders.write(folder, hf_folders.llama(8))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {f"model-0000{i + 1}-of-00004.safetensors": names[i::4] for i in range(4)}
    return write_shards(
        folder, {file: {name: tensors[name] for name in each} for file, each in shards.items()}
    )


def importance(file: Path) -> Path:
    """Write the importance of columns of some of its layers."""
    columns = np.arange(1, 257, dtype=np.float32)
    names = [f"model.layers.{i}.self_attn.{part}_proj.weight" for i in range(8) for part in "qkv"]
    return gguf_models.imatrix(file, {name: (columns, np.ones(1)) for name in names})


def written(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(folder).items() if not name.startswith(".")}


def with_nan(model: Path, folder: Path) -> Path:
    """The model, one of whose layers has a NaN."""
    folder.mkdir()
    for file in model.iterdir():
        data = bytearray(file.read_bytes())
        if file.suffix == ".safetensors":
            start = 8 + int.from_bytes(data[:8], "little")
            header = json.loads(data[8:start])
            if BAD in header:
                at = start + header[BAD]["data_offsets"][0] + 20
                data[at : at + 4] = np.float32("nan").tobytes()
        (folder / file.name).write_bytes(data)
    return folder


def check_bytes(
    there: dict[str, Any],
    model: Path,
    importance: Path,
    folder: Path,
    name: str,
    options: dict[str, Any],
) -> None:
    """Check that a conversion on a cluster makes and says what one on this machine does."""
    if "importance" in options:
        options = {**options, "importance": importance}
    made = []
    for place, engine in (("here", {}), ("there", there)):
        (folder / place).mkdir()
        steps: list[Step] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder / place)
            source = os.path.relpath(model)
            done = convert(
                source, name, max_memory=MEMORY, progress=steps.append, **engine, **options
            )
        assert steps[-1].layers == done.layers
        made.append((done, steps[-1], written(folder / place)))
    (here, last_here, wanted), (done, last_there, found) = made
    assert found == wanted
    assert last_here == last_there
    for said in ("layers", "missed", "underflows", "weights", "bytes", "relative_error"):
        assert getattr(here, said) == getattr(done, said)


def check_failing_layer(
    there: dict[str, Any], model: Path, folder: Path, options: dict[str, Any]
) -> None:
    """Check that an error says which layer of what failed where, or that the layer is left out."""
    bad = with_nan(model, folder / "bad")
    there = {**there, "max_memory": MEMORY, **options}
    place = r"\(batch \d+ of '.*bad' on the worker \S+\)"
    with pytest.raises(QuantizationError, match=f"Layer '{BAD}' contains NaN.*{place}") as caught:
        convert(bad, folder / "out.parquet", **there)
    assert [error.layer_name for error in caught.value.errors] == [BAD]

    told = []
    here = {"max_memory": MEMORY, **options}
    for name, each in (("here.parquet", here), ("there.parquet", there)):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UserWarning)
            done = convert(bad, folder / name, continue_on_error=True, **each)
        told.append((done.skipped, [str(each.message) for each in warned]))
    assert told[0] == told[1]
    assert told[0][0]
    assert written(folder)["here.parquet"] == written(folder)["there.parquet"]


def check_resumes(there: dict[str, Any], model: Path, folder: Path) -> None:
    """Check that what one engine has begun another ends."""
    convert(model, folder / "whole.gguf", max_memory=MEMORY)

    def fails(step: Step) -> None:
        if step.layers > 10:
            raise RuntimeError("out of paper")

    for name, first, second in (("a.gguf", there, {}), ("b.gguf", {}, there)):
        with (
            pytest.raises(RuntimeError, match="out of paper"),
            pytest.warns(UserWarning, match="What is done stays"),
        ):
            convert(model, folder / name, max_memory=MEMORY, progress=fails, **first)
        steps: list[Step] = []
        again = {"max_memory": MEMORY, "resume": True, "progress": steps.append}
        convert(model, folder / name, **again, **second)
        assert 0 < steps[-1].layers < 8 * 7
        assert written(folder)[name] == written(folder)["whole.gguf"]


def check_interrupt(options: list[str], model: Path, folder: Path) -> None:
    """Check that Ctrl-C leaves what --resume continues."""
    out = folder / "out.parquet"
    arguments = ["quantize", str(model), str(out), "--max-memory", "140M", *options]
    # Sends itself Ctrl-C once something is on the disk.
    program = """
import os, signal, sys
from pyarrowquant.conversion.partial.work import Work
add = Work.add

def added(*arguments):
    add(*arguments)
    os.kill(os.getpid(), signal.SIGINT)

Work.add = added
from pyarrowquant.__main__ import main
main()
"""
    interrupted = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert interrupted.returncode == 130, interrupted.stderr
    assert "Interrupted" in interrupted.stderr
    assert not out.exists()
    command = [sys.executable, "-m", "pyarrowquant", *arguments, "--resume"]
    subprocess.run(command, check=True, timeout=HANG)
    convert(model, folder / "whole.parquet", max_memory=MEMORY)
    assert written(folder)["out.parquet"] == written(folder)["whole.parquet"]
