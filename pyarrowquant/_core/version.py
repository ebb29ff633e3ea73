"""The version of the layout of results, which readers of other versions must know."""

from __future__ import annotations

import json

import pyarrow as pa

from pyarrowquant._core.quoting import quoted

FORMAT_VERSION = 1  # quant.FormatVersion
_METADATA = b"pyarrowquant"
# Columns of layouts to come that say how codes are meant, known by their names where other
# programs have dropped the metadata. No column of users has these.
_LATER = "row_dimensions"
_LATER_PREFIX = "pyarrowquant_"


def check_version(schema: pa.Schema) -> None:
    """Raise where results have a layout that this version does not know.

    Results without metadata, which other programs may have dropped, are of the first one, if they
    have no columns of later ones.
    """
    for name in schema.names:
        if name == _LATER or name.startswith(_LATER_PREFIX):
            raise ValueError(
                f"Column '{name}' says how codes are meant, and this version of pyarrowquant does "
                "not know it. Install a later version"
            )
    if problem := version_problem(_noted_version(schema), FORMAT_VERSION):
        raise ValueError(f"Results have {problem}")


def version_problem(found: object, known: int) -> str | None:
    """Say what is wrong with the version that something says of itself.

    Parameters
    ----------
    found : object
        As JSON has it.
    known : int
        The last one that this version reads.
    """
    if type(found) is not int or found < 1:
        return (
            f"format_version {quoted(found)}, which no version of pyarrowquant writes: they are "
            "whole numbers from 1 on. Make the file or the table anew, as something has changed it"
        )
    if found > known:
        return (
            f"format_version {found}, and this version of pyarrowquant knows {known}. Install a "
            "later version"
        )
    return None


def _noted_version(schema: pa.Schema) -> object:
    try:
        said = json.loads((schema.metadata or {}).get(_METADATA, b"{}"))
    except (ValueError, RecursionError):  # of another program
        return FORMAT_VERSION
    return said.get("format_version", 1) if isinstance(said, dict) else FORMAT_VERSION
