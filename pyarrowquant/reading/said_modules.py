"""Which modules config.json says are not quantized."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.config import is_of_mlx
from pyarrowquant.reading.said_groups import Config

# Keys whose entries transformers looks for at the begin or the end of names, as regular
# expressions too, and that whose entries are names, or regular expressions after "re:".
_OF_TRANSFORMERS = ("modules_to_not_convert", "llm_int8_skip_modules")
_EXACT = ("ignore", "ignored_layers")
_OF_SOME = ("modules_to_not_convert", "ignored_layers")  # of FP8
_PLAIN = re.compile(r"[\w.\-]+")
_MARK = "re:"
# Parts of models whose modules transformers calls otherwise than files do.
_PARTS = ("text_config", "vision_config", "audio_config", "thinker_config", "llm_config")


class UnquantizedModules:
    """Tells of modules whether config.json says that they are not quantized.

    Parameters
    ----------
    quantizations : iterable of mapping
        All that it says of how weights are quantized.
    config : mapping
        The whole of it.
    """

    def __init__(self, quantizations: Iterable[Config], config: Config) -> None:
        self._quantizations = list(quantizations)
        self._has_parts = any(part in config for part in _PARTS)

    def surely(self, module: str) -> str | None:
        """Return the key and its entry by which engines take a module for floats, or None.

        Of models whose modules they know by other names than files have, only what those names
        cannot change counts.
        """
        for key, entries in self._entries.items():
            if key not in _OF_SOME and (found := self._named(module, entries)) is not None:
                return f"{key} {quoted(found)}"
        if any(is_of_mlx(said) and said.get(module) is False for said in self._quantizations):
            return f"{module} false"
        return None

    def of_some(self, module: str) -> str | None:
        """Return the key by which engines take a module for floats unless they decode all.

        transformers does so with FP8 where there is no GPU.
        """
        return next(
            (
                key
                for key, entries in self._entries.items()
                if key in _OF_SOME and self._named(module, entries) is not None
            ),
            None,
        )

    def _named(self, module: str, entries: _Entries) -> str | None:
        found = entries.name_of(module)
        if found is None and not self._has_parts:
            found = entries.begin_of(module) or entries.expression_of(module)
        return found

    def perhaps(self, module: str) -> bool:
        """Whether engines may take a module for floats."""
        if self._has_parts or any(said.get("exclude_modules") for said in self._quantizations):
            return True
        return any(entries.may_mean(module) for entries in self._entries.values())

    @cached_property
    def _entries(self) -> dict[str, _Entries]:
        found = {}
        for key in (*_OF_TRANSFORMERS, *_EXACT):
            listed = [said.get(key) for said in self._quantizations]
            texts = [
                each
                for entries in listed
                if isinstance(entries, list)
                for each in entries
                if isinstance(each, str) and each
            ]
            if texts:
                found[key] = _Entries(texts, key in _EXACT)
        return found


class _Entries:
    """The entries of a key."""

    def __init__(self, texts: Iterable[str], are_marked: bool) -> None:
        self._are_marked = are_marked
        self._names: set[str] = set()
        self._expressions: dict[str, re.Pattern[str]] = {}
        for text in texts:
            is_name = not text.startswith(_MARK) if are_marked else _PLAIN.fullmatch(text)
            if is_name:
                self._names.add(text)
                continue
            source = text.removeprefix(_MARK) if are_marked else rf"(?:{text})(?:\.|$)"
            with suppress(re.error):
                self._expressions[text] = re.compile(source)

    def name_of(self, module: str) -> str | None:
        """Return the entry that is the name of a module, or its end where that counts."""
        tails = [module]
        while not self._are_marked and "." in tails[-1]:
            tails.append(tails[-1].partition(".")[2])
        return next((tail for tail in tails if tail in self._names), None)

    def begin_of(self, module: str) -> str | None:
        """Return the entry that is the name of what a module lies in, where that counts."""
        while not self._are_marked and "." in module:
            module = module.rpartition(".")[0]
            if module in self._names:
                return module
        return None

    def expression_of(self, module: str) -> str | None:
        """Return the entry that is a regular expression of a module's name."""
        return next(
            (text for text, found in self._expressions.items() if found.match(module)), None
        )

    def may_mean(self, module: str) -> bool:
        """Whether an entry is a part of a module's name, or matches a part."""
        if any(found in module for found in self._names):
            return True
        return any(found.search(module) for found in self._expressions.values())
