"""Wrong usage ends with 2, whoever notices it; what options cannot be is said."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from commands import run
from safetensors.numpy import save_file

from pyarrowquant.formats.registry import FOLDERS, FORMATS, SUFFIXES

WRONG = {
    "no command": ["nope"],
    "no option": ["quantize", "--nope"],
    "group size": ["quantize", "MODEL", "out.parquet", "--group-size", "7"],
    "threads": ["quantize", "MODEL", "out.parquet", "--threads", "9" * 20],
    "together": ["quantize", "MODEL", "o.arrow", "--method", "hqq", "--zero-point", "symmetric"],
    "floor": ["quantize", "MODEL", "out.parquet", "--quality-floor", "2"],
    "budget": ["quantize", "MODEL", "out.parquet", "--bits-per-weight", "2"],
    "budget of a recipe": ["recipe", "fit", "MODEL", "r.json", "--bits-per-weight", "1.5"],
    "size": ["quantize", "MODEL", "out.gguf", "--size", "100"],
    "size of a plan": ["quantize", "MODEL", "out.gguf", "--size", "100", "--dry-run"],
    "recipe": ["quantize", "MODEL", "out.parquet", "--recipe", "txt"],
    "recipe show": ["recipe", "show", "txt"],
    "suffix": ["quantize", "MODEL", "out.what"],
    "stream": ["quantize", "MODEL", "-"],
    "stream with a format": ["quantize", "MODEL", "-", "--to", "parquet"],
    "stream of a recipe": ["recipe", "fit", "MODEL", "-", "--bits-per-weight", "4"],
    "stream of weights": ["dequantize", "MODEL", "-"],
}


@pytest.mark.parametrize("what", WRONG)
def test_it_ends_with_2(what: str, model: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        found = run(*(str(model) if word == "MODEL" else word for word in WRONG[what]))
        assert found.exit_code == 2, found.output
        assert "Error: " in found.stderr
        assert what.startswith("stream") is ("is not standard output" in found.stderr)
    assert [path.name for path in tmp_path.iterdir()] == [model.name]


# Each fails with a message that Python has, too.
FAILING = {
    "no folder": ["quantize", "MODEL", "o", "--to", "compressed-tensors"],
    "no config": ["quantize", "FOLDER", "o", "--to", "compressed-tensors"],
    "gguf": ["quantize", "MODEL", "o.gguf", "--group-size", "64"],
    "scales": ["quantize", "MODEL", "o.gguf", "--scale-dtype", "float32"],
    "budget and encoding": [
        *("quantize", "MODEL", "o.arrow", "--encoding", "nf4", "--bits-per-weight", "4.5")
    ],
    "no floats": ["quantize", "INTEGERS", "o.arrow"],
    "mix": ["recipe", "fit", "MODEL", "o.json", "--bits-per-weight", "4.5", "--recipe", "Q4_K_M"],
    "exists": ["quantize", "MODEL", "MODEL"],
    "memory": ["quantize", "MODEL", "o.arrow", "--max-memory", "1K"],
    "suffix of weights": ["dequantize", "MODEL", "o.npz"],
    "no results": ["report", "MODEL", "--html", "o.html"],
    "beyond float16": ["dequantize", "LARGE", "o.arrow", "--dtype", "float16"],
    "beyond float16, kept": ["dequantize", "WIDE", "o.arrow", "--dtype", "float16"],
}
# What only Python has: keywords, functions, and what stands for an argument.
PYTHON = re.compile(r"\w=(?!=)|\w\(\)|Recipe\.|\b(argument|kept|kwarg)\b|\bmodel is\b")


@pytest.mark.parametrize("what", FAILING)
def test_messages_name_what_the_command_has(
    what: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file({"a.weight": np.ones((4, 64), np.float32)}, folder / "model.safetensors")
    save_file({"a": np.ones((4, 64), np.int32)}, tmp_path / "integers.safetensors")
    save_file({"a.weight": np.full((4, 64), 1e30, np.float32)}, tmp_path / "wide.safetensors")
    assert run("quantize", "wide.safetensors", "large.parquet").exit_code == 0
    words = {
        "MODEL": model,
        "FOLDER": folder,
        "INTEGERS": "integers.safetensors",
        "LARGE": "large.parquet",
        "WIDE": "wide.safetensors",
    }
    result = run(*(words.get(word, word) for word in FAILING[what]))
    assert result.exit_code in (1, 2), result.output
    said = re.sub(r"[;.] [Ii]n Python, .*", "", result.stderr)
    assert not PYTHON.search(said), said


def test_the_version_has_a_short_option() -> None:
    assert run("-V").stdout == run("--version").stdout


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors", "x.pt", "x.bin", "x"])
def test_destinations_of_no_format_are_told_all_ways_that_work(
    name: str, model: Path, tmp_path: Path
) -> None:
    done = run("quantize", model, tmp_path / name)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == (
        f"Error: '{tmp_path / name}' has no suffix that says its format. End it with .parquet, "
        ".arrow, .ipc, .feather, .gguf or .onnx, or use --to; --to compressed-tensors, "
        "--to bitsandbytes or --to mlx makes a folder of safetensors"
    )
    for folder in FOLDERS:
        assert FORMATS[folder].is_folder(Path("x.safetensors"))
    assert {*FOLDERS, *SUFFIXES.values()} == set(FORMATS)


@pytest.mark.parametrize("name", ["x.npz", "x.pt", "x.bin", "x"])
def test_decoding_to_no_format_is_told_all_ways_that_work(name: str, tmp_path: Path) -> None:
    done = run("dequantize", "model.parquet", tmp_path / name)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == (
        f"Error: '{tmp_path / name}' has no suffix that says its format. End it with .parquet, "
        ".arrow, .ipc, .feather, .safetensors or .gguf, or use --to"
    )
