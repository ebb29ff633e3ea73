"""Commands run without pandas, which takes longer to import than all the rest."""

from __future__ import annotations

import sys

import pyarrow as pa


class _NotInstalled:
    """Finds no pandas."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> None:
        if name == "pandas":
            raise ImportError(name)


def leave_out_pandas() -> None:
    """Let PyArrow find no pandas, which it imports with the first array to know its objects.

    No command has any. Others may import pandas afterwards.
    """
    sys.meta_path.insert(0, _NotInstalled)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(_NotInstalled)
