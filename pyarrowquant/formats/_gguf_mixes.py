"""llama.cpp's mixes of types: which tensors get which.

They are what `llama-quantize` makes of a name like Q4_K_M (src/llama-quant.cpp of llama.cpp,
`llama_tensor_get_type_impl`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.settings import Settings
from pyarrowquant.formats._gguf_traits import Traits
from pyarrowquant.llama_cpp.names import layer_of
from pyarrowquant.recipes.by_name import escaped
from pyarrowquant.recipes.presets import SENSITIVE
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.recipes.rule import Rule

DEFAULT_MIX = "Q4_K_M"


def _blocks(bit_width: int, zero_point: str) -> Settings:
    return Settings(bit_width, 32, zero_point=zero_point, scale_dtype="float16")


# Types by other names than those of encodings.
_INTEGER_TYPES = {
    "q4_0": _blocks(4, "symmetric"),
    "q4_1": _blocks(4, "float"),
    "q5_0": _blocks(5, "symmetric"),
    "q5_1": _blocks(5, "float"),
    "q8_0": _blocks(8, "symmetric"),
}

# What llama.cpp takes where columns are no multiple of 256.
INSTEAD = {
    "q2_k": _INTEGER_TYPES["q4_0"],
    "q3_k": _INTEGER_TYPES["q4_0"],
    "q4_k": _INTEGER_TYPES["q5_0"],
    "q5_k": _INTEGER_TYPES["q5_1"],
    "q6_k": _INTEGER_TYPES["q8_0"],
    "iq4_xs": Settings().with_overrides({"encoding": "iq4_nl"}),
}

_NO_WEIGHT: dict[str, Any] = {"skip": True, "reason": "their names do not end with weight"}
_NEVER = Recipe([*SENSITIVE, Rule(regex="(?<!weight)$", **_NO_WEIGHT)])


@dataclass(frozen=True)
class _Layers:
    """Some layers, in words, and whether one is of them, by its number and how many there are.

    How many there are is what the model says, which may be any number: no list of them is made.
    """

    text: str
    has: Callable[[int, int], bool]


_Types = tuple[tuple[_Layers, str], ...]  # the first that has a layer decides


def _has_more_bits(i: int, n: int) -> bool:
    return i < n and (i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2)


def _first(count: int) -> _Layers:
    return _Layers(f"the first {count} layers", lambda i, n: i < min(count, n))


def _part(divisor: int) -> _Layers:
    return _Layers(f"the first 1/{divisor} of the layers", lambda i, n: i < n // divisor)


_EVERY = _Layers("all layers", lambda i, n: i < n)
_MORE_BITS = _Layers(
    "the first and the last 1/8 of the layers, each third one between", _has_more_bits
)


def _all(type_: str) -> _Types:
    return ((_EVERY, type_),)


@dataclass(frozen=True)
class Mix:
    """What tensors get.

    Attributes
    ----------
    base : str
        Of most.
    file_type : int
        llama.cpp's number for files of it.
    head : str
        Of the output head, and of embeddings that are also the head.
    values, down : tuple of (callable, str)
        Of values of attention, and of what goes down in the feed-forward part, in layers of some
        numbers; the base where there is none.
    output : str or None
        Of outputs of attention.
    grouped_values : tuple or None
        Of values that four heads of queries or more share, where that differs.
    important_down : tuple or None
        Of what goes down, where the importance of columns is known and that differs.
    falcon_down : tuple or None
    falcon_output : str or None
    output_of_eight : str or None
        Of outputs of attention in models of eight experts.
    experts : str or None
        Of stacks of experts, where that differs.
    """

    base: str
    file_type: int
    head: str = "q6_k"
    values: _Types = ()
    down: _Types = ()
    output: str | None = None
    grouped_values: _Types | None = None
    important_down: _Types | None = None
    falcon_down: _Types | None = None
    falcon_output: str | None = None
    output_of_eight: str | None = None
    experts: str | None = None


_MORE = ((_MORE_BITS, "q6_k"),)
_IQ4: dict[str, Any] = {
    "down": ((_part(8), "q5_k"),),
    "important_down": (),
    "grouped_values": _all("q5_k"),
    "output_of_eight": "q5_k",
}
MIXES = {
    "Q2_K": Mix(
        "q2_k",
        10,
        values=_all("q3_k"),
        down=_all("q3_k"),
        output="q3_k",
        grouped_values=_all("q4_k"),
        output_of_eight="q5_k",
    ),
    "Q3_K_S": Mix("q3_k", 11, output_of_eight="q5_k"),
    "Q3_K_M": Mix(
        "q3_k",
        12,
        values=((_first(2), "q5_k"), (_EVERY, "q4_k")),
        down=((_part(16), "q5_k"), (_EVERY, "q4_k")),
        output="q4_k",
        falcon_down=((_part(16), "q5_k"), (_MORE_BITS, "q4_k")),
        output_of_eight="q5_k",
    ),
    "Q3_K_L": Mix(
        "q3_k",
        13,
        values=_all("q5_k"),
        down=_all("q5_k"),
        output="q5_k",
        falcon_down=_all("q4_k"),
        falcon_output="q4_k",
    ),
    "Q4_0": Mix("q4_0", 2, important_down=((_part(8), "q4_1"),)),
    "Q4_1": Mix("q4_1", 3),
    "Q4_K_S": Mix(
        "q4_k",
        14,
        values=((_first(4), "q5_k"),),
        down=((_part(8), "q5_k"),),
        falcon_down=(),
        output_of_eight="q5_k",
    ),
    "Q4_K_M": Mix(
        "q4_k",
        15,
        values=_MORE,
        down=_MORE,
        falcon_down=((_part(16), "q6_k"), (_MORE_BITS, "q5_k")),
        output_of_eight="q5_k",
    ),
    "Q5_0": Mix("q5_0", 8, important_down=((_part(8), "q5_1"),)),
    "Q5_1": Mix("q5_1", 9),
    "Q5_K_S": Mix("q5_k", 16),
    "Q5_K_M": Mix("q5_k", 17, values=_MORE, down=_MORE),
    "Q6_K": Mix("q6_k", 18),
    "Q8_0": Mix("q8_0", 7, head="q8_0"),
    "IQ4_NL": Mix("iq4_nl", 25, **_IQ4),
    "IQ4_XS": Mix("iq4_xs", 30, **_IQ4),
    "MXFP4_MOE": Mix("q8_0", 38, head="q8_0", experts="mxfp4"),
}


def mix_of(name: str, traits: Traits, has_importance: bool) -> Recipe:
    """Return the recipe of a mix for a model of llama.cpp.

    Parameters
    ----------
    name : str
    traits : Traits
        Of the model.
    has_importance : bool
        Whether the importance of columns is known.
    """
    mix = MIXES[name]
    chosen: dict[str, list[str]] = {}
    taken = []
    for tensor, type_ in _Chooser(mix, traits, has_importance).types():
        if type_ == "mxfp4" and tensor in traits.mxfp4:
            taken.append(escaped(tensor))
        elif type_ != mix.base:
            chosen.setdefault(type_, []).append(escaped(tensor))
    # By their names, as a folder may call weights otherwise.
    others = [escaped(name) for name in traits.shapes if not name.endswith("weight")]
    kept = [Rule(others, **_NO_WEIGHT)] if others else []
    kept += [Rule(taken, skip=True, reason="MXFP4 already")] if taken else []
    rules = [Rule(names, **_said(type_)) for type_, names in chosen.items()]
    # The base is a rule, since rules of one's own are to say what they want beside the default.
    last = Rule("*", **_said(mix.base))
    return Recipe([*SENSITIVE, *kept, *rules, last], default={"method": "mse"}, name=name)


def described(name: str) -> list[tuple[str, str]]:
    """Say what tensors get by a mix: names of some, and their types."""
    mix = MIXES[name]
    important = mix.important_down
    lines = [
        ("*", mix.base),
        ("output.weight, or token_embd.weight without it", mix.head),
        ("attn_v, attn_qkv, attn_kv_b", _text(mix.values) or mix.base),
        ("those of 4 heads of queries or more", _text(mix.grouped_values or ())),
        ("ffn_down", _text(mix.down)),
        ("ffn_down with an imatrix", "" if important is None else _text(important) or mix.base),
        ("attn_output", mix.output or ""),
        ("stacks of experts", mix.experts or ""),
    ]
    return [(what, text) for what, text in lines if text]


def _text(types: _Types) -> str:
    return "; ".join(f"{type_} in {layers.text}" for layers, type_ in types)


def _said(type_: str) -> dict[str, Any]:
    """Return what a rule says of a type."""
    settings = _INTEGER_TYPES.get(type_)
    if settings is None:
        return {"encoding": type_}
    said = {**vars(settings), "encoding": INTEGER}
    del said["method"]
    return said


class _Chooser:
    """Chooses types as llama.cpp does: in the order of layers, then of names."""

    def __init__(self, mix: Mix, traits: Traits, has_importance: bool) -> None:
        self._mix = mix
        self._traits = traits
        self._is_falcon = traits.architecture == "falcon"
        self._down = self._of_down(has_importance)
        self._value_count = sum(map(_is_of_values, traits.shapes))
        self._values_seen = self._downs_seen = 0

    def types(self) -> list[tuple[str, str]]:
        """Return the tensors that are quantized, each with its type."""
        shapes = self._traits.shapes
        return [
            (name, self._type_of(name, shapes[name]))
            for name in sorted(shapes, key=lambda name: (layer_of(name), name))
            if _dimensions(shapes[name]) > 1
            and not _NEVER.decisions.outcome(name, shapes[name])[0].skip
        ]

    def _type_of(self, name: str, shape: tuple[int, ...]) -> str:
        mix, traits = self._mix, self._traits
        is_embedding = name in ("token_embd.weight", "per_layer_token_embd.weight")
        if name == "output.weight" or (is_embedding and "output.weight" not in traits.shapes):
            return "q8_0" if self._is_falcon else mix.head
        if mix.experts is not None:
            return mix.experts if len(shape) > 2 and shape[-3] > 1 else mix.base
        if is_embedding:
            return mix.base
        if _is_of_values(name):
            return self._type_of_values()
        if "attn_k.weight" in name:
            return "q8_0" if traits.experts == 8 else mix.base
        if "attn_output.weight" in name:
            return self._type_of_output()
        if "ffn_down" in name and not any(each in name for each in _BEFORE_DOWN):
            return self._type_of_down(name)
        return mix.base

    def _type_of_values(self) -> str:
        types = self._mix.values
        if self._traits.has_grouped_queries and self._mix.grouped_values is not None:
            types = self._mix.grouped_values
        type_ = self._first(types, self._values_seen, self._value_count)
        self._values_seen += 1
        if self._traits.experts == 8:
            return "q8_0"
        if self._traits.is_of_80_layers and type_ in ("q3_k", "q4_k"):
            return "q5_k"
        return type_

    def _type_of_output(self) -> str:
        mix = self._mix
        if self._is_falcon:
            return mix.falcon_output or mix.base
        return (mix.output_of_eight if self._traits.experts == 8 else mix.output) or mix.base

    def _type_of_down(self, name: str) -> str:
        i, layer = self._downs_seen, layer_of(name)
        self._downs_seen += 1
        if self._traits.experts > 1 and layer >= 0:  # of which a layer may have several
            i = layer
        return self._first(self._down, i, self._traits.layers)

    def _of_down(self, has_importance: bool) -> _Types:
        mix = self._mix
        if self._is_falcon and mix.falcon_down is not None:
            return mix.falcon_down
        if has_importance and mix.important_down is not None:
            return mix.important_down
        return mix.down

    def _first(self, types: _Types, i: int, n: int) -> str:
        return next((type_ for layers, type_ in types if layers.has(i, n)), self._mix.base)


def _dimensions(shape: tuple[int, ...]) -> int:
    """Return how many dimensions ggml counts: none of size 1 before all others."""
    first = next((i for i, size in enumerate(shape) if size != 1), len(shape) - 1)
    return len(shape) - first


def _is_of_values(name: str) -> bool:
    return any(part in name for part in ("attn_qkv.weight", "attn_kv_b.weight", "attn_v.weight"))


# What llama.cpp looks for before it.
_BEFORE_DOWN = ("attn_q.weight", "ffn_up", "ffn_gate")
