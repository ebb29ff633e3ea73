"""One rule of a recipe: which layers it is for, and how they are treated."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from pyarrowquant._core import arguments
from pyarrowquant._core.bounds import BOUNDS, SETTINGS, Check, listed
from pyarrowquant._core.keywords import class_with_meant
from pyarrowquant._core.quoting import meant, quoted, shortened
from pyarrowquant._core.settings import contradiction
from pyarrowquant._core.shapes import columns_of


def check_dict(where: str, said: object) -> Mapping[str, Any]:
    """Return a part of a recipe that has fields."""
    if isinstance(said, Mapping):
        return said
    raise arguments.wrong_type(f"{where} must be a dict", said)


def check_known(where: str, said: Mapping[str, object], known: Iterable[str]) -> None:
    """Refuse fields that are not known."""
    for field in said:
        if field not in known:
            known = tuple(known)
            raise ValueError(
                f"{where}: unknown field {quoted(field)}.{meant(field, known)} Known are "
                f"{listed(known)}"
            )


def with_bit_width(where: str, said: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return settings in which "bits", as the command line has it, is called bit_width."""
    if "bits" not in said:
        return said
    if "bit_width" in said:
        raise ValueError(f"{where}: bits and bit_width mean the same. Keep one")
    return {"bit_width" if field == "bits" else field: value for field, value in said.items()}


def check_fields(where: str, said: Mapping[str, object]) -> dict[str, Any]:
    """Return the values of a rule's fields as a `Rule` holds them; None is not said."""
    checked = {
        field: _CHECKS[field](f"{where}: {field}", value)
        for field, value in said.items()
        if value is not None
    }
    if "match" in checked and "regex" in checked:
        raise ValueError(f"{where}: match and regex exclude each other")
    for field in SETTINGS:
        if checked.get("skip") and field in checked:
            raise ValueError(f"{where}: skip and {field} exclude each other")
    if problem := contradiction(checked, checked):
        raise ValueError(f"{where}: {problem}")
    return checked


def rule_label(said: Mapping[str, object], number: int | None = None) -> str:
    """Return what errors call a rule: its number, if known, and its patterns."""
    label = "Recipe rule" if number is None else f"Recipe rule {number}"
    pattern = said.get("regex") if said.get("match") is None else said["match"]
    if pattern is None:
        return label
    patterns = quoted(list(_several(pattern)))  # a fitted recipe has thousands of them
    return f"{label} ({patterns[1:].removesuffix(']')})"


def _several(value: object) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _one_or_several(check: Check) -> Check:
    def checked(name: str, value: object) -> Any:
        if not isinstance(value, (list, tuple)):
            return check(name, value)
        if not value:
            raise ValueError(f"{name} must not be empty")
        return tuple(check(name, each) for each in value)

    return checked


def _at_least(least: int) -> Check:
    def checked(name: str, value: object) -> int:
        number = arguments.integer(name, value)
        if number < least:
            raise ValueError(f"{name} {number} must be at least {least}")
        return number

    return checked


def _regex(name: str, value: object) -> str:
    pattern = arguments.text(name, value)
    try:
        re.compile(pattern)
    except (re.error, OverflowError) as error:
        problem = shortened(str(error))
    except RecursionError:
        problem = "it is nested too deeply"
    else:
        return pattern
    raise ValueError(f"{name} {quoted(pattern)} is no regular expression: {problem}")


_CHECKS: dict[str, Check] = {
    "match": _one_or_several(arguments.text),
    "regex": _regex,
    "ndim": _one_or_several(_at_least(0)),
    "min_columns": _at_least(1),
    "skip": arguments.boolean,
    **{name: bound.checked for name, bound in BOUNDS.items()},
}
FIELDS = tuple(_CHECKS)


