"""How each layer of a model is treated: ordered rules and a default."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pyarrowquant._core import arguments
from pyarrowquant._core.arguments import Progress
from pyarrowquant._core.bounds import one_of
from pyarrowquant._core.settings import SettingOverrides, Settings, merged
from pyarrowquant.recipes.bits import stored_bits
from pyarrowquant.recipes.budget import BitsPerWeight
from pyarrowquant.recipes.checking import checked_default, checked_expected, checked_rules
from pyarrowquant.recipes.deciding import Decisions
from pyarrowquant.recipes.expected import Expected
from pyarrowquant.recipes.mixes import not_for_tables
from pyarrowquant.recipes.named import checked_extended, extended_name, is_named, named
from pyarrowquant.recipes.plain import checked_values, plain_values
from pyarrowquant.recipes.presets import PRESETS, PROFILES
from pyarrowquant.recipes.rule import Rule
from pyarrowquant.recipes.saved import SavedRecipe
from pyarrowquant.recipes.schemes import SCHEMES


@dataclass(frozen=True, init=False)
class Recipe(SavedRecipe):
    """How each layer of a model is treated.

    The first rule that matches a layer decides. What it does not say comes from the default, and
    what that does not say from the arguments of the call that uses the recipe.

    Parameters
    ----------
    rules : iterable of Rule
        In the order in which they are tried.
    default : mapping or "skip", optional
        Settings for all layers, as bit_width and group_size of a `Rule`; "skip" leaves out the
        layers that no rule matches.
    name : str, optional
        For people; it has no effect.
    extends : str, optional
        The name of a scheme of compressed-tensors, such as "FP8_BLOCK", or of a mix of llama.cpp,
        such as "Q4_K_M", whose rules follow. As a mix goes by the tensors of a model, only
        `convert` takes such a recipe.

    Attributes
    ----------
    rules : tuple of Rule
    default : Rule
        A rule without conditions.
    name : str or None
    extends : str or None
    expected : Expected or None
        What `fit` found: bits_per_weight, squared_error and relative_error.

    Raises
    ------
    ValueError
        A value is out of bounds. The message names the rule, counted from 1, and the field.
    TypeError
        A value has the wrong type.

    Examples
    --------
    >>> from pyarrowquant import Recipe, Rule
    >>> recipe = Recipe(
    ...     [Rule("*embed*", skip=True), Rule(["*.q_proj.*", "*.k_proj.*"], bit_width=8)],
    ...     default={"bit_width": 4, "group_size": 64},
    ... )
    >>> recipe.settings_of("model.embed_tokens.weight", (32000, 4096)) is None
    True
    >>> recipe.settings_of("model.layers.0.self_attn.q_proj.weight", (4096, 4096))
    {'bit_width': 8, 'group_size': 64}
    >>> recipe.settings_of("model.layers.0.mlp.up_proj.weight", (11008, 4096))
    {'bit_width': 4, 'group_size': 64}
    """

    rules: tuple[Rule, ...]
    default: Rule
    name: str | None
    expected: Expected | None
    extends: str | None

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        default: Mapping[str, object] | Rule | str | None = None,
        name: str | None = None,
        expected: Expected | None = None,
        extends: str | None = None,
    ) -> None:
        object.__setattr__(self, "rules", checked_rules(rules))
        object.__setattr__(self, "default", checked_default(default))
        object.__setattr__(
            self, "name", name if name is None else arguments.text("Recipe: name", name)
        )
        object.__setattr__(self, "expected", checked_expected(expected))
        object.__setattr__(self, "extends", None if extends is None else checked_extended(extends))
        if self.extends is not None and self.default.skip:
            raise ValueError(
                f"Recipe: default 'skip' leaves nothing to {self.extends}, which it extends. Leave "
                "layers out by rules with skip"
            )
        self._own_decisions.check()

    def settings_of(self, layer_name: str, shape: Sequence[int]) -> SettingOverrides | None:
        """Return the settings that the recipe says for a layer, or None to leave it out.

        Parameters
        ----------
        layer_name : str
        shape : sequence of int

        Returns
        -------
        dict or None
            Only what the rule or the default says.

        Examples
        --------
        >>> from pyarrowquant import Recipe
        >>> Recipe.preset("text").settings_of("model.layers.0.mlp.up_proj.weight", (11008, 4096))
        {}
        """
        name = arguments.text("layer_name", layer_name)
        _, said = self.decisions.outcome(name, arguments.shape("shape", shape))
        return None if said is None else said.copy()

    @cached_property
    def resolved(self) -> Recipe:
        """The recipe with the rules of what it extends.

        Raises
        ------
        UsageError
            These go by a model.
        """
        if self.extends is None:
            return self
        if self.extends in SCHEMES:
            return self.extending(Recipe(PRESETS["text"], SCHEMES[self.extends]))
        raise not_for_tables(self.extends)

    @property
    def decisions(self) -> Decisions:
        """What rules decide about layers, with those of what the recipe extends."""
        return self.resolved._own_decisions

    @cached_property
    def _own_decisions(self) -> Decisions:
        return Decisions(self.rules, self.default)

    @classmethod
    def profile(cls, name: str) -> Recipe:
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
    def preset(cls, name: str, profile: str | None = None) -> Recipe:
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

    @classmethod
    def fit(
        cls,
        table: Any,
        bits_per_weight: float,
        candidates: Sequence[Mapping[str, Any]] | None = None,
        *,
        recipe: Recipe | str | os.PathLike[str] | Mapping[str, Any] | None = None,
        objective: str = "squared_error",
        weight_column: str | None = None,
        continue_on_error: bool = False,
        threads: int | None = None,
        progress: Progress = None,
        bits_of: Callable[[Sequence[int], Settings], int] | None = None,
    ) -> Recipe:
        """Return the recipe of least error for a table of weights within a budget of bits.

        Every candidate is measured on every layer; then the combination of least total error is
        chosen (a multiple-choice knapsack problem, solved exactly but for very large ones).

        Parameters
        ----------
        table : pyarrow.Table or any Arrow producer
            As for `quantize_batch_arrow`; layer names must differ.
        bits_per_weight : float
            Budget for all layers together, in bits a weight: codes, scales (32 bits, or 16 with
            a scale_dtype of 16) and zero-points (as scales if float, bit_width bits if integer,
            nothing if symmetric). For other encodings than "int": codes, and scales, minimums,
            super-scales and super-minimums as the encoding stores them.
        candidates : sequence of dict, optional
            Settings to choose from, as of a `Rule`; what they do not say is as `recipe` has it,
            else as by default, or what their encoding fixes, but with method "mse". By default
            every bit width, but of an encoding that `recipe` says its own.
        recipe : Recipe, name, path or dict, optional
            As of `quantize_batch_arrow`. Layers that it skips are left out, and stay skipped.
            Settings that it says hold where candidates do not say them: by default all but bit
            widths.
        objective : {"squared_error", "relative_error"}
            The sum over layers of ||w - w'||^2, or of that divided by ||w||^2. Where the table has
            the importance of a layer's columns, its errors are weighted by it, and multiplied so
            that the least of its candidates' is as large as without.
        weight_column : str, optional
            A column of the table with a number for each layer, by which its error is multiplied.
        continue_on_error : bool
            Skip layers that cannot be quantized, with a `SkippedLayerWarning` each.
        threads : int or None
        progress : True or callable or None
            As for `quantize_batch_arrow`; each layer is reported once a candidate.
        bits_of : callable, optional
            What a layer of a shape takes with `Settings`, where that is not as `bits_per_weight`
            says.

        Returns
        -------
        Recipe
            Rules by name, and "skip" for all other layers. ``expected`` has the bits a weight
            and the errors that it gives on this table. Rules leave `zero_point` and `scale_dtype`
            open where neither candidates nor `recipe` say them, so that a format has its own; those
            of method "hqq" say the `zero_point`.

        Raises
        ------
        ValueError
            The budget is below the smallest candidates, or an argument is wrong.
        QuantizationError
            Layers cannot be quantized.

        Examples
        --------
        >>> import numpy as np
        >>> import pyarrowquant
        >>> rng = np.random.default_rng(0)
        >>> table = pyarrowquant.numpy_to_arrow_table({
        ...     "small": rng.standard_normal((64, 256), dtype=np.float32) / 100,
        ...     "large": rng.standard_normal((64, 256), dtype=np.float32),
        ... })
        >>> recipe = pyarrowquant.Recipe.fit(table, bits_per_weight=4.3)
        >>> pyarrowquant.quantize_batch_arrow(table, recipe=recipe)["bit_width"].to_pylist()
        [6, 2]
        >>> round(recipe.expected.bits_per_weight, 2)
        4.28
        """
        from pyarrowquant.recipes import fitting

        fitted = fitting.fit(
            table,
            BitsPerWeight(bits_per_weight),
            fitting.said_candidates(
                candidates, fitting.USUAL, stored_bits if bits_of is None else bits_of
            ),
            recipe_of(recipe),
            objective,
            weight_column,
            continue_on_error,
            threads,
            progress,
        )
        return cls(fitted.rules, "skip", expected=fitted.expected)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values, without what is not said.

        Returns
        -------
        dict
            For `from_dict`; JSON and YAML have the same fields.

        Examples
        --------
        >>> from pyarrowquant import Recipe, Rule
        >>> Recipe([Rule("*embed*", skip=True)], default={"bit_width": 4}).to_dict()
        {'default': {'bit_width': 4}, 'rules': [{'match': '*embed*', 'skip': True}]}
        """
        return plain_values(self.rules, self.default, self.name, self.expected, self.extends)

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Recipe:
        """Return the recipe that `to_dict` gave, or that was written by hand.

        Parameters
        ----------
        said : mapping
            With the fields "name", "extends", "default", "rules" and "expected", all optional.
            "extends" names a preset, a profile or both, as "text-local", a scheme of
            compressed-tensors, as "W4A16", or a mix of llama.cpp, as "Q4_K_M", for `convert` alone:
            its rules follow those that are said, and its default has what the one that is said
            does not. "bits" is another name of bit_width.

        Returns
        -------
        Recipe

        Raises
        ------
        ValueError
            A field is unknown or a value out of bounds; the message names the rule.
        TypeError
            A value has the wrong type.

        Examples
        --------
        >>> from pyarrowquant import Recipe
        >>> Recipe.from_dict({"extends": "local", "default": {"bits": 8}}).to_dict()["default"]
        {'bit_width': 8, 'group_size': 128, 'method': 'mse'}
        >>> Recipe.from_dict({"rules": [{"match": "*head*", "bit_with": 8}]})
        Traceback (most recent call last):
            ...
        ValueError: Recipe rule 1 ('*head*'): unknown field 'bit_with'. Did you mean ...
        """
        values = checked_values(said)
        extended = values.pop("extends", None)
        own = cls(**values)
        if extended is None:
            return own
        return own.extending(cls(*named(arguments.text("Recipe: extends", extended))))

    def extending(self, other: Recipe) -> Recipe:
        """Return the recipe with what another one says behind it."""
        default: Rule | dict[str, Any] = self.default
        if not self.default.skip:
            default = merged(other.default.said, self.default.said)
        rules = (*self.rules, *other.rules)
        return Recipe(rules, default, self.name, self.expected, other.extends)


GivenRecipe = Recipe | str | os.PathLike[str] | Mapping[str, Any]


def recipe_of(given: object) -> Recipe | None:
    """Return the recipe that a caller means by a name, a file's path, or plain values."""
    if given is None or isinstance(given, Recipe):
        return given
    if isinstance(given, Mapping):
        return Recipe.from_dict(given)
    if not isinstance(given, (str, os.PathLike)):
        raise arguments.wrong_type(
            "recipe must be a Recipe, the name of one, a path or a dict", given
        )
    text = os.fspath(given)
    if text and not is_named(text) and Path(text).exists():
        return Recipe.load(text)
    return Recipe(*named(text))
