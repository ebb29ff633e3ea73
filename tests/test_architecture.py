"""What the page on the architecture says of new sources and formats works, word by word."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from child import HANG, ROOT
from reference import quantize

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MODULE = re.compile(r"this `(pyarrowquant/[\w/]+\.py)`:\n\n```python\n(.*?)^```$", re.M | re.S)
LINE = re.compile(r"`(pyarrowquant/[\w/]+\.py)`[^\n]*:\n\n```text\n(.*?)^```$", re.M | re.S)
IMPORT = "from pyarrowquant.reading.toy import ToyModel\n"
SOURCE, FORMAT = "pyarrowquant/reading/toy.py", "pyarrowquant/formats/toy.py"
MODELS, REGISTRY = "pyarrowquant/reading/models.py", "pyarrowquant/formats/registry.py"
RNG = np.random.default_rng(1)
TENSORS = {
    "up": RNG.standard_normal((48, 64)).astype(np.float32),
    "norm": np.ones(64, np.float32),
    "down": RNG.standard_normal((16, 96)).astype(np.float32),
}


def put_in(file: Path, after: str, line: str) -> None:
    """Put a line behind the only one that is like this."""
    text = file.read_text(encoding="utf-8")
    text, count = re.subn(after, lambda found: found[0] + line, text, flags=re.M)
    assert count == 1
    file.write_text(text, encoding="utf-8")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The package with what the page adds to it."""
    root = tmp_path / "added"
    shutil.copytree(ROOT / "pyarrowquant", root / "pyarrowquant")
    modules, lines = dict(MODULE.findall(PAGE)), dict(LINE.findall(PAGE))
    assert (modules.keys(), lines.keys()) == ({SOURCE, FORMAT}, {MODELS, REGISTRY})
    for path, text in modules.items():
        (root / path).write_text(text, encoding="utf-8")
    put_in(root / MODELS, r"^import pyarrow as pa\n", IMPORT)
    put_in(root / MODELS, r"^_KINDS: .* = \{\n", lines[MODELS])
    put_in(root / REGISTRY, r"^_ENTRIES = \{\n", lines[REGISTRY])
    return root


def command(package: Path, *arguments: object, code: int = 0) -> str:
    """What a command of the package prints."""
    done = subprocess.run(
        [sys.executable, "-m", "pyarrowquant", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(package)},
        timeout=HANG,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def model(tmp_path: Path) -> Path:
    line = json.dumps({name: tensor.shape for name, tensor in TENSORS.items()})
    data = b"".join(tensor.tobytes() for tensor in TENSORS.values())
    path = tmp_path / "model.toy"
    path.write_bytes(f"{line}\n".encode() + data)
    return path


def check_lines(file: Path) -> None:
    layers = [json.loads(line) for line in file.read_text().splitlines()]
    assert [layer["name"] for layer in layers] == ["up", "down"]
    for layer in layers:
        wanted = quantize(TENSORS[layer["name"]], 4, 32, "integer", "float32")
        assert (tuple(layer["shape"]), layer["bits"]) == (TENSORS[layer["name"]].shape, 4)
        assert bytes.fromhex(layer["codes"]) == wanted.data
        assert np.array_equal(np.float32(layer["scales"]), wanted.scales.ravel())
        assert np.array_equal(np.float32(layer["zero_points"]), wanted.zero_points.ravel())


def test_a_new_source_is_read(package: Path, model: Path, tmp_path: Path) -> None:
    said = command(package, "quantize", model, tmp_path / "out.parquet", "--method", "rtn")
    assert "Left out, of fewer than two dimensions: norm (256 B)" in said
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["layer_name"].to_pylist() == ["up", "down"]
    for name, data in zip(*table.select([0, 1]).to_pydict().values(), strict=True):
        assert data == quantize(TENSORS[name], 4, 128, "integer", "float32").data
    assert "up" in command(package, "inspect", model)
    model.write_bytes(model.read_bytes()[:-1])
    said = command(package, "quantize", model, tmp_path / "no.parquet", code=1)
    assert said.startswith(f"Error: {model} is cut short: it has ")
    model.write_bytes(b"{}")
    said = command(package, "quantize", model, tmp_path / "no.parquet", code=1)
    assert said.startswith(f"Error: {model} is no toy file: ")


def test_a_new_format_is_written(package: Path, model: Path, tmp_path: Path) -> None:
    said = command(package, "quantize", model, tmp_path / "out.toy", "--method", "rtn")
    assert "Left out, no matrices: norm (256 B)" in said
    check_lines(tmp_path / "out.toy")
    said = command(package, "quantize", model, tmp_path / "x", code=2)
    assert "End it with .toy, .parquet" in said
    wrong = "--to", "toy", "--encoding", "nf4"
    said = command(package, "quantize", model, tmp_path / "x", *wrong, code=2)
    assert "--to toy holds encoding 'int', and not 'nf4'" in said


def test_a_new_format_of_folders_is_written(package: Path, model: Path, tmp_path: Path) -> None:
    """Of which the page says what a format of files has not."""
    module = package / FORMAT
    is_folder = (
        "    def is_folder(self, destination: Path) -> bool:\n        return True\n\n"
        '    def file_names(self, model: Model) -> list[str]:\n        return ["index"]\n\n'
    )
    put_in(module, r"^    kept = .*\n\n", is_folder)
    text = module.read_text(encoding="utf-8")
    opened = '        with destination.open("x", encoding'
    inside = (
        '        destination.mkdir()\n        (destination / "index").touch()\n'
        '        with (destination / "a.lines").open("x", encoding'
    )
    module.write_text(text.replace(opened, inside), encoding="utf-8")
    registry = package / REGISTRY
    text = registry.read_text(encoding="utf-8")
    line = '"toy": _Entry("toy", "Toy", in_folders=".lines"),'
    registry.write_text(re.sub(r'"toy": .*', line, text), encoding="utf-8")
    out, to = tmp_path / "out", ("--to", "toy", "--method", "rtn")
    command(package, "quantize", model, out, *to)
    check_lines(out / "a.lines")
    command(package, "quantize", model, out, *to, "--overwrite")
    check_lines(out / "a.lines")
    (out / "mine.txt").write_text("mine")
    said = command(package, "quantize", model, out, *to, "--overwrite", code=1)
    assert "has 'mine.txt', which would be lost" in said
    said = command(package, "quantize", model, tmp_path / "x", code=2)
    assert "--to toy, --to compressed-tensors, --to bitsandbytes or --to mlx makes a folder" in said
