"""How each layer of a model is treated: ordered rules and a default."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pyarrowquant._core.arguments import Progress
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.settings import SettingOverrides, Settings
from pyarrowquant.errors import ArgumentTypeError, UsageError
from pyarrowquant.recipes.budget import BitsPerWeight
from pyarrowquant.recipes.by_name import rules_by_name
from pyarrowquant.recipes.expected import Expected
from pyarrowquant.recipes.mixes import not_for_tables
from pyarrowquant.recipes.named import is_named
from pyarrowquant.recipes.packaged import named
from pyarrowquant.recipes.presets import PRESETS
from pyarrowquant.recipes.rule import Rule, rule_label
from pyarrowquant.recipes.schemes import SCHEMES
from pyarrowquant.recipes.written import WrittenRecipe


class Recipe(WrittenRecipe):
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
        _, said = self.resolved._decisions.outcome(layer_name, shape)
        return None if said is None else said.copy()

    def applied(self, settings: Settings, layer_name: str, shape: Sequence[int]) -> Settings | None:
        """Return all settings of a layer: these, where the recipe says nothing else."""
        return self.decided(settings, layer_name, shape)[1]

    def rule_of(self, layer_name: str, shape: Sequence[int]) -> Rule:
        """Return the rule that decides about a layer; the default if none matches."""
        return self.resolved._decisions.outcome(layer_name, shape)[0]

    def decided(
        self, settings: Settings, layer_name: str, shape: Sequence[int]
    ) -> tuple[Rule, Settings | None]:
        """Return what `rule_of` and `applied` do."""
        return self.resolved._decisions.applied(settings, layer_name, shape)

    def choices(self, settings: Settings) -> list[Settings]:
        """Return all that `applied` can give for a layer that is not left out.

        Raises
        ------
        UsageError
            A rule contradicts these settings.
        """
        found = []
        resolved = self.resolved
        for number, (rule, said) in enumerate(resolved._decisions.outcomes, 1):
            try:
                found += [] if said is None else [settings.with_overrides(said)]
            except UsageError as error:
                is_default = number > len(resolved.rules)
                label = "Recipe default" if is_default else rule_label(rule.said, number)
                raise UsageError(f"{label}, with the settings of the call: {error}") from None
        return found

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
            return self.extending(scheme_rules(self.extends))
        raise not_for_tables(self.extends)

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
            every bit width.
        recipe : Recipe, name, path or dict, optional
            As of `quantize_batch_arrow`. Layers that it skips are left out, and stay skipped.
            Settings that it says hold where candidates do not say them: by default all but bit
            widths.
        objective : {"squared_error", "relative_error"}
            The sum over layers of ||w - w'||^2, or of that divided by ||w||^2.
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
            and the errors that it gives on this table.

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
            fitting.said_candidates(candidates, fitting.USUAL, bits_of or fitting.stored_bits),
            recipe_of(recipe),
            objective,
            weight_column,
            continue_on_error,
            threads,
            progress,
        )
        return cls.chosen(fitted.chosen, fitted.expected)

    @classmethod
    def chosen(cls, chosen: Iterable[tuple[Sequence[str], Settings]], expected: Expected) -> Recipe:
        """Return the recipe that has settings for layers by name, and skips all others."""
        # "int" goes without saying, as in recipes of versions that had nothing else.
        rules = [
            replace(rule, encoding=None) if rule.encoding == INTEGER else rule
            for rule in rules_by_name(chosen)
        ]
        return cls(rules, "skip", expected=expected)


SaidRecipe = Recipe | str | os.PathLike[str] | Mapping[str, Any]


def recipe_of(said: object) -> Recipe | None:
    """Return the recipe that is meant by a name, a file's path, or plain values."""
    if said is None or isinstance(said, Recipe):
        return said
    if isinstance(said, Mapping):
        return Recipe.from_dict(said)
    if not isinstance(said, (str, os.PathLike)):
        raise ArgumentTypeError(
            "recipe must be a Recipe, the name of one, a path or a dict, got "
            f"{type(said).__name__}: {said!r}"
        )
    text = os.fspath(said)
    if not is_named(text) and Path(text).exists():
        return Recipe.load(text)
    return named(Recipe, text)


def scheme_rules(name: str) -> Recipe:
    """Return what a scheme of compressed-tensors says of layers."""
    return Recipe(PRESETS["text"], SCHEMES[name])
