"""llama.cpp's mixes of types: which tensors get which.

They are what `llama-quantize` makes of a name like Q4_K_M (src/llama-quant.cpp of llama.cpp,
`llama_tensor_get_type_impl`), but for its rules for single architectures: Falcon, models of 80
layers, and of eight experts.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from pyarrowquant._core.settings import Settings
from pyarrowquant.llama_cpp.models import LlamaCppModel
from pyarrowquant.reading.model import Model
from pyarrowquant.recipes.presets import SENSITIVE
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.recipes.rule import Rule

_HEADS = ("output.weight", "token_embd.weight", "per_layer_token_embd.weight")
_VALUES = ("attn_v", "attn_qkv", "attn_kv_b")


def _blocks(bit_width: int, zero_point: str) -> Settings:
    return Settings(bit_width, 32, zero_point=zero_point, scale_dtype="float16")


_Q8_0 = _blocks(8, "symmetric")

# What llama.cpp takes where columns are no multiple of 256, or of 32.
INSTEAD = {
    "q2_k": _blocks(4, "symmetric"),
    "q3_k": _blocks(4, "symmetric"),
    "q4_k": _blocks(5, "symmetric"),
    "q5_k": _blocks(5, "float"),
    "q6_k": _Q8_0,
    "iq4_xs": Settings().with_overrides({"encoding": "iq4_nl"}),
}


_Numbers = Callable[[int], Collection[int]]  # of some layers, given how many there are


def _more_bits(n: int) -> Collection[int]:
    """Those of the first and the last eighth, and each third one between."""
    return {i for i in range(n) if i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2}


def _first(count: int) -> _Numbers:
    return lambda n: range(min(count, n))


def _part(divisor: int) -> _Numbers:
    return lambda n: range(n // divisor)


@dataclass(frozen=True)
class Mix:
    """What tensors get.

    Attributes
    ----------
    base : str
        Of most.
    head : str
        Of the output head, and of embeddings that are also the head.
    values, down : tuple of (callable, str)
        Of values of attention, and of what goes down in the feed-forward part, in layers of some
        numbers. The first that has a layer decides.
    output : str or None
        Of outputs of attention.
    """

    base: str
    head: str = "q6_k"
    values: tuple[tuple[_Numbers, str], ...] = ()
    down: tuple[tuple[_Numbers, str], ...] = ()
    output: str | None = None


_MORE = ((_more_bits, "q6_k"),)
# Of values that four heads of queries or more share.
_OF_GROUPED_QUERIES: dict[str, tuple[tuple[_Numbers, str], ...]] = {
    "q2_k": ((range, "q4_k"),),
    "iq4_nl": ((range, "q5_k"),),
    "iq4_xs": ((range, "q5_k"),),
}
MIXES = {
    "Q2_K": Mix("q2_k", values=((range, "q3_k"),), down=((range, "q3_k"),), output="q3_k"),
    "Q3_K_S": Mix("q3_k"),
    "Q3_K_M": Mix(
        "q3_k",
        values=((_first(2), "q5_k"), (range, "q4_k")),
        down=((_part(16), "q5_k"), (range, "q4_k")),
        output="q4_k",
    ),
    "Q3_K_L": Mix("q3_k", values=((range, "q5_k"),), down=((range, "q5_k"),), output="q5_k"),
    "Q4_K_S": Mix("q4_k", values=((_first(4), "q5_k"),), down=((_part(8), "q5_k"),)),
    "Q4_K_M": Mix("q4_k", values=_MORE, down=_MORE),
    "Q5_K_S": Mix("q5_k"),
    "Q5_K_M": Mix("q5_k", values=_MORE, down=_MORE),
    "Q6_K": Mix("q6_k"),
    "IQ4_NL": Mix("iq4_nl", down=((_part(8), "q5_k"),)),
    "IQ4_XS": Mix("iq4_xs", down=((_part(8), "q5_k"),)),
}


def mix_of(name: str, model: Model) -> Recipe:
    """Return the recipe of a mix for a model of llama.cpp.

    Raises
    ------
    ValueError
        The model is none whose tensors have llama.cpp's names.
    """
    if not isinstance(model, LlamaCppModel):
        raise ValueError(
            f"{model.location}: recipe {name!r} goes by llama.cpp's names of tensors, and is for "
            "GGUF models and Hugging Face folders. encoding= takes one of its types for all layers"
        )
    mix = MIXES[name]
    kinds = {tensor.name: _kind_of(tensor.name) for tensor in model.all_tensors}
    layers = 1 + max((kind.layer for kind in kinds.values() if kind is not None), default=-1)
    values = sorted(
        (kind.layer, tensor) for tensor, kind in kinds.items() if kind and kind.name in _VALUES
    )
    # Values of attention count by themselves: not all layers of a model need have them.
    counts = {tensor: i for i, (_, tensor) in enumerate(values)}
    grouped_queries = _grouped(model)
    chosen: dict[str, list[str]] = {}
    for tensor, kind in kinds.items():
        if tensor in _HEADS:
            is_head = tensor == "output.weight" or "output.weight" not in kinds
            encoding = mix.head if is_head else mix.base
        elif tensor in counts:
            rules_of_values = mix.values
            if grouped_queries:
                rules_of_values = _OF_GROUPED_QUERIES.get(mix.base, mix.values)
            encoding = _first_of(rules_of_values, counts[tensor], len(counts), mix.base)
        elif kind is not None and kind.name.startswith("ffn_down"):
            encoding = _first_of(mix.down, kind.layer, layers, mix.base)
        elif kind is not None and kind.name == "attn_output":
            encoding = mix.output or mix.base
        else:
            encoding = mix.base
        if encoding != mix.base:
            chosen.setdefault(encoding, []).append(glob.escape(tensor))
    rules = [Rule(names, encoding=encoding) for encoding, names in chosen.items()]
    return Recipe([*SENSITIVE, *rules], default={"encoding": mix.base, "method": "mse"}, name=name)


@dataclass(frozen=True)
class _Kind:
    """What a tensor of a layer is."""

    name: str
    layer: int


def _kind_of(name: str) -> _Kind | None:
    match = re.fullmatch(r"(?:\w+\.)?blk\.(\d+)\.(\w+)\.weight", name)
    return _Kind(match[2], int(match[1])) if match else None


def _grouped(model: LlamaCppModel) -> bool:
    """Whether four heads of queries or more share one of keys and values."""
    header = model.header
    prefix = f"{header.value('general.architecture')}.attention."
    heads, shared = (header.value(prefix + key) for key in ("head_count", "head_count_kv"))
    # Some models say one for each layer.
    heads, shared = (
        max(each) if isinstance(each, list) and each else each for each in (heads, shared)
    )
    return isinstance(heads, int) and isinstance(shared, int) and heads >= 4 * max(shared, 1)


def _first_of(rules: Sequence[tuple[_Numbers, str]], i: int, n: int, base: str) -> str:
    """Return what the first rule says that has the number i of n."""
    return next((encoding for some, encoding in rules if i in some(n)), base)
