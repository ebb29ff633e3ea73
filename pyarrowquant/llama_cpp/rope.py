"""Rotary embeddings: how config.json scales them, and how llama.cpp does."""

from __future__ import annotations

import math
import warnings

import numpy as np

from pyarrowquant._core.quoting import quoted
from pyarrowquant.errors import users_level
from pyarrowquant.llama_cpp.hyperparameters import Hyperparameters
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.supported import SUPPORTED
from pyarrowquant.reading.gguf import import_gguf

# What transformers takes types of Phi 3 for.
_PHI_3_TYPES = {"su": "longrope", "yarn": "longrope"}
_OF_KINDS = ("gemma3",)
_NOT_TRUNCATED = ("gpt-oss",)
# Where yarn scales the columns too that rotary embeddings do not turn.
_SCALES_ALL = ("deepseek2",)
_YARN_ROTATIONS = {"beta_fast": 32.0, "beta_slow": 1.0}


def describe_rope(said: Hyperparameters, metadata: Metadata) -> None:
    """Add the keys of rotary embeddings, of architectures that have them."""
    rope, add = said.rope, metadata.add
    if not SUPPORTED[metadata.architecture].rope_types:
        return
    kind = _type_of(said, metadata.architecture)
    types = import_gguf("Writing").RopeScalingType
    add.add_rope_freq_base(rope.positive("rope_theta"))
    if kind == "linear":
        add.add_rope_scaling_type(types.LINEAR)
        add.add_rope_scaling_factor(rope.positive("factor"))
    elif kind == "yarn":
        add.add_rope_scaling_type(types.YARN)
        add.add_rope_scaling_factor(rope.positive("factor"))
        add.add_rope_scaling_orig_ctx_len(rope.whole("original_max_position_embeddings"))
        _describe_attention_of_yarn(rope, metadata)
    elif kind == "longrope":
        add.add_rope_scaling_type(types.LONGROPE)
        add.add_rope_scaling_orig_ctx_len(rope.whole("original_max_position_embeddings"))
        add.add_rope_scaling_attn_factors(_attention_of_longrope(said))


def describe_rope_of_windows(said: Hyperparameters, metadata: Metadata) -> None:
    """Add the keys of rotary embeddings of layers with a window, which llama.cpp never scales."""
    rope = said.rope_of_windows
    if rope.get("rope_type") not in (None, "default"):
        raise rope.unsupported("rope_type", "llama.cpp scales no layers that attend to a window")
    metadata.add.add_rope_freq_base_swa(rope.positive("rope_theta"))


def rope_factors(said: Hyperparameters, architecture: str) -> dict[str, np.ndarray]:
    """Return the tensors by which llama.cpp divides frequencies, by their names."""
    kind = _type_of(said, architecture)
    if kind == "llama3":
        return {"rope_freqs.weight": _llama_3_factors(said.rope, said.head_size)}
    if kind == "longrope":
        return {
            "rope_factors_long.weight": _listed_factors(said, "long_factor"),
            "rope_factors_short.weight": _listed_factors(said, "short_factor"),
        }
    return {}


def turned_columns(said: Hyperparameters) -> int:
    """Return how many columns of a head rotary embeddings turn."""
    part = said.rope.part_or_none("partial_rotary_factor")
    if part is None:
        return said.head_size
    turned = int(said.head_size * part)
    if turned < 2 or turned % 2:
        raise said.contradiction(
            f"partial_rotary_factor {part:g} of heads of {said.head_size} columns is {turned}, "
            "which must be even and not 0"
        )
    return turned


def _type_of(said: Hyperparameters, architecture: str) -> str | None:
    """Return how rotary embeddings are scaled, None for not at all."""
    rope, known = said.rope, SUPPORTED[architecture].rope_types
    if said.get("rope_parameters") and said.rope_is_of_kinds != (architecture in _OF_KINDS):
        raise said.unsupported(
            "rope_parameters",
            f"full_attention and sliding_attention have their own in {', '.join(_OF_KINDS)} alone",
        )
    kind = rope.get("rope_type")
    if not known or kind in (None, "default"):
        return None
    scaled = _PHI_3_TYPES.get(str(kind), kind) if architecture == "phi3" else kind
    if scaled not in known:
        raise rope.unsupported(
            "rope_type", f"llama.cpp computes {architecture} with {', '.join(known)} or default"
        )
    return str(scaled)


