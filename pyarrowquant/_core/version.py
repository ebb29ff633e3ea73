"""The version of the layout of results, which readers of other versions must know."""

from __future__ import annotations

import json

import pyarrow as pa

from pyarrowquant._core.quoting import quoted

FORMAT_VERSION = 1  # quant.FormatVersion
_METADATA = b"pyarrowquant"
# Columns that say how codes are meant, of layouts to come.
_LATER = ("row_dimensions",)


def check_version(schema: pa.Schema) -> None:
    """Raise where results have a layout that this version does not know.

    Results without metadata, which other programs may have dropped, are of the first one.
    """
    for name in _LATER:
        if name in schema.names:
            raise ValueError(
                f"Column '{name}' says how codes are meant, and this version of pyarrowquant does "
                "not know it. Install a later version"
            )
    found = _noted_version(schema)
    if type(found) is not int or not 1 <= found <= FORMAT_VERSION:
        raise ValueError(
            f"Results have format_version {quoted(found)}, and this version of pyarrowquant knows "
            f"{FORMAT_VERSION}. Install a later version"
        )


def _noted_version(schema: pa.Schema) -> object:
    try:
        said = json.loads((schema.metadata or {}).get(_METADATA, b"{}"))
    except (ValueError, RecursionError):  # of another program
        return FORMAT_VERSION
    return said.get("format_version", 1) if isinstance(said, dict) else FORMAT_VERSION
