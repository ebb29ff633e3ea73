"""Recipes that come with the package, made by their names."""

from __future__ import annotations

from typing import TypeVar

from pyarrowquant._core.settings import one_of
from pyarrowquant.recipes.named import extended_name, is_named, unknown
from pyarrowquant.recipes.presets import PRESETS, PROFILES
from pyarrowquant.recipes.rule_list import RuleList

_Recipe = TypeVar("_Recipe", bound="PackagedRecipe")


class PackagedRecipe(RuleList):
    """What makes a `Recipe` of the name of a profile or preset."""

    @classmethod
    def profile(cls: type[_Recipe], name: str) -> _Recipe:
        """Return the settings for a place where a model runs, the same for all layers.

        Parameters
        ----------
        name : {"edge", "local", "cloud"}
            2 bits in groups of 256, 4 in groups of 128, or 8 in groups of 64; method "mse".

        Returns
        -------
        Recipe

        Examples
        --------
        >>> from pyarrowquant import Recipe
        >>> Recipe.profile("edge").to_dict()["default"]
        {'bit_width': 2, 'group_size': 256, 'method': 'mse'}
        """
        return cls(default=PROFILES[one_of("profile", name, PROFILES)], name=name)

    @classmethod
    def preset(cls: type[_Recipe], name: str, profile: str | None = None) -> _Recipe:
        """Return the rules for a kind of model.

        They leave out biases and other tensors of fewer than two dimensions, norms, embeddings,
        routers and output heads, which are small and sensitive. In diffusion models the
        modulation of adaptive norms gets 8 bits.

        Parameters
        ----------
        name : {"text", "diffusion", "vision"} or str
            "text" is for language models and encoders, Whisper included; "diffusion" for the
            transformers and U-Nets of diffusers; "vision" for image encoders. Or the name of a
            scheme of compressed-tensors, such as "FP8_BLOCK": the rules of "text" with its
            settings. Or of a mix of llama.cpp, such as "Q4_K_M", which only `convert` takes, for
            GGUF models.
        profile : {"edge", "local", "cloud"}, optional
            The default, as of `profile`; without it, layers take the arguments of the call.

        Returns
        -------
        Recipe

        Examples
        --------
        >>> from pyarrowquant import Recipe
        >>> recipe = Recipe.preset("text", profile="local")
        >>> recipe.settings_of("lm_head.weight", (32000, 4096)) is None
        True
        >>> recipe.settings_of("model.layers.0.mlp.up_proj.weight", (11008, 4096))
        {'bit_width': 4, 'group_size': 128, 'method': 'mse'}
        """
        extended = extended_name(name) if isinstance(name, str) else None
        if extended is not None and profile is None:
            return cls(name=extended, extends=extended)
        rules = PRESETS[one_of("preset", name, PRESETS)]
        if profile is None:
            return cls(rules, name=name)
        return cls(rules, cls.profile(profile).default, f"{name}-{profile}")


def named(kind: type[_Recipe], name: str) -> _Recipe:
    """Return the recipe of a name, of a class of recipes.

    "all" leaves nothing out; others are those of presets, of profiles, and of both: "text-local",
    of schemes of compressed-tensors, and of llama.cpp's mixes.
    """
    if not is_named(name):
        raise unknown(name)
    if extended_name(name) is not None:
        return kind.preset(name)
    if name == "all":
        return kind(name=name)
    if name in PROFILES:
        return kind.profile(name)
    preset, _, profile = name.partition("-")
    return kind.preset(preset, profile or None)
