"""All formats that models are converted to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from pyarrowquant.formats._format import Format
from pyarrowquant.reading.table_files import TABLES

# Their modules here, and their classes.
_CLASSES = {
    "parquet": ("tables", "Parquet"),
    "arrow": ("tables", "Arrow"),
    "compressed-tensors": ("compressed_tensors", "CompressedTensors"),
    "bitsandbytes": ("bitsandbytes", "Bitsandbytes"),
    "mlx": ("mlx", "Mlx"),
    "gguf": ("gguf", "Gguf"),
    "onnx": ("onnx", "Onnx"),
}
# Those of destinations whose format the suffix says.
SUFFIXES = {**TABLES, ".gguf": "gguf", ".onnx": "onnx"}
# Those of destinations that are folders, whatever their suffix.
FOLDERS = ("compressed-tensors", "bitsandbytes", "mlx")


class _Formats(Mapping[str, Format]):
    """Formats by name. One is imported when it is asked for, as a conversion has only one."""

    def __init__(self) -> None:
        self._made: dict[str, Format] = {}

    def __getitem__(self, name: str) -> Format:
        if name not in self._made:
            module, kind = _CLASSES[name]
            made = getattr(import_module(f"pyarrowquant.formats.{module}"), kind)()
            assert isinstance(made, Format)
            self._made[name] = made
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)

    def __contains__(self, name: object) -> bool:
        return name in _CLASSES


FORMATS = _Formats()
