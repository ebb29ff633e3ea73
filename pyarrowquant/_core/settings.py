"""What a layer is quantized with, and its bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict

from pyarrowquant._core import arguments
from pyarrowquant._core.quoting import quoted

Check = Callable[[str, object], Any]

LARGEST_GROUP_SIZE = 2**31 - 8
BIT_WIDTHS = (2, 3, 4, 5, 6, 8)


class SettingOverrides(TypedDict, total=False):
    """Those of the settings that somebody says."""

    bit_width: int
    group_size: int
    method: str
    zero_point: str
    scale_dtype: str


@dataclass(frozen=True)
class Settings:
    """What a layer is quantized with: Go's quant.Settings.

    Attributes
    ----------
    bit_width : int
        One of `BIT_WIDTHS`.
    group_size : int
        A multiple of 8, or -1 for whole rows.
    method : {"rtn", "hqq", "mse"}
    zero_point : {"integer", "float", "symmetric"}
    scale_dtype : {"float32", "float16", "bfloat16"}
    """

    bit_width: int = 4
    group_size: int = 128
    method: str = "rtn"
    zero_point: str = "integer"
    scale_dtype: str = "float32"

    def with_overrides(self, said: SettingOverrides) -> Settings:
        return replace(self, **said)


SETTINGS = tuple(field.name for field in fields(Settings))


def one_of(name: str, value: object, choices: Iterable[object]) -> Any:
    """Return a value that is one of the choices."""
    if value in choices:
        return value
    raise ValueError(f"{name} {quoted(value)} must be one of {listed(choices)}")


def listed(values: Iterable[object]) -> str:
    return ", ".join(map(repr, values))


def contradiction(said: Mapping[str, Any]) -> str | None:
    """Say which settings are right by themselves, but not together."""
    if said.get("method") == "hqq" and said.get("zero_point") == "symmetric":
        return (
            "zero_point 'symmetric' leaves method 'hqq' nothing to choose. Use zero_point "
            "'float' or 'integer', or method 'mse'"
        )
    return None


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


# Of recipes, which are made and read without Go. Go has the same bounds for what it gets.
SETTING_CHECKS: dict[str, Check] = {
    "bit_width": _choice(arguments.integer, *BIT_WIDTHS),
    "group_size": _group_size,
    "method": _choice(arguments.text, "rtn", "hqq", "mse"),
    "zero_point": _choice(arguments.text, "integer", "float", "symmetric"),
    "scale_dtype": _choice(arguments.text, "float32", "float16", "bfloat16"),
}
