"""How a layer is coded, without its codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pyarrowquant._core.shapes import columns_of


@dataclass(frozen=True)
class Layout:
    """A layer's shape, and what its columns share.

    Attributes
    ----------
    name : str
    shape : tuple of int
    bits : int
    group_size : int
        As it was given: -1 for whole rows.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    group_size: int

    @property
    def columns(self) -> int:
        return columns_of(self.shape)

    @property
    def group(self) -> int:
        """Columns that share a scale: no more than the row has."""
        return self.columns if self.group_size == -1 else min(self.group_size, self.columns)

    def matrix_problem(self) -> str | None:
        """Say what keeps the layer from being a matrix, which all formats want."""
        if len(self.shape) != 2:
            return f"shape {list(self.shape)} is not that of a matrix"
        if 0 in self.shape:
            return f"shape {list(self.shape)} has no weights"
        return None


class Coded(Protocol):
    """A layer with its kind of zero-points, planned or packed."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def bits(self) -> int: ...
    @property
    def group_size(self) -> int: ...
    @property
    def zero_point(self) -> str: ...
    @property
    def encoding(self) -> str: ...
    @property
    def columns(self) -> int: ...
    @property
    def group(self) -> int: ...
    def matrix_problem(self) -> str | None: ...
