"""The text of recipes as plain values. Files may come from others, so all is bounded."""

from __future__ import annotations

import os
from typing import Any

from pyarrowquant._core.quoting import enumerated, quoted, shortened
from pyarrowquant._core.system_errors import naming_file
from pyarrowquant.reading.location import given_path, refuse_special
from pyarrowquant.reading.strict_json import DEEPEST, parse_any

# The names of 100,000 layers take a half of these.
LARGEST_FILE = 1 << 24
_MOST_VALUES = 200_000  # a fitted recipe has one for each layer

# Numbers that YAML has in base 60 take quadratic time; no glob is as long.
_LONGEST_VALUE = 10_000


SUFFIXES = (".json", ".yaml", ".yml")


def is_yaml(path: str | os.PathLike[str]) -> bool:
    """Tell by the name of a recipe's file whether it has YAML, and not JSON."""
    suffix = given_path("path", path).suffix
    if suffix not in SUFFIXES:
        raise ValueError(
            f"Recipe file {quoted(os.fspath(path))} must end with {enumerated(SUFFIXES, 'or')}"
        )
    return suffix != ".json"


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a recipe's file."""
    refuse_special(path)
    with naming_file(path), open(path, "rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(
            f"Recipe file {os.fspath(path)!r} has more than {LARGEST_FILE} bytes, the most allowed"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"Recipe file {os.fspath(path)!r} is not UTF-8: {error}") from None


def parse_json(text: str) -> Any:
    """Parse a recipe's JSON."""
    try:
        return parse_any(text)
    except ValueError as error:
        raise ValueError(f"Recipe is not JSON: {error}") from None


def import_yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise ImportError("YAML recipes need PyYAML: pip install 'pyarrowquant[yaml]'") from None
    return yaml


def parse_yaml(text: str) -> Any:
    """Parse a recipe's YAML."""
    yaml = import_yaml()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML can be built without it
    try:
        _check_events(yaml, yaml.parse(text, loader))
        return yaml.load(text, loader)
    except yaml.YAMLError as error:
        hint = ". A pattern that begins with * needs quotes" if "alias" in str(error) else ""
        raise ValueError(f"Recipe is not YAML: {' '.join(str(error).split())}{hint}") from None
    except _BoundError as error:
        raise ValueError(f"Recipe is not YAML that is read: {error}") from None
    except Exception as error:  # PyYAML checks little of values that it makes
        problem = f"{type(error).__name__}: {shortened(str(error))}"
        raise ValueError(
            f"Recipe is not YAML: a number, truth value or date cannot be read: {problem}"
        ) from None


class _BoundError(Exception):
    """A bound is exceeded."""


def _check_events(yaml: Any, events: Any) -> None:
    """Check the depth, and the number of values with each alias counted as what it stands for."""
    values = 0
    open_: list[tuple[str | None, int]] = []  # anchors, and the values before them
    sizes: dict[str | None, int] = {}
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, values))
            values += 1
            if len(open_) > DEEPEST:
                raise _BoundError(f"line {line} is nested more than {DEEPEST} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            sizes[anchor] = values - before
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            sizes[event.anchor] = 1
            if len(event.value) > _LONGEST_VALUE:
                raise _BoundError(
                    f"line {line} has a value of {len(event.value)} characters, the most allowed "
                    f"is {_LONGEST_VALUE}"
                )
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_):
                raise _BoundError(f"line {line} has the alias *{event.anchor} within its anchor")
            values += sizes.get(event.anchor, 1)
        if values > _MOST_VALUES:
            raise _BoundError(
                f"line {line} comes to {values} values, aliases counted as what they stand for; "
                f"the most allowed is {_MOST_VALUES}"
            )
