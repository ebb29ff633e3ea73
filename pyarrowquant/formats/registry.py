"""All formats that models are converted to: a new one is its module, and a line here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module

from pyarrowquant.formats._format import Format
from pyarrowquant.reading.table_files import TABLES


@dataclass(frozen=True)
class _Entry:
    """Where a format is, and what its files are called.

    Attributes
    ----------
    module : str
        Here.
    kind : str
        The name of its class.
    suffixes : tuple of str
        Those of destinations that say the format; none where a destination is a folder, whatever
        its suffix.
    in_folders : str or None
        The suffix of its files of weights in a folder, if it writes such.
    """

    module: str
    kind: str
    suffixes: tuple[str, ...] = ()
    in_folders: str | None = None


def _tables(kind: str) -> tuple[str, ...]:
    return tuple(suffix for suffix, name in TABLES.items() if name == kind)


_ENTRIES = {
    "parquet": _Entry("tables", "Parquet", _tables("parquet"), ".parquet"),
    "arrow": _Entry("tables", "Arrow", _tables("arrow"), ".arrow"),
    "compressed-tensors": _Entry(
        "compressed_tensors", "CompressedTensors", in_folders=".safetensors"
    ),
    "bitsandbytes": _Entry("bitsandbytes", "Bitsandbytes", in_folders=".safetensors"),
    "mlx": _Entry("mlx", "Mlx", in_folders=".safetensors"),
    "gguf": _Entry("gguf", "Gguf", (".gguf",)),
    "onnx": _Entry("onnx", "Onnx", (".onnx",)),
}
# Those of destinations whose format the suffix says.
SUFFIXES = {suffix: name for name, entry in _ENTRIES.items() for suffix in entry.suffixes}
# Formats whose destinations are folders, whatever their suffix.
FOLDERS = tuple(name for name, entry in _ENTRIES.items() if not entry.suffixes)
# Suffixes of files of weights, one of which is in a folder that was written.
IN_FOLDERS = tuple(
    dict.fromkeys(entry.in_folders for entry in _ENTRIES.values() if entry.in_folders)
)


class _Formats(Mapping[str, Format]):
    """Formats by name. One is imported when it is asked for, as a conversion has only one."""

    def __init__(self) -> None:
        self._made: dict[str, Format] = {}

    def __getitem__(self, name: str) -> Format:
        if name not in self._made:
            entry = _ENTRIES[name]
            made = getattr(import_module(f"pyarrowquant.formats.{entry.module}"), entry.kind)()
            assert isinstance(made, Format)
            self._made[name] = made
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_ENTRIES)

    def __len__(self) -> int:
        return len(_ENTRIES)

    def __contains__(self, name: object) -> bool:
        return name in _ENTRIES


FORMATS = _Formats()
