"""What a layer is quantized with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from pyarrowquant._core import arguments
from pyarrowquant._core.bounds import BOUNDS, listed
from pyarrowquant._core.encodings import ENCODINGS, INTEGER, Encoding
from pyarrowquant._core.group_sizes import SHARED, GroupSize, group_size_argument
from pyarrowquant._core.keywords import class_with_meant
from pyarrowquant._core.quoting import meant, quoted
from pyarrowquant.errors import UsageError

_USUAL: dict[str, Any] = {
    "bit_width": 4,
    "group_size": 128,
    "zero_point": "integer",
    "scale_dtype": "float32",
}
_NOTHING_TO_CHOOSE = (
    "'symmetric' leaves method 'hqq' nothing to choose. Use zero_point 'float' or 'integer', or "
    "method 'mse'"
)


class SettingOverrides(TypedDict, total=False):
    """Those of the settings that somebody says."""

    bit_width: int
    group_size: GroupSize
    method: str
    zero_point: str
    scale_dtype: str
    encoding: str


@class_with_meant
@dataclass(frozen=True, init=False)
class Settings:
    """What a layer is quantized with: Go's quant.Settings.

    Parameters
    ----------
    bit_width : {2, 3, 4, 5, 6, 8}, optional
        This and the others are those of `quantize_batch_arrow`, with the same defaults: what an
        encoding fixes may be left out.
    group_size : int, "tensor" or "block", optional
        A multiple of 8, or -1 for whole rows; of "fp8" also "tensor" or "block".
    method : {"rtn", "mse", "hqq"}
    zero_point : {"integer", "float", "symmetric"}, optional
    scale_dtype : {"float32", "float16", "bfloat16"}, optional
    encoding : str
        "int", or another of `quantize_batch_arrow`.

    Raises
    ------
    UsageError
        A value is out of bounds, or contradicts another one.
    TypeError
        A value has the wrong type.

    Examples
    --------
    >>> from pyarrowquant import Settings
    >>> Settings(encoding="q4_k")
    Settings(bit_width=4, group_size=32, method='rtn', zero_point='float', ...)
    >>> Settings(bit_width=7)
    Traceback (most recent call last):
        ...
    pyarrowquant.errors.UsageError: Invalid bit_width: 7. Must be 2, 4, or 8 (3, 5 and 6 also work)
    """

    bit_width: int
    group_size: GroupSize
    method: str
    zero_point: str
    scale_dtype: str
    encoding: str

    def __init__(
        self,
        bit_width: int | None = None,
        group_size: GroupSize | None = None,
        method: str = "rtn",
        zero_point: str | None = None,
        scale_dtype: str | None = None,
        encoding: str = INTEGER,
    ) -> None:
        given = (bit_width, group_size, method, zero_point, scale_dtype, encoding)
        said = {
            name: bound.of_type(name, value)
            for (name, bound), value in zip(BOUNDS.items(), given, strict=True)
            if value is not None or name in ("method", "encoding")
        }
        if problem := _encoding_problem(said, said):
            raise UsageError(problem)
        for name, value in said.items():
            BOUNDS[name].check_argument(name, value)
        if _leaves_nothing(said):
            raise UsageError(f"Invalid zero_point: {_NOTHING_TO_CHOOSE}")
        together = {**_USUAL, **_brought_by(encoding), **said}
        for name in BOUNDS:
            object.__setattr__(self, name, together[name])

    def with_overrides(self, said: SettingOverrides) -> Settings:
        """Return these settings with what somebody says instead.

        Another encoding brings what it fixes. What belonged to the one before becomes usual again.

        Raises
        ------
        UsageError
            What is said is no setting, contradicts the encoding, or is out of bounds.
        """
        _check_names(said)
        usual: dict[str, Any] = {}
        encoding = said.get("encoding", self.encoding)
        if encoding != self.encoding:
            before = {name: _USUAL[name] for name in _brought_by(self.encoding)}
            usual = {**before, **_brought_by(encoding)}
        together = {**vars(self), **usual, **said}
        if problem := _encoding_problem(together, said):
            raise UsageError(problem)
        return Settings(**together)


def _check_names(said: object) -> None:
    """Raise where something is no mapping of the names of settings."""
    if not isinstance(said, Mapping):
        raise arguments.wrong_type("Settings to say instead must be a dict", said)
    for name in said:
        if name not in BOUNDS:
            raise UsageError(
                f"Unknown setting {quoted(name)}.{meant(name, BOUNDS)} Known are {listed(BOUNDS)}"
            )


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
    if _leaves_nothing(together):
        return f"zero_point {_NOTHING_TO_CHOOSE}"
    return _encoding_problem(together, said)


def _leaves_nothing(together: Mapping[str, Any]) -> bool:
    """Whether a method has nothing to choose."""
    return together.get("method") == "hqq" and together.get("zero_point") == "symmetric"


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
