"""What config.json says of a model, by keys that differ from one model to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from pyarrowquant._core.quoting import quoted

_MOST = float(np.finfo(np.float32).max)
_KINDS_OF_LAYERS = ("full_attention", "sliding_attention")


class Hyperparameters:
    """The keys of a config.json; those of a text_config come before the outer ones.

    Parameters
    ----------
    config : mapping
    path : str
        What errors call it.
    usual : mapping, optional
        What holds where none of the keys asked for is there; one that is null is there.
    """

    def __init__(
        self, config: Mapping[str, Any], path: str, usual: Mapping[str, Any] | None = None
    ) -> None:
        text = config.get("text_config")
        self._said = {**config, **text} if isinstance(text, dict) else dict(config)
        self._usual = {} if usual is None else usual
        self.path = path

    def completed(self, usual: Mapping[str, Any]) -> Hyperparameters:
        """Return the same with what holds for keys that are not there."""
        return Hyperparameters(self._said, self.path, usual)

    def without(self, keys: Sequence[str]) -> Hyperparameters:
        """Return the same, but for keys that a model does not look at."""
        said = {key: value for key, value in self._said.items() if key not in keys}
        return Hyperparameters(said, self.path, self._usual)

    def get(self, *keys: str) -> Any:
        """Return what the first key that is there says, or None, which null is too."""
        said = self._usual if self._said.keys().isdisjoint(keys) else self._said
        return next((said[key] for key in keys if said.get(key) is not None), None)

    def whole(self, *keys: str, least: int = 1) -> int:
        """Return a whole number; without one is an error."""
        found = self.whole_or_none(*keys, least=least)
        if found is None:
            raise self._lacking(keys)
        return found

    def whole_or_none(self, *keys: str, least: int = 1) -> int | None:
        found = self.get(*keys)
        if found is None:
            return None
        if isinstance(found, float) and found.is_integer():
            found = int(found)
        if isinstance(found, bool) or not isinstance(found, int) or not least <= found < 2**31:
            raise self._wrong(keys, found, f"a whole number of {least} to 2^31-1")
        return found

    def number(self, *keys: str) -> float:
        """Return a finite number; without one is an error."""
        found = self.number_or_none(*keys)
        if found is None:
            raise self._lacking(keys)
        return found

    def number_or_none(self, *keys: str) -> float | None:
        found = self.get(*keys)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, (int, float)) or found != found:
            raise self._wrong(keys, found, "a number")
        if abs(found) > _MOST:  # as GGUF has float32
            raise self._wrong(keys, found, f"a number of at most {_MOST:.4g}")
        return float(found)

    def not_negative_or_none(self, *keys: str) -> float | None:
        found = self.number_or_none(*keys)
        if found is not None and found < 0:
            raise self._wrong(keys, found, "a number of 0 or more")
        return found

    def part_or_none(self, key: str) -> float | None:
        """Return which part of a whole, above 0 and at most 1."""
        found = self.number_or_none(key)
        if found is not None and not 0 < found <= 1:
            raise self._wrong((key,), found, "a number above 0 and at most 1")
        return found

    def positive(self, key: str) -> float:
        """Return a number above 0; without one is an error."""
        found = self.number(key)
        if found <= 0:
            raise self._wrong((key,), found, "a number above 0")
        return found

    def list_or_none(self, key: str) -> list[Any] | None:
        """Return a list of as many elements as layers, or more."""
        found = self.get(key)
        if found is None:
            return None
        if not isinstance(found, list) or len(found) < self.layers:
            raise self._wrong(
                (key,), found, f"a list with an element for each of {self.layers} layers"
            )
        return found

    def is_usual(self, *keys: str) -> bool:
        """Whether nothing is said of what has these keys, and something holds all the same."""
        return self._said.keys().isdisjoint(keys) and not self._usual.keys().isdisjoint(keys)

    def unsupported(self, key: str, computed: str) -> ValueError:
        """Return the error of what llama.cpp does not compute.

        Parameters
        ----------
        key : str
        computed : str
            What it does instead, as a sentence without an end.
        """
        return ValueError(
            f"'{self.path}': {key} is {quoted(self.get(key))}, and {computed}. Take another format "
            "than GGUF"
        )

    def flag(self, key: str, usual: bool) -> bool:
        """Return whether something is so; `usual` where it is not said."""
        found = self.get(key)
        if found is None:
            return usual
        if not isinstance(found, bool):
            raise self._wrong((key,), found, "true or false")
        return found

    def spelled(self, *keys: str) -> str:
        """Return which of the keys is there, or what the class calls it, or the first one."""
        said = [key for key in keys if self._said.get(key) is not None]
        known = [key for known in (self._said, self._usual) for key in keys if key in known]
        return [*said, *known, *keys][0]

    def contradiction(self, what: str) -> ValueError:
        """Return the error of what llama.cpp cannot have."""
        return ValueError(
            f"'{self.path}': {what}, which llama.cpp does not load. Take the config.json that came "
            "with the weights"
        )

    def _lacking(self, keys: tuple[str, ...]) -> ValueError:
        return ValueError(
            f"'{self.path}' lacks {self.spelled(*keys)}, which llama.cpp needs. Take the "
            "config.json that came with the weights"
        )

    def _wrong(self, keys: tuple[str, ...], found: Any, what: str) -> ValueError:
        key = self.spelled(*keys)
        return ValueError(f"'{self.path}': {key} must be {what}, it is {quoted(found)}")

    @property
    def layers(self) -> int:
        return self.whole("num_hidden_layers", "n_layers", "n_layer", "num_layers")

    @property
    def heads(self) -> int:
        return self.whole("num_attention_heads", "n_head", "n_heads")

    @property
    def key_value_heads(self) -> int:
        return self.whole_or_none("num_key_value_heads", "n_kv_heads") or self.heads

    @property
    def head_size(self) -> int:
        """How many columns a head has."""
        said = self.whole_or_none("head_dim")
        return said or self.whole("hidden_size", "n_embd", "dim") // self.heads

    @property
    def experts(self) -> int | None:
        return self.whole_or_none("num_local_experts", "num_experts", "n_routed_experts", least=0)

    @cached_property
    def rope(self) -> Hyperparameters:
        """What is said of rotary embeddings, of layers that attend to everything.

        transformers 4 has rope_theta beside rope_scaling, 5 has both in rope_parameters, which
        may say them for each kind of layer.
        """
        of_all = self._object("rope_parameters")
        scaling = self._object("rope_scaling")
        original = self.get("original_max_position_embeddings")
        said: dict[str, Any] = {
            "rope_theta": self.get("rope_theta", "rotary_emb_base", "global_rope_theta"),
            "partial_rotary_factor": self.get("partial_rotary_factor", "rotary_pct", "rope_pct"),
            "original_max_position_embeddings": self.get("max_position_embeddings"),
        }
        if self.rope_is_of_kinds:
            said |= {**self._rope_of("full_attention"), **scaling}
        else:
            said |= scaling or of_all
            said |= {} if original is None else {"original_max_position_embeddings": original}
        said.setdefault("rope_type", said.get("type"))
        key = ": rope_scaling" if scaling else ": rope_parameters" if of_all else ""
        return Hyperparameters(said, f"{self.path}{key}")

    @cached_property
    def rope_of_windows(self) -> Hyperparameters:
        """What is said of rotary embeddings, of layers that attend to a window."""
        theta = self.get("rope_local_base_freq", "local_rope_theta", "rope_theta_local")
        said = self._rope_of("sliding_attention")
        said = {"rope_theta": theta, "rope_type": said.get("type"), **said}
        return Hyperparameters(said, f"{self.path}: rope_parameters.sliding_attention")

    @property
    def rope_is_of_kinds(self) -> bool:
        """Whether rotary embeddings are said for each kind of layer."""
        return not self._object("rope_parameters").keys().isdisjoint(_KINDS_OF_LAYERS)

    def _rope_of(self, kind: str) -> dict[str, Any]:
        said = Hyperparameters(self._object("rope_parameters"), f"{self.path}: rope_parameters")
        return said._object(kind)

    def _object(self, key: str) -> dict[str, Any]:
        found = self.get(key)
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise self._wrong((key,), found, "an object")
        return found
