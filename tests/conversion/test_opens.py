"""A conversion opens each file of its source once, and parses each header once."""

from __future__ import annotations

import json
from pathlib import Path

import gguf_models
import numpy as np
import onnx
import onnx_models
import pytest
from child import run_child
from safetensors.numpy import save_file

from pyarrowquant import numpy_to_arrow_table
from pyarrowquant.formats.tables import write_batches

PROGRAM = """
from collections import Counter
import json
from pathlib import Path
import warnings
from pyarrowquant.reading import gguf, npz, onnx, safetensors, arrow_files

source, destination, to = Path({source!r}), Path({destination!r}), {to!r}
opened, parsed = Counter(), Counter()

def hook(event, arguments):
    if event == "open" and str(arguments[0]).startswith(str(source)):
        opened[Path(arguments[0]).relative_to(source).as_posix()] += 1

def counted(module, name):
    function = getattr(module, name)
    def count(*arguments):
        parsed[name] += 1
        return function(*arguments)
    setattr(module, name, count)

counted(safetensors, "read_header")
counted(gguf, "read_header")
counted(onnx, "load_model")
counted(npz, "read_arrays")
warnings.filterwarnings("ignore", "Quantized already")
warnings.filterwarnings("ignore", "Their rows are no whole blocks")
pyarrowquant.convert  # imports read files too
sys.addaudithook(hook)
pyarrowquant.convert(source / {name!r}, destination, to=to, tensors_only=True)
print(json.dumps([opened, parsed]))
"""


def counts(source: Path, name: str, to: str) -> tuple[dict[str, int], dict[str, int]]:
    said = {"source": str(source), "destination": str(source.parent / "out"), "to": to}
    opened, parsed = json.loads(run_child(PROGRAM.format(name=name, **said)))
    return opened, parsed


@pytest.mark.parametrize(
    "to", ["compressed-tensors", "bitsandbytes", "mlx", "gguf", "onnx", "parquet"]
)
def test_folder(tmp_path: Path, to: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text('{"model_type": "llama", "dtype": "float32"}')
    (source / "tokenizer.json").write_text("{}")
    weights = np.ones((32, 128), np.float32)
    names = [f"model.layers.{n}.mlp.up_proj.weight" for n in range(3)]
    shards = [f"model-{n}.safetensors" for n in range(3)]
    for name, shard in zip(names, shards, strict=True):
        save_file({name: weights, f"{name}.norm.bias": weights[0]}, source / shard)
    weight_map = {
        each: shard
        for name, shard in zip(names, shards, strict=True)
        for each in (name, f"{name}.norm.bias")
    }
    index = {"metadata": {"license": "mine"}, "weight_map": weight_map}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    opened, parsed = counts(source, ".", to)
    assert parsed == {"read_header": 3}
    files = {*shards, "model.safetensors.index.json", "config.json"}
    assert {name: opened[name] for name in files} == dict.fromkeys(files, 1)
    assert opened.get("tokenizer.json", 0) <= 1  # is copied, where the format has a place for it


@pytest.mark.parametrize("to", ["gguf", "parquet"])
def test_gguf(tmp_path: Path, to: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    up = {"blk.0.up.weight": np.ones((8, 64), np.float16)}
    gguf_models.saved(source / "model.gguf", up)
    opened, parsed = counts(source, "model.gguf", to)
    assert parsed == {"read_header": 1}
    assert opened == {"model.gguf": 1}


@pytest.mark.parametrize("to", ["onnx", "parquet"])
def test_onnx(tmp_path: Path, to: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    proto = onnx_models.mlp().proto()
    path = source / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="data", size_threshold=0)
    opened, parsed = counts(source, "model.onnx", to)
    assert parsed == {"load_model": 1}
    assert opened == {"model.onnx": 1, "data": 1}


@pytest.mark.parametrize("to", ["parquet", "gguf"])
def test_npz(tmp_path: Path, to: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    np.savez(source / "model.npz", up=np.ones((8, 64), np.float32))
    opened, parsed = counts(source, "model.npz", to)
    assert parsed == {"read_arrays": 1}
    assert opened == {"model.npz": 1}


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_tables(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    table = numpy_to_arrow_table({"up": np.ones((8, 64), np.float32)})
    write_batches(table.to_reader(), source / f"model.{kind}", kind, overwrite=False)
    opened, _ = counts(source, f"model.{kind}", "parquet")
    assert opened == {f"model.{kind}": 1}
