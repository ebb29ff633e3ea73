"""What config.json says of a model, by keys that differ from one model to another."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pyarrowquant._core.quoting import quoted


class Hyperparameters:
    """The keys of a config.json; those of a text_config come before the outer ones.

    Parameters
    ----------
    config : mapping
    path : str
        What errors call it.
    """

    def __init__(self, config: Mapping[str, Any], path: str) -> None:
        text = config.get("text_config")
        self._said = {**config, **text} if isinstance(text, dict) else dict(config)
        self.path = path

    def get(self, *keys: str) -> Any:
        """Return what the first key that is there says, or None; null is as if it were not."""
        return next((self._said[key] for key in keys if self._said.get(key) is not None), None)

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
        """Return a number; without one is an error."""
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
        return float(found)

    def flag(self, key: str, usual: bool) -> bool:
        """Return whether something is so; `usual` where it is not said."""
        found = self.get(key)
        if found is None:
            return usual
        if not isinstance(found, bool):
            raise self._wrong((key,), found, "true or false")
        return found

    def spelled(self, *keys: str) -> str:
        """Return which of the keys is there, or the first one."""
        return next((key for key in keys if self._said.get(key) is not None), keys[0])

    def completed(self, usual: Mapping[str, Any]) -> Hyperparameters:
        """Return the same with values for keys that are not there."""
        return Hyperparameters({**usual, **self._said}, self.path)

    def contradiction(self, what: str) -> ValueError:
        """Return the error of what llama.cpp cannot have."""
        return ValueError(
            f"'{self.path}': {what}, which llama.cpp does not load. Take the config.json that came "
            "with the weights"
        )

    def _lacking(self, keys: tuple[str, ...]) -> ValueError:
        return ValueError(
            f"'{self.path}' lacks {keys[0]}, which llama.cpp needs. Take the config.json that came "
            "with the weights"
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
        said = dict(self._rope_object("rope_parameters", "rope_scaling"))
        of_kind = said.get("full_attention")
        if isinstance(of_kind, dict):
            said = of_kind
        usual = {
            "rope_theta": self.get("rope_theta", "rotary_emb_base", "global_rope_theta"),
            "rope_type": said.get("type"),
            "partial_rotary_factor": self.get("partial_rotary_factor", "rotary_pct", "rope_pct"),
            "original_max_position_embeddings": self.get("original_max_position_embeddings"),
        }
        return Hyperparameters({**usual, **said}, f"{self.path}: rope_parameters")

    @cached_property
    def rope_of_windows(self) -> Hyperparameters:
        """What is said of rotary embeddings, of layers that attend to a window."""
        said = self._rope_object("rope_parameters", "rope_scaling").get("sliding_attention")
        theta = self.get("rope_local_base_freq", "local_rope_theta", "rope_theta_local")
        if not isinstance(said, dict):
            said = {}
        return Hyperparameters({"rope_theta": theta, **said}, f"{self.path}: rope_parameters")

    def _rope_object(self, *keys: str) -> dict[str, Any]:
        found = self.get(*keys)
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise self._wrong(keys, found, "an object")
        return found
