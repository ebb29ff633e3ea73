"""The settings that layers have, and the recipe that gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyarrowquant._core.encodings import ENCODINGS
from pyarrowquant._core.group_sizes import GroupSize
from pyarrowquant._core.quoting import first_few
from pyarrowquant.cli._report.blocks import kind_of
from pyarrowquant.cli._report.layers import Layer, total_relative_error
from pyarrowquant.recipes.by_name import escaped
from pyarrowquant.recipes.recipe import Recipe

_OF_ALL = ("method", "zero_point", "scale_dtype")


@dataclass(frozen=True)
class Used:
    """Layers of the same settings."""

    layers: list[Layer]

    @property
    def first(self) -> Layer:
        return self.layers[0]

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    @property
    def relative_error(self) -> float:
        return total_relative_error(self.layers)

    @property
    def kinds(self) -> str:
        """Names, with stars for numbers."""
        return first_few(list(dict.fromkeys(kind_of(one.layer_name) for one in self.layers)), 8)


def used_in(layers: Sequence[Layer]) -> list[Used]:
    """Return layers by their settings, those of most weights first."""
    found: dict[tuple[int, GroupSize | None, str | None], list[Layer]] = {}
    for layer in layers:
        found.setdefault((layer.bit_width, layer.group_size, layer.coding), []).append(layer)
    return sorted(map(Used, found.values()), key=lambda used: -used.weights)


def recipe_of(layers: Sequence[Layer], settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return a recipe that quantizes layers like this.

    There is none for a model, which does not say all, and for what others may have written.
    """
    if any(layer.group_size is None for layer in layers):
        return None
    said = {name: settings[name] for name in _OF_ALL if isinstance(settings.get(name), str)}
    rules = [
        {
            "match": [escaped(layer.layer_name) for layer in used.layers],
            **_settings_of(used.first, said),
        }
        for used in used_in(layers)
    ]
    try:
        return Recipe.from_dict({"default": "skip", "rules": rules}).to_dict()
    except ValueError:
        return None


def _settings_of(layer: Layer, said: dict[str, str]) -> dict[str, Any]:
    """Return what a rule says, without what an encoding fixes."""
    own = {"bit_width": layer.bit_width, "group_size": layer.group_size, **said}
    if layer.coding is None:
        return own
    fixed = ENCODINGS[layer.coding].fixed
    return {
        "encoding": layer.coding,
        **{name: value for name, value in own.items() if name not in fixed},
    }
