"""What shares a scale: columns of a row, a row, or what several rows have in common."""

from __future__ import annotations

from pyarrowquant._core import arguments

WHOLE_ROW = -1
TENSOR = "tensor"  # all weights of a layer
BLOCK = "block"  # so many rows, and columns:
BLOCK_SIZE = 128
SHARED = (TENSOR, BLOCK)

GroupSize = int | str


def group_size_argument(name: str, value: object) -> GroupSize:
    """Return a number of columns, or one of `SHARED`; its bounds are checked elsewhere."""
    if isinstance(value, str):
        if value in SHARED:
            return value
        raise arguments.wrong_type(f"{name} must be an int, {TENSOR!r} or {BLOCK!r}", value)
    return arguments.integer(name, value)


def in_row(group_size: GroupSize) -> int:
    """Return what of a row has one scale, as tables say it: so many columns, or -1."""
    if isinstance(group_size, int):
        return group_size
    return BLOCK_SIZE if group_size == BLOCK else WHOLE_ROW


def size_order(group_size: GroupSize) -> tuple[int, str]:
    """Return what sorts group sizes: by what of a row has one scale."""
    return in_row(group_size), str(group_size)


def grouping_text(group_size: GroupSize) -> str:
    """Say what shares a scale, after "in"."""
    special = {
        WHOLE_ROW: "one group a row",
        TENSOR: "one group a layer",
        BLOCK: f"blocks of {BLOCK_SIZE}x{BLOCK_SIZE}",
    }
    return special.get(group_size, f"groups of {group_size}")


def groups_in_row(group_size: GroupSize, columns: int) -> int:
    """Return how many scales decode a row that is not empty."""
    size = in_row(group_size)
    return 1 if size == WHOLE_ROW else -(-columns // size)


def blocks_in(size: int) -> int:
    """Return how many blocks so many rows, or columns, lie in."""
    return -(-size // BLOCK_SIZE)
