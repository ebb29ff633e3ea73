"""Formats that `quantize` writes: their defaults, what they keep, and how they are written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pyarrowquant import formats, read_weights
from pyarrowquant.cli._files import watched, write_batches
from pyarrowquant.recipe import Recipe
from pyarrowquant.rule import Rule

FORMATS = ("parquet", "arrow", "mlx", "gguf", "onnx")

_USUAL: dict[str, Any] = {
    "bit_width": 4,
    "group_size": 128,
    "method": "mse",
    "zero_point": "integer",
    "scale_dtype": "float32",
}
# What engines take where the user says nothing else.
DEFAULTS: dict[str, dict[str, Any]] = {
    "parquet": _USUAL,
    "arrow": _USUAL,
    "mlx": {**_USUAL, "group_size": 64, "scale_dtype": "float16"},
    "gguf": {
        **_USUAL,
        "group_size": 32,
        "zero_point": "symmetric",
        "scale_dtype": "float16",
    },
    "onnx": _USUAL,
}

_NO_MATRIX = Rule(ndim=(0, 1, 3, 4, 5, 6), skip=True)
# Layers that a format cannot quantize stay as they are.
_KEPT: dict[str, tuple[Rule, ...]] = {
    "mlx": (_NO_MATRIX, Rule(regex=r"(?<!\.weight)$", skip=True)),
    "gguf": (_NO_MATRIX,),
    "onnx": (_NO_MATRIX,),
}

_TOKENIZER = ("tokenizer*", "*.model", "vocab*", "merges*", "*_map.json", "*_config.json")


def with_kept(kind: str, rules: Recipe | None) -> Recipe | None:
    """Return the recipe, before it the rules for what the format cannot quantize."""
    if kind not in _KEPT:
        return rules
    if rules is None:
        return Recipe(_KEPT[kind])
    return Recipe([*_KEPT[kind], *rules.rules], default=rules.default, name=rules.name)


def write(
    kind: str, results: pa.RecordBatchReader, source: str, destination: Path, overwrite: bool
) -> None:
    """Write results as they come, and the layers of the source that they leave out."""
    if kind in ("parquet", "arrow"):
        write_batches(results, destination, kind, overwrite)
        return
    names: set[str] = set()
    results = watched(results, lambda batch: names.update(batch["layer_name"].to_pylist()))
    if kind == "onnx":
        formats.write_onnx(results, destination, overwrite=overwrite)
    elif kind == "gguf":
        kept = _left_out(source, names)
        formats.write_gguf(results, destination, kept=kept, overwrite=overwrite)
    else:
        _write_mlx(results, source, destination, _left_out(source, names), overwrite)


def _left_out(source: str, names: set[str]) -> pa.RecordBatchReader:
    """Read the source again, without the layers of these names when it is read."""
    layers = read_weights(source)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in layers:
            for row, name in enumerate(batch["layer_name"].to_pylist()):
                if name not in names:
                    yield batch.slice(row, 1)

    return pa.RecordBatchReader.from_batches(layers.schema, batches())


def _write_mlx(
    results: pa.RecordBatchReader,
    source: str,
    folder: Path,
    kept: pa.RecordBatchReader,
    overwrite: bool,
) -> None:
    """Write a folder for MLX; a model folder's configuration and tokenizer go with it."""
    config = Path(source) / "config.json"
    said = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else None
    formats.write_mlx(results, folder, kept=kept, config=said, overwrite=overwrite)
    for pattern in _TOKENIZER if Path(source).is_dir() else ():
        for file in Path(source).glob(pattern):
            if file.is_file() and (overwrite or not (folder / file.name).exists()):
                shutil.copyfile(file, folder / file.name)
