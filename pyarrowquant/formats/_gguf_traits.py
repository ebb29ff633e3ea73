"""What llama.cpp's mixes go by: the tensors of a model, and what it says of its architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyarrowquant.formats._gguf_mxfp4 import TYPE as MXFP4
from pyarrowquant.formats._gguf_mxfp4 import Mxfp4Stack
from pyarrowquant.llama_cpp.models import LlamaCppModel
from pyarrowquant.llama_cpp.names import layer_of
from pyarrowquant.reading.gguf import GgufModel
from pyarrowquant.reading.tensors import CodedTensor, Tensor


@dataclass(frozen=True)
class Traits:
    """What decides about the types of tensors.

    Attributes
    ----------
    shapes : mapping of str to tuple of int
        Of all tensors.
    architecture : str
    layers : int
        Of the whole model.
    heads, shared_heads : int
        Of queries, and of keys and values, in the first layer; 0 where the model does not say.
    experts : int
        At least 1.
    mxfp4 : frozenset of str
        Names of tensors that are MXFP4 already.
    """

    shapes: Mapping[str, tuple[int, ...]]
    architecture: str = ""
    layers: int = 0
    heads: int = 0
    shared_heads: int = 0
    experts: int = 1
    mxfp4: frozenset[str] = frozenset()

    @property
    def has_grouped_queries(self) -> bool:
        """Whether four heads of queries or more share one of keys and values."""
        return self.shared_heads > 0 and self.heads // self.shared_heads >= 4

    @property
    def is_of_80_layers(self) -> bool:
        """Whether it is one of the models of 70B that llama.cpp has a rule for."""
        return self.layers == 80 and self.heads != self.shared_heads


def traits_of(model: object) -> Traits | None:
    """Return what mixes go by; None for a model that is none of llama.cpp."""
    if not isinstance(model, LlamaCppModel):
        return None
    shapes = {tensor.name: tensor.shape for tensor in model.all_tensors if model.is_read(tensor)}
    architecture = model.header.value("general.architecture")
    if not isinstance(architecture, str):
        return Traits(shapes, layers=_layers_in(shapes))

    def number(key: str) -> int:
        said = model.header.value(f"{architecture}.{key}")
        if isinstance(said, list):  # one for each layer
            said = said[0] if said else 0
        return said if isinstance(said, int) else 0

    heads = number("attention.head_count")
    return Traits(
        shapes,
        architecture,
        number("block_count") or _layers_in(shapes),
        heads,
        number("attention.head_count_kv") or heads,
        max(1, number("expert_count")),
        frozenset(tensor.name for tensor in model.tensors if _is_mxfp4(tensor, model)),
    )


def _is_mxfp4(tensor: Tensor, model: LlamaCppModel) -> bool:
    if isinstance(model, GgufModel):
        return isinstance(tensor, CodedTensor) and tensor.coding == MXFP4
    return Mxfp4Stack.of(tensor) is not None


def _layers_in(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return 1 + max(map(layer_of, shapes), default=-1)