def _describe_attention_of_yarn(rope: Hyperparameters, metadata: Metadata) -> None:
    """Add what yarn multiplies queries and keys by, where it is not what follows from its factor.

    llama.cpp multiplies what the file says by what follows from the factor. It reads no keys for
    the numbers of rotations between which frequencies are scaled in part.
    """
    for key, usual in _YARN_ROTATIONS.items():
        if (rope.number_or_none(key) or usual) != usual:
            raise rope.unsupported(key, f"llama.cpp computes yarn with {usual:g} alone")
    if rope.get("truncate") is False:
        _say_truncated(rope, metadata.architecture)
    factor = rope.positive("factor")
    attention = rope.number_or_none("attention_factor")
    scale, scale_of_all = rope.number_or_none("mscale"), rope.number_or_none("mscale_all_dim")
    if metadata.architecture in _SCALES_ALL:
        if attention not in (None, 1.0):
            raise rope.unsupported("attention_factor", "llama.cpp computes deepseek2 with 1 alone")
        if not scale or scale != scale_of_all:
            raise rope.unsupported(
                "mscale", "llama.cpp computes deepseek2 with the number of mscale_all_dim alone"
            )
        # llama.cpp reads it divided by what it multiplies a logarithm by.
        metadata.add.add_rope_scaling_yarn_log_mul(0.1 * scale_of_all)
        return
    if attention is None and scale and scale_of_all:
        attention = _grown(factor, scale) / _grown(factor, scale_of_all)
    if attention is not None:
        metadata.add.add_rope_scaling_attn_factors(attention / _grown(factor, 1.0))


def _say_truncated(rope: Hyperparameters, architecture: str) -> None:
    """Raise, or warn of models that nobody has otherwise."""
    if architecture not in _NOT_TRUNCATED:
        raise rope.unsupported("truncate", "llama.cpp computes yarn with true alone")
    warnings.warn(
        f"'{rope.path}': truncate is false, and llama.cpp computes yarn with true, so that it "
        "scales a few frequencies of rotary embeddings a little otherwise",
        UserWarning,
        stacklevel=users_level(),
    )


def _grown(factor: float, scale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def _attention_of_longrope(said: Hyperparameters) -> float:
    """Return what longrope multiplies queries and keys by, as transformers has it."""
    rope = said.rope
    if (attention := rope.number_or_none("attention_factor")) is not None:
        return attention
    before = rope.whole("original_max_position_embeddings", least=2)
    factor = rope.number_or_none("factor")
    if factor is None:
        factor = said.whole("max_position_embeddings") / before
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(before))


def _listed_factors(said: Hyperparameters, key: str) -> np.ndarray:
    rope, count = said.rope, turned_columns(said) // 2
    found = rope.get(key)
    if (
        not isinstance(found, list)
        or len(found) != count
        or not all(isinstance(each, (int, float)) and 0 < each < math.inf for each in found)
    ):
        raise ValueError(
            f"'{rope.path}': {key} must be {count} numbers above 0, it is {quoted(found)}"
        )
    return np.array(found, np.float32)


def _llama_3_factors(rope: Hyperparameters, size: int) -> np.ndarray:
    """By how much Llama 3.1 divides the frequencies of rotary embeddings.

    As transformers has it, in modeling_rope_utils.py: long waves by the factor, short ones not at
    all, those between by something between.
    """
    factor = rope.positive("factor")
    low, high = rope.positive("low_freq_factor"), rope.positive("high_freq_factor")
    context = rope.whole("original_max_position_embeddings")
    theta = rope.positive("rope_theta")
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    frequencies = np.float32(1) / np.float32(theta) ** exponents
    factors = np.ones(len(frequencies), np.float32)
    for i, frequency in enumerate(frequencies):
        length = 2 * math.pi / float(frequency)
        if length > context / low:
            factors[i] = factor
        elif length >= context / high:
            smooth = (context / length - low) / (high - low)
            factors[i] = 1 / ((1 - smooth) / factor + smooth)
    return factors
