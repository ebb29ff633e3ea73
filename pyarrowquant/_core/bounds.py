"""The types and bounds of settings, said once for calls, `Settings`, rules and recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyarrowquant._core import arguments
from pyarrowquant._core.encodings import ENCODING_NAMES
from pyarrowquant._core.group_sizes import SHARED, WHOLE_ROW, group_size_argument
from pyarrowquant._core.quoting import quoted
from pyarrowquant.errors import UsageError

Check = Callable[[str, object], Any]

LARGEST_GROUP_SIZE = 2**31 - 8
BIT_WIDTHS = (2, 3, 4, 5, 6, 8)
METHODS = ("rtn", "mse", "hqq")
ZERO_POINTS = ("integer", "float", "symmetric")
SCALE_BITS = {"float32": 32, "float16": 16, "bfloat16": 16}
SCALE_DTYPES = tuple(SCALE_BITS)


def one_of(name: str, value: object, choices: Iterable[str]) -> str:
    """Return a text that is one of the choices."""
    text = arguments.text(name, value)
    if text in choices:
        return text
    raise ValueError(f"{name} {quoted(value)} must be one of {listed(choices)}")


def listed(values: Iterable[object]) -> str:
    return ", ".join(map(repr, values))


@dataclass(frozen=True)
class Bound:
    """What a setting may be.

    Attributes
    ----------
    of_type : callable
        Returns a value, or raises for one of the wrong type.
    holds : callable
        Whether a value of the type is within bounds.
    words : str
        What rules are told that it must be.
    words_of_calls : str
        What calls are told.
    """

    of_type: Check
    holds: Callable[[Any], bool]
    words: str
    words_of_calls: str

    def checked(self, label: str, value: object) -> Any:
        """Return a value of a rule, which errors call so."""
        found = self.of_type(label, value)
        if not self.holds(found):
            raise ValueError(f"{label} {quoted(found)} must be {self.words}")
        return found

    def check_argument(self, name: str, value: Any) -> None:
        """Raise where a value of a call, or of settings, is not within bounds; Go says the same."""
        if not self.holds(value):
            raise UsageError(f"Invalid {name}: {quoted(value)}. Must be {self.words_of_calls}")


def _choice(of_type: Check, choices: Sequence[object], words_of_calls: str | None = None) -> Bound:
    words = listed(choices)
    return Bound(of_type, choices.__contains__, f"one of {words}", words_of_calls or words)


def _is_group_size(value: int | str) -> bool:
    if isinstance(value, str):
        return value in SHARED
    return value == WHOLE_ROW or (8 <= value <= LARGEST_GROUP_SIZE and value % 8 == 0)


_GROUP_SIZE = f"a multiple of 8 from 8 to {LARGEST_GROUP_SIZE}, or -1 for one group a row"

# Go has the same for what it gets; tests compare both.
BOUNDS: dict[str, Bound] = {
    "bit_width": _choice(arguments.integer, BIT_WIDTHS, "2, 4, or 8 (3, 5 and 6 also work)"),
    "group_size": Bound(group_size_argument, _is_group_size, _GROUP_SIZE, _GROUP_SIZE),
    "method": _choice(arguments.text, METHODS),
    "zero_point": _choice(arguments.text, ZERO_POINTS),
    "scale_dtype": _choice(arguments.text, SCALE_DTYPES),
    "encoding": _choice(arguments.text, ENCODING_NAMES),
}
SETTINGS = tuple(BOUNDS)
