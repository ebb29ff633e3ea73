"""Rules that give layers settings by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from pyarrowquant._core.settings import Settings
from pyarrowquant.recipes.rule import Rule


def rules_by_name(chosen: Iterable[tuple[Sequence[str], Settings]]) -> list[Rule]:
    """Return rules that have just these settings for layers of these names."""
    return [
        Rule([escaped(name) for name in names], **asdict(settings)) for names, settings in chosen
    ]


def escaped(name: str) -> str:
    """Return a glob that matches this name alone."""
    return re.sub(r"([*?[])", r"[\1]", name)
