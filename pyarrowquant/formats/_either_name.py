"""Rules for tensors of a folder that a format has by other names."""

from __future__ import annotations

from dataclasses import replace

from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.by_name import escaped
from pyarrowquant.recipes.recipe import Recipe


def by_either_name(recipe: Recipe, model: Model) -> Recipe:
    """Return a recipe whose rules are also for what the folder calls by the names they mean."""
    renamed = [
        (tensor, originals)
        for tensor in model.tensors or ()
        if (originals := model.also_called(tensor))
    ]
    rules = []
    for rule in recipe.rules:
        rules.append(rule)
        if rule.match is None and rule.regex is None:
            continue
        meant = [
            tensor.name
            for tensor, originals in renamed
            if any(rule.matches(original, tensor.shape) for original in originals)
        ]
        if meant:
            names = tuple(escaped(name) for name in meant)
            rules.append(replace(rule, match=names, regex=None))
    return Recipe(rules, default=recipe.default, name=recipe.name)
