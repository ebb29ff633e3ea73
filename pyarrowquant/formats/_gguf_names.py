"""Rules for tensors of a folder, which has other names for them than llama.cpp."""

from __future__ import annotations

import glob
from dataclasses import replace

from pyarrowquant.llama_cpp.folder import FolderModel
from pyarrowquant.recipes.recipe import Recipe


def by_either_name(recipe: Recipe, model: FolderModel) -> Recipe:
    """Return a recipe whose rules are also for what the folder calls by the names they mean."""
    shapes = {tensor.name: tensor.shape for tensor in model.tensors}
    rules = []
    for rule in recipe.rules:
        rules.append(rule)
        if rule.match is None and rule.regex is None:
            continue
        meant = [
            name
            for name, originals in model.originals.items()
            if any(rule.matches(original, shapes[name]) for original in originals)
        ]
        if meant:
            names = tuple(glob.escape(name) for name in meant)
            rules.append(replace(rule, match=names, regex=None))
    return Recipe(rules, default=recipe.default, name=recipe.name)
