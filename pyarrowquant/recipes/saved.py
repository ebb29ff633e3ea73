"""Recipes as texts and files."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

from pyarrowquant._core import arguments
from pyarrowquant._core.scratch import write_text
from pyarrowquant.recipes.text import import_yaml, is_yaml, parse_json, parse_yaml, read_text

R = TypeVar("R", bound="SavedRecipe")


class SavedRecipe:
    """A `Recipe` as a text or a file, by its plain values."""

    @classmethod
    @abstractmethod
    def from_dict(cls: type[R], said: Mapping[str, Any]) -> R:
        """Return the recipe that `to_dict` gave, or that was written by hand."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain values, without what is not said."""

    def to_json(self) -> str:
        """Return the recipe as JSON.

        Examples
        --------
        >>> from pyarrowquant import Recipe, Rule
        >>> print(Recipe([Rule("*embed*", skip=True)], default={"bit_width": 4}).to_json())
        {
          "default": {
            "bit_width": 4
          },
          "rules": [
            {
              "match": "*embed*",
              "skip": true
            }
          ]
        }
        """
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls: type[R], text: str) -> R:
        """Return the recipe that a JSON text describes.

        Parameters
        ----------
        text : str
            What `to_json` gives; see `from_dict` for its fields.

        Returns
        -------
        Recipe

        Raises
        ------
        ValueError
            The text is not JSON, or no recipe.

        Examples
        --------
        >>> from pyarrowquant import Recipe
        >>> Recipe.from_json('{"default": {"bit_width": 8}}').settings_of("a.weight", (64, 64))
        {'bit_width': 8}
        """
        return cls.from_dict(parse_json(arguments.text("Recipe text", text)))

    def to_yaml(self) -> str:
        """Return the recipe as YAML. Needs the extra ``pyarrowquant[yaml]``.

        Examples
        --------
        >>> from pyarrowquant import Recipe, Rule
        >>> print(Recipe([Rule("*embed*", skip=True)], default={"bit_width": 4}).to_yaml())
        default:
          bit_width: 4
        rules:
        - match: '*embed*'
          skip: true
        """
        # not allow_unicode, with which PyYAML writes some line breaks that it reads as spaces
        text: str = import_yaml().safe_dump(self.to_dict(), sort_keys=False)
        return text

    @classmethod
    def from_yaml(cls: type[R], text: str) -> R:
        """Return the recipe that a YAML text describes. Needs the extra ``pyarrowquant[yaml]``.

        Parameters
        ----------
        text : str
            What `to_yaml` gives. A pattern that begins with ``*`` needs quotes.

        Returns
        -------
        Recipe

        Raises
        ------
        ValueError
            The text is not YAML, or no recipe.
        ImportError
            The extra is not installed.

        Examples
        --------
        >>> from pyarrowquant import Recipe
        >>> recipe = Recipe.from_yaml("rules: [{match: '*embed*', skip: true}]")
        >>> recipe.settings_of("model.embed_tokens.weight", (512, 64)) is None
        True
        """
        return cls.from_dict(parse_yaml(arguments.text("Recipe text", text)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file whose name ends with .json, .yaml or .yml.

        Parameters
        ----------
        path : str or path
            Is replaced as a whole if it exists; its permissions stay.

        Raises
        ------
        ValueError
            The name has another suffix.
        OSError
            The file cannot be written.

        Examples
        --------
        >>> from pyarrowquant import Recipe
        >>> Recipe.profile("edge").save("edge.json")
        """
        write_text(path, file_text(self, path))

    @classmethod
    def load(cls: type[R], path: str | os.PathLike[str]) -> R:
        """Read a file whose name ends with .json, .yaml or .yml.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        Recipe

        Raises
        ------
        ValueError
            Naming the file and what is wrong with it.
        OSError
            It cannot be read.

        Examples
        --------
        >>> from pyarrowquant import Recipe
        >>> Recipe.preset("text").save("text.json")
        >>> Recipe.load("text.json") == Recipe.preset("text")
        True
        """
        read = cls.from_yaml if is_yaml(path) else cls.from_json
        text = read_text(path)
        try:
            return read(text)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error


def file_text(recipe: SavedRecipe, path: str | os.PathLike[str]) -> str:
    """Return what a file of a recipe has, by the suffix of its name."""
    return recipe.to_yaml() if is_yaml(path) else recipe.to_json() + "\n"
