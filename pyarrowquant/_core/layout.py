"""How a layer is coded, without its codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pyarrowquant._core.group_sizes import WHOLE_ROW, GroupSize, in_row
from pyarrowquant._core.shapes import columns_of


@dataclass(frozen=True)
class Layout:
    """A layer's shape, and what its columns share.

    Attributes
    ----------
    name : str
    shape : tuple of int
    bits : int
    group_size : int or str
        As it was given: -1 for whole rows, "tensor" or "block" where rows share scales.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    group_size: GroupSize

    @property
    def columns(self) -> int:
        return columns_of(self.shape)

    @property
    def group(self) -> int:
        """Columns that share a scale: no more than the row has."""
        size = in_row(self.group_size)
        return self.columns if size == WHOLE_ROW else min(size, self.columns)

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
    def group_size(self) -> GroupSize: ...
    @property
    def zero_point(self) -> str: ...
    @property
    def encoding(self) -> str: ...
    @property
    def columns(self) -> int: ...
    @property
    def group(self) -> int: ...
    def matrix_problem(self) -> str | None: ...
