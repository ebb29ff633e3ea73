"""llama.cpp's names of tensors."""

from __future__ import annotations


def layer_of(name: str) -> int:
    """Return the number of the layer that a tensor is of, -1 for one of none."""
    first, _, rest = name.partition(".")
    number = rest.partition(".")[0]
    return int(number) if first == "blk" and number.isdecimal() and len(number) < 10 else -1
