"""What a layer is quantized with, and its bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict

from pyarrowquant._core import arguments
from pyarrowquant._core.encodings import ENCODING_NAMES, ENCODINGS, INTEGER, Encoding
from pyarrowquant._core.group_sizes import SHARED, GroupSize, group_size_argument
from pyarrowquant._core.quoting import quoted
from pyarrowquant.errors import UsageError

Check = Callable[[str, object], Any]

LARGEST_GROUP_SIZE = 2**31 - 8
BIT_WIDTHS = (2, 3, 4, 5, 6, 8)


class SettingOverrides(TypedDict, total=False):
    """Those of the settings that somebody says."""

    bit_width: int
    group_size: GroupSize
    method: str
    zero_point: str
    scale_dtype: str
    encoding: str


@dataclass(frozen=True)
class Settings:
    """What a layer is quantized with: Go's quant.Settings.

    Attributes
    ----------
    bit_width : int
        One of `BIT_WIDTHS`.
    group_size : int or str
        A multiple of 8, or -1 for whole rows; of "fp8" also one of `SHARED`.
    method : {"rtn", "hqq", "mse"}
    zero_point : {"integer", "float", "symmetric"}
    scale_dtype : {"float32", "float16", "bfloat16"}
    encoding : str
        "int", or one of `ENCODINGS`, which fixes other settings.
    """

    bit_width: int = 4
    group_size: GroupSize = 128
    method: str = "rtn"
    zero_point: str = "integer"
    scale_dtype: str = "float32"
    encoding: str = INTEGER

    def with_overrides(self, said: SettingOverrides) -> Settings:
        """Return these settings with what somebody says instead.

        Another encoding brings what it fixes. What belonged to the one before becomes usual again.

        Raises
        ------
        UsageError
            What is said contradicts the encoding.
        """
        usual: dict[str, Any] = {}
        encoding = said.get("encoding", self.encoding)
        if encoding != self.encoding:
            before = {name: getattr(Settings, name) for name in _brought_by(self.encoding)}
            usual = {**before, **_brought_by(encoding)}
        settings = replace(self, **{**usual, **said})
        if problem := _encoding_problem(vars(settings), said):
            raise UsageError(problem)
        return settings


def _brought_by(name: str) -> dict[str, int | str]:
    """Return the settings that come with an encoding; none with "int", or what Go will refuse."""
    encoding = ENCODINGS.get(name)
    return {} if encoding is None else encoding.brings


def said_settings(
    bit_width: int | None,
    group_size: GroupSize | None,
    method: str | None,
    zero_point: str | None,
    scale_dtype: str | None,
    encoding: str | None,
) -> SettingOverrides:
    """Return the settings that a caller has given, the types of which are checked."""
    said: SettingOverrides = {}
    if bit_width is not None:
        said["bit_width"] = arguments.integer("bit_width", bit_width)
    if group_size is not None:
        said["group_size"] = group_size_argument("group_size", group_size)
    if method is not None:
        said["method"] = arguments.text("method", method)
    if zero_point is not None:
        said["zero_point"] = arguments.text("zero_point", zero_point)
    if scale_dtype is not None:
        said["scale_dtype"] = arguments.text("scale_dtype", scale_dtype)
    if encoding is not None:
        said["encoding"] = arguments.text("encoding", encoding)
    return said


SETTINGS = tuple(field.name for field in fields(Settings))


def one_of(name: str, value: object, choices: Iterable[object]) -> Any:
    """Return a value that is one of the choices."""
    if value in choices:
        return value
    raise ValueError(f"{name} {quoted(value)} must be one of {listed(choices)}")


def listed(values: Iterable[object]) -> str:
    return ", ".join(map(repr, values))


def merged(usual: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said, and what is usual but for what another encoding fixes."""
    encoding = ENCODINGS.get(said.get("encoding", INTEGER))
    fixed = {} if encoding is None else encoding.fixed
    kept = {name: value for name, value in usual.items() if name not in fixed}
    if "encoding" in said and kept.get("group_size") in SHARED and not _shares(encoding):
        del kept["group_size"]
    return {**kept, **said}


def _shares(encoding: Encoding | None) -> bool:
    return encoding is not None and encoding.shares


def contradiction(together: Mapping[str, Any], said: Mapping[str, Any]) -> str | None:
    """Say which settings are right by themselves, but not together.

    Parameters
    ----------
    together : mapping
    said : mapping
        Those of them that are said in one place; others come from a default.
    """
    if together.get("method") == "hqq" and together.get("zero_point") == "symmetric":
        return (
            "zero_point 'symmetric' leaves method 'hqq' nothing to choose. Use zero_point "
            "'float' or 'integer', or method 'mse'"
        )
    return _encoding_problem(together, said)


def _encoding_problem(together: Mapping[str, Any], said: Mapping[str, Any]) -> str | None:
    """Say which setting is not what the encoding has."""
    name = together.get("encoding", INTEGER)
    encoding = ENCODINGS.get(name)
    group_size = together.get("group_size")
    if together.get("encoding") == INTEGER and group_size in SHARED:
        return (
            f"group_size {group_size!r} contradicts encoding {INTEGER!r}, which has groups of "
            "columns. Use encoding 'fp8', or group_size -1 for one group a row"
        )
    if encoding is None:
        return None
    # Where the encoding was said elsewhere, the setting may be what is meant.
    another = "" if "encoding" in said else f", or say encoding {INTEGER!r} with it"
    if together.get("method") == "hqq":
        return (
            f"method 'hqq' contradicts encoding {name!r}, which fixes zero-points. Use method "
            f"'mse' or 'rtn'{another}"
        )
    has = {
        "bit_width": f"{encoding.bit_width} bits",
        "group_size": f"groups of {encoding.group_size}",
        "zero_point": f"{encoding.zero_point!r}",
        "scale_dtype": f"{encoding.scale_dtype!r}",
    }
    for setting, fixed in encoding.fixed.items():
        value = together.get(setting, fixed)
        if value != fixed:
            return (
                f"{setting} {quoted(value)} contradicts encoding {name!r}, which has "
                f"{has[setting]}. Leave it out{another}"
            )
    return None


def _choice(kind: Check, *choices: int | str) -> Check:
    return lambda name, value: one_of(name, kind(name, value), choices)


def _group_size(name: str, value: object) -> GroupSize:
    said = group_size_argument(name, value)
    if isinstance(said, int) and said != -1 and (said % 8 or not 8 <= said <= LARGEST_GROUP_SIZE):
        raise ValueError(
            f"{name} {said} must be a multiple of 8 from 8 to {LARGEST_GROUP_SIZE}, or -1 for the "
            "whole row"
        )
    return said


# Of recipes, which are made and read without Go. Go has the same bounds for what it gets.
SETTING_CHECKS: dict[str, Check] = {
    "bit_width": _choice(arguments.integer, *BIT_WIDTHS),
    "group_size": _group_size,
    "method": _choice(arguments.text, "rtn", "hqq", "mse"),
    "zero_point": _choice(arguments.text, "integer", "float", "symmetric"),
    "scale_dtype": _choice(arguments.text, "float32", "float16", "bfloat16"),
    "encoding": _choice(arguments.text, *ENCODING_NAMES),
}
