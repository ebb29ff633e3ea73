"""gpt-oss, whose experts are published as MXFP4."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

from pyarrowquant.llama_cpp.architecture import Architecture, Named
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.rows import Change, after, part, turned
from pyarrowquant.llama_cpp.sizes import (
    Place,
    Sizes,
    attention,
    attention_biases,
    experts,
    norms,
)
from pyarrowquant.reading.tensors import CodedTensor, Tensor

_EXPERTS = re.compile(
    r"(?P<before>.+\.mlp\.experts)\.(?P<matrix>gate_up|down)_proj(?P<bias>_bias)?"
)


class GptOss(Architecture):
    """Sinks of attention, biases everywhere, and stacks whose rows are gates and what goes up.

    These rows lie in turns. Floats of experts are published with rows and columns changed, codes
    are not.
    """

    name = "gpt-oss"
    classes: ClassVar[Sequence[str]] = ("GptOssForCausalLM",)
    needs_head = True

    def named(self, tensor: Tensor, copied: bool) -> list[Named]:
        found = _EXPERTS.fullmatch(self.original(tensor.name))
        if found is None:
            return super().named(tensor, copied)
        before, kind = found["before"], "bias" if found["bias"] else "weight"
        is_coded = isinstance(tensor, CodedTensor)
        shape, change = tensor.shape, None
        if len(shape) == 3 and not is_coded:
            change = turned(shape)
            shape = change.shape
        if found["matrix"] == "down":
            return [Named(self.target(f"{before}.down_proj.{kind}"), change)]
        if len(shape) < 2:  # which is told of with its shape
            return [Named(self.target(f"{before}.gate_proj.{kind}"), change)]
        return [
            Named(self.target(f"{before}.{matrix}_proj.{kind}"), _every_other(shape, first, change))
            for first, matrix in enumerate(("gate", "up"))
        ]

    @classmethod
    def known_as(cls, name: str) -> str:
        return f"{name}.weight" if name.endswith(".sinks") else name

    def layer_places(self, sizes: Sizes, layer: int) -> Iterator[Place]:
        columns, count, inner = sizes.columns, sizes.experts, sizes.inner
        yield from norms(columns, "attn_norm", "post_attention_norm")
        yield from attention(sizes)
        yield from attention_biases(sizes)
        yield Place("attn_output.bias", (columns,))
        yield Place("attn_sinks.weight", (sizes.heads,))
        yield from experts(sizes, inner)
        yield Place("ffn_gate_inp.bias", (count,))
        yield Place("ffn_gate_exps.bias", (count, inner))
        yield Place("ffn_up_exps.bias", (count, inner))
        yield Place("ffn_down_exps.bias", (count, columns))

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        inner = self.hyperparameters.whole("intermediate_size")
        metadata.add.add_expert_feed_forward_length(inner)


def _every_other(shape: tuple[int, ...], first: int, before: Change | None) -> Change:
    """Take one row of two; those of a matrix of biases are its columns."""
    taken = part(shape, 1, first, shape[1], 2)
    return taken if before is None else after(before, taken)
