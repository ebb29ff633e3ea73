"""What a layer is quantized with, and its bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pyarrowquant._core import arguments
from pyarrowquant._core.quoting import quoted

Check = Callable[[str, object], Any]

LARGEST_GROUP_SIZE = 2**31 - 8
BIT_WIDTHS = (2, 3, 4, 5, 6, 8)


def one_of(name: str, value: object, choices: Iterable[object]) -> Any:
    """Return a value that is one of the choices."""
    if value in choices:
        return value
    raise ValueError(f"{name} {quoted(value)} must be one of {listed(choices)}")


def listed(values: Iterable[object]) -> str:
    return ", ".join(map(repr, values))


def _choice(kind: Check, *choices: int | str) -> Check:
    return lambda name, value: one_of(name, kind(name, value), choices)


def _group_size(name: str, value: object) -> int:
    number = arguments.integer(name, value)
    if number != -1 and (number % 8 or not 8 <= number <= LARGEST_GROUP_SIZE):
        raise ValueError(
            f"{name} {number} must be a multiple of 8 from 8 to {LARGEST_GROUP_SIZE}, "
            "or -1 for the whole row"
        )
    return number


SETTING_CHECKS: dict[str, Check] = {
    "bit_width": _choice(arguments.integer, *BIT_WIDTHS),
    "group_size": _group_size,
    "method": _choice(arguments.text, "rtn", "hqq", "mse"),
    "zero_point": _choice(arguments.text, "integer", "float", "symmetric"),
    "scale_dtype": _choice(arguments.text, "float32", "float16", "bfloat16"),
}
SETTINGS = tuple(SETTING_CHECKS)
