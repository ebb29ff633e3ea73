"""Rules that give layers settings by their names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict

from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.settings import Settings
from pyarrowquant.recipes.rule import Rule


def rules_by_name(chosen: Iterable[tuple[Sequence[str], Settings]]) -> list[Rule]:
    """Return rules that have just these settings for layers of these names."""
    return [
        Rule([escaped(name) for name in names], **asdict(settings)) for names, settings in chosen
    ]


def rule_by_name(names: Sequence[str], settings: Settings, left_open: Collection[str]) -> Rule:
    """Return a rule with settings for layers of these names, but those whose names are given.

    An encoding of "int" goes without saying, as in recipes of versions that had nothing else.
    """
    unsaid = {*left_open, *(["encoding"] if settings.encoding == INTEGER else [])}
    said = {name: value for name, value in asdict(settings).items() if name not in unsaid}
    return Rule([escaped(name) for name in names], **said)


def escaped(name: str) -> str:
    """Return a glob that matches this name alone."""
    return re.sub(r"([*?[])", r"[\1]", name)