@class_with_meant
@dataclass(frozen=True, repr=False)
class Rule:
    """Which layers a rule is for, and how they are treated.

    All conditions that are given must hold; a rule without any is for all layers. What a rule
    does not say comes from the recipe's default.

    Parameters
    ----------
    match : str or sequence of str, optional
        Globs, one of which matches the whole name of the layer: ``*`` is any text, dots
        included, ``?`` any character, ``[ab]`` one of these. Case matters.
    regex : str, optional
        A regular expression of Python that is found in the name. Not together with `match`.
    ndim : int or sequence of int, optional
        Number of dimensions of the layer's shape.
    min_columns : int, optional
        The layer has at least so many columns: d1*d2*... for a shape (d0, d1, ...), all elements
        for fewer than two dimensions.
    skip : bool
        Leave the layer out. Not together with settings.
    bit_width : {2, 3, 4, 5, 6, 8}, optional
        This and the others are the settings of `quantize_batch_arrow`.
    group_size : int, "tensor" or "block", optional
    method : {"rtn", "hqq", "mse"}, optional
    zero_point : {"integer", "float", "symmetric"}, optional
    scale_dtype : {"float32", "float16", "bfloat16"}, optional
    encoding : str, optional
        What it fixes wins over the default and the call, and must not be contradicted by the rule.
    reason : str, optional
        Why layers are left out, as `convert` tells it of several of them. It is for people, and
        in no file.

    Raises
    ------
    ValueError
        A value is out of bounds, or fields exclude each other.
    TypeError
        A value has the wrong type.

    Examples
    --------
    >>> from pyarrowquant import Rule
    >>> Rule("*.mlp.*", min_columns=1024, bit_width=3)
    Rule(match='*.mlp.*', min_columns=1024, bit_width=3)
    >>> Rule("*.mlp.*", bit_width=7)
    Traceback (most recent call last):
        ...
    ValueError: Recipe rule ('*.mlp.*'): bit_width 7 must be one of 2, 3, 4, 5, 6, 8
    """

    match: str | Sequence[str] | None = None
    regex: str | None = None
    ndim: int | Sequence[int] | None = None
    min_columns: int | None = None
    skip: bool = False
    bit_width: int | None = None
    group_size: int | str | None = None
    method: str | None = None
    zero_point: str | None = None
    scale_dtype: str | None = None
    encoding: str | None = None
    reason: str | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.reason is not None:
            arguments.text("Rule: reason", self.reason)
        given = {field: getattr(self, field) for field in FIELDS}
        checked = {"skip": False, **check_fields(rule_label(given), given)}
        for field, value in checked.items():
            object.__setattr__(self, field, value)

    def __repr__(self) -> str:
        return f"Rule({', '.join(f'{field}={value!r}' for field, value in self.said.items())})"

    @property
    def said(self) -> dict[str, Any]:
        """The fields that this rule says, in the order of its parameters."""
        values = {field: getattr(self, field) for field in FIELDS}
        # 0 equals False, but is a number of dimensions
        return {f: v for f, v in values.items() if v is not None and v is not False}

    def matches(self, layer_name: str, shape: Sequence[int]) -> bool:
        """Tell whether the rule is for this layer."""
        return (
            self._matches_name(layer_name)
            and (self.ndim is None or len(shape) in _several(self.ndim))
            and (self.min_columns is None or columns_of(shape) >= self.min_columns)
        )

    def _matches_name(self, layer_name: str) -> bool:
        if self.match is None and self.regex is None:
            return True
        if layer_name in self.plain_names:
            return True
        return self._find is not None and self._find(layer_name) is not None

    @property
    def is_blind_to_numbers(self) -> bool:
        """Whether its patterns take names alike whose numbers between dots differ."""
        if self.regex is not None:
            patterns: Sequence[str] = (self.regex,)
        else:
            globs = () if self.match is None else _several(self.match)
            patterns = [glob for glob in globs if glob not in self.plain_names]
        return not any(map(_TELLS_NUMBERS.search, patterns))

    @cached_property
    def numbers(self) -> frozenset[str] | None:
        """Numbers between dots of which every name that it finds has one; None if it needs none."""
        if self.regex is not None:
            needed = [_needed_by_regex(self.regex)]
        else:
            globs = () if self.match is None else _several(self.match)
            needed = [NUMBER.findall(glob)[-1:] if "[" not in glob else [] for glob in globs]
        return frozenset(chain(*needed)) if needed and all(needed) else None

    @cached_property
    def plain_names(self) -> frozenset[str]:
        """Globs without wildcards: a fitted recipe has thousands of them."""
        globs = () if self.match is None else _several(self.match)
        return frozenset(glob for glob in globs if not set(glob) & set("*?["))

    @cached_property
    def is_by_name(self) -> bool:
        """Whether it is for layers of its `plain_names` alone."""
        return self.match is not None and len(self.plain_names) == len({*_several(self.match)})

    @cached_property
    def _find(self) -> Callable[[str], object] | None:
        if self.regex is not None:
            return re.compile(self.regex).search
        globs = [glob for glob in _several(self.match) if glob not in self.plain_names]
        return re.compile("|".join(map(_translated, globs))).match if globs else None


NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")  # between dots

_IN_REGEX = re.compile(r"(?<=\\\.)\d+(?=\\\.(?![?*{]))")

# What may find one number between dots, and not another of its length: digits that no letter stands
# before, or of a set or an escape, and what was found before.
_TELLS_NUMBERS = re.compile(r"(?<![A-Za-z_\d])\d|\[[!^]?\]?[^\[\]]*\d|\\\w*\d|\(\?P=")


def _needed_by_regex(regex: str) -> list[str]:
    """Return a number that is in all that is found, where parts have no choice."""
    has_choice = set(regex) & set("|([") or r"\\" in regex
    return [] if has_choice else _IN_REGEX.findall(regex)[-1:]


def _translated(glob: str) -> str:
    """Return a glob as a regular expression, in linear time.

    `fnmatch` searches for the end of each ``[`` in all that follows; behind the last ``]`` it is
    the character itself.
    """
    end = glob.rfind("]") + 1
    rest = fnmatch.translate(glob[end:].replace("[", "[[]"))
    return fnmatch.translate(glob[:end])[: -len(r"\Z")] + rest
