"""Recipes by name: presets, profiles, and files."""

from __future__ import annotations

import os
from pathlib import Path

from pyarrowquant.recipes.presets import PRESETS, PROFILES
from pyarrowquant.recipes.recipe import Recipe


def recipe_of(said: Recipe | str | os.PathLike[str] | None) -> Recipe | None:
    """Return a preset, a profile, a preset with a profile ("text-local"), or a file's recipe."""
    if said is None or isinstance(said, Recipe):
        return said
    text = os.fspath(said)
    preset, _, profile = text.partition("-")
    if text in PROFILES:
        return Recipe.profile(text)
    if preset in PRESETS and (profile in PROFILES or not profile):
        return Recipe.preset(preset, profile or None)
    if Path(text).exists():
        return Recipe.load(text)
    names = ", ".join([*PRESETS, *PROFILES])
    raise ValueError(
        f"Recipe '{text}' is no file, and none of {names}, or a preset and a profile like "
        "text-local"
    )


def file_of(said: Recipe | str | os.PathLike[str] | None) -> list[Path]:
    """Return the file that a recipe is read from, if it is."""
    if said is None or isinstance(said, Recipe) or not Path(said).is_file():
        return []
    return [Path(said)]
