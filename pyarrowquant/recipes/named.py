"""Recipes by name: presets, profiles, and files."""

from __future__ import annotations

import os
from pathlib import Path

from pyarrowquant.recipes.presets import PRESETS, PROFILES
from pyarrowquant.recipes.recipe import Recipe


def recipe_of(said: Recipe | str | os.PathLike[str] | None) -> Recipe | None:
    """Return the recipe that a name means, or a file's.

    "all" leaves nothing out; others are those of presets, of profiles, and of both: "text-local".
    """
    if said is None or isinstance(said, Recipe):
        return said
    text = os.fspath(said)
    preset, _, profile = text.partition("-")
    if text == "all":
        return Recipe(name=text)
    if text in PROFILES:
        return Recipe.profile(text)
    if is_named(text):
        return Recipe.preset(preset, profile or None)
    if Path(text).exists():
        return Recipe.load(text)
    names = ", ".join([*PRESETS, *PROFILES, "all"])
    raise ValueError(
        f"Recipe '{text}' is no file, and none of {names}, or a preset and a profile like "
        "text-local"
    )


def is_named(said: Recipe | str | os.PathLike[str] | None) -> bool:
    """Whether a recipe comes with the package."""
    if said is None or isinstance(said, Recipe):
        return False
    text = os.fspath(said)
    preset, _, profile = text.partition("-")
    return text in ("all", *PROFILES) or (
        preset in PRESETS and (profile in PROFILES or text == preset)
    )


def file_of(said: Recipe | str | os.PathLike[str] | None) -> list[Path]:
    """Return the file that a recipe is read from, if it is."""
    if said is None or isinstance(said, Recipe) or not Path(said).is_file():
        return []
    return [Path(said)]
