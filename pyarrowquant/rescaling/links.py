"""Which matrices read what others make, and nothing else reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyarrowquant.reading.numbers import Array
from pyarrowquant.reading.tensors import DECODED, FLOATS, Tensor
from pyarrowquant.rescaling.architectures import Norms, norms_of

_LAYER = re.compile(r"(?P<layer>(?:.+\.)?layers\.\d+\.)(?P<part>.+)")
# All that a layer may have: what is not known here might read the same, too.
_PART = re.compile(
    r"(input|post_attention|(pre|post)_feedforward)_layernorm\.weight"
    r"|self_attn\.((q|k|v|o|qkv|q_a|q_b|kv_b)_proj|kv_a_proj_with_mqa)\.(weight|bias)"
    r"|self_attn\.((q|k)_norm|(q|kv)_a_layernorm)\.weight"
    r"|self_attn\.rotary_emb\.inv_freq"
    r"|mlp\.(gate|up|down|gate_up)_proj\.(weight|bias)"
    r"|mlp\.shared_experts?\.(gate|up|down)_proj\.weight"
    r"|mlp\.(gate|shared_expert_gate)\.weight|mlp\.gate\.e_score_correction_bias"
    r"|mlp\.experts\.\d+\.(gate|up|down)_proj\.weight"
    r"|block_sparse_moe\.(gate|experts\.\d+\.w[123])\.weight"
)
_ATTENTION = re.compile(r"self_attn\.((q|k|v|qkv|q_a)_proj|kv_a_proj_with_mqa)\.weight")
_FEED_FORWARD = re.compile(
    r"mlp\.(experts\.\d+\.|shared_experts?\.)?(gate|up|gate_up)_proj\.weight"
    r"|block_sparse_moe\.experts\.\d+\.w[13]\.weight"
)
_ROUTERS = ("mlp.gate", "mlp.shared_expert_gate", "block_sparse_moe.gate")
_DOWN = re.compile(r"(.+\.)(down_proj|w2)\.weight")


@dataclass(frozen=True)
class Feeder:
    """A tensor, some of whose rows make what is read.

    Attributes
    ----------
    name : str
    begin : int
        The first of these rows.
    heads : int
        How many parts they come in.
    stride : int
        Rows from a part to the next.
    adds_one : bool
        Whether it is a norm that is stored without its 1.
    """

    name: str
    begin: int = 0
    heads: int = 1
    stride: int = 0
    adds_one: bool = False

    def rows(self, count: int) -> Array:
        """Return the numbers of its rows, of which there are so many."""
        within = np.arange(count // self.heads)
        return (self.begin + np.arange(self.heads)[:, None] * self.stride + within).reshape(-1)


@dataclass(frozen=True)
class Link:
    """Matrices that read the same numbers, and what makes these.

    Attributes
    ----------
    size : int
        How many numbers have a factor of their own.
    readers : sequence of str
        All matrices that have a column for each number.
    measured : sequence of str
        Those whose columns the factors make alike; routers are no such.
    feeders : sequence of Feeder
        What makes the numbers, biases too.
    copies : int
        How many heads in a row read the same ones, each of `head` numbers.
    head : int
    """

    size: int
    readers: Sequence[str]
    measured: Sequence[str]
    feeders: Sequence[Feeder]
    copies: int = 1
    head: int = 1

    def of_columns(self, factors: Array) -> Array:
        """Return what numbers have for the columns of readers."""
        heads = factors.reshape(-1, 1, self.head)
        return np.repeat(heads, self.copies, axis=1).reshape(-1)


def links_of(config: Mapping[str, Any], tensors: Sequence[Tensor]) -> list[Link] | None:
    """Find all links of a model; None where its architecture is not known.

    Parameters
    ----------
    config : mapping
        What config.json says.
    tensors : sequence of Tensor
    """
    norms = norms_of(config)
    if norms is None:
        return None
    layers: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        if found := _LAYER.fullmatch(tensor.name):
            layers.setdefault(found["layer"], {})[found["part"]] = tensor
    return [
        link
        for layer, parts in layers.items()
        if all(map(_PART.fullmatch, parts))
        for link in _Layer(layer, parts, norms, config).links()
    ]


class _Layer:
    """The links of a layer, by the names that tensors have within it."""

    def __init__(
        self, layer: str, parts: Mapping[str, Tensor], norms: Norms, config: Mapping[str, Any]
    ) -> None:
        self._layer, self._parts, self._norms, self._config = layer, parts, norms, config

    def links(self) -> Iterator[Link]:
        norms = self._norms
        yield from self._behind(norms.before_attention, self._named(_ATTENTION))
        routers = [name for router in _ROUTERS if (name := f"{router}.weight") in self._parts]
        readers = self._named(_FEED_FORWARD)
        yield from self._behind(norms.before_feed_forward, readers, routers)
        for which in ("q", "kv"):
            compressed = [f"self_attn.{which}_b_proj.weight"]
            yield from self._behind(f"self_attn.{which}_a_layernorm", compressed)
        yield from self._values()
        for name in self._named(_DOWN):
            yield from self._ups(name)

    def _named(self, pattern: re.Pattern[str]) -> list[str]:
        return [name for name in self._parts if pattern.fullmatch(name)]

    def _behind(
        self, norm: str | None, readers: Sequence[str], others: Sequence[str] = ()
    ) -> Iterator[Link]:
        """Give the link from a norm to what reads it."""
        weight = f"{norm}.weight"
        if norm is not None and all(name in self._parts for name in (weight, *readers)):
            size = self._parts[weight].shape[:1]
            feeders = [Feeder(weight, adds_one=self._norms.add_one)]
            yield from self._checked(size, [*readers, *others], readers, feeders)

    def _values(self) -> Iterator[Link]:
        """Give the link from the values of attention to its output."""
        output = "self_attn.o_proj.weight"
        heads = self._count("num_attention_heads")
        values = self._count("num_key_value_heads") or heads
        if output not in self._parts or not heads or not values or heads % values:
            return
        columns = self._parts[output].shape[-1]
        if "self_attn.kv_b_proj.weight" in self._parts:
            size, keys = self._count("v_head_dim"), self._count("qk_nope_head_dim")
            feeder = Feeder("self_attn.kv_b_proj", keys, heads, keys + size)
            yield from self._from_rows(feeder, heads * size, output)
            return
        head = columns // heads
        feeder = Feeder("self_attn.v_proj")
        if "self_attn.qkv_proj.weight" in self._parts:
            feeder = Feeder("self_attn.qkv_proj", (heads + values) * head)
        yield from self._from_rows(feeder, values * head, output, heads // values, head)

    def _ups(self, down: str) -> Iterator[Link]:
        """Give the link to a matrix from the one whose output is multiplied by a gate's."""
        found = _DOWN.fullmatch(down)
        assert found is not None
        columns = self._parts[down].shape[-1]
        feeder = Feeder(f"{found[1]}{'w3' if found[2] == 'w2' else 'up_proj'}")
        if f"{found[1]}gate_up_proj.weight" in self._parts:
            feeder = Feeder(f"{found[1]}gate_up_proj", columns)
        yield from self._from_rows(feeder, columns, down)

    def _from_rows(
        self, feeder: Feeder, size: int, reader: str, copies: int = 1, head: int = 1
    ) -> Iterator[Link]:
        """Give a link from rows of a matrix, whose bias has them too."""
        names = [f"{feeder.name}.weight", f"{feeder.name}.bias"]
        feeders = [
            Feeder(name, feeder.begin, feeder.heads, feeder.stride)
            for name in names
            if name in self._parts
        ]
        if names[0] in self._parts:
            yield from self._checked((size,), [reader], [reader], feeders, copies, head)

    def _checked(
        self,
        size: Sequence[int],
        readers: Sequence[str],
        measured: Sequence[str],
        feeders: Sequence[Feeder],
        copies: int = 1,
        head: int = 1,
    ) -> Iterator[Link]:
        """Give a link of floats, if all its shapes fit each other."""
        parts = self._parts
        if not measured or not size or not size[0]:
            return
        (count,) = size
        rows_fit = all(
            feeder.rows(count)[-1] < parts[feeder.name].shape[0]
            and (feeder.heads > 1 or feeder.begin + count == parts[feeder.name].shape[0])
            for feeder in feeders
        )
        columns_fit = all(parts[name].shape[1:] == (count * copies,) for name in readers)
        involved = [parts[name] for name in (*readers, *(feeder.name for feeder in feeders))]
        if rows_fit and columns_fit and all(map(_is_float, involved)):
            yield Link(
                count,
                [self._layer + name for name in readers],
                [self._layer + name for name in measured],
                [
                    Feeder(
                        self._layer + each.name, each.begin, each.heads, each.stride, each.adds_one
                    )
                    for each in feeders
                ],
                copies,
                head,
            )

    def _count(self, key: str) -> int:
        """Return a number that config.json has; 0 where that is none."""
        found = self._config.get(key)
        return found if type(found) is int and found > 0 else 0


def _is_float(tensor: Tensor) -> bool:
    return tensor.dtype in FLOATS and not isinstance(tensor, DECODED)
