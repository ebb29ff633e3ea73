"""What the architectures have in common; each has a module of its own beside this one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pyarrowquant._core.quoting import quoted
from pyarrowquant.llama_cpp.class_defaults import family_of
from pyarrowquant.llama_cpp.hyperparameters import Hyperparameters
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.rope import describe_rope, rope_factors
from pyarrowquant.llama_cpp.rows import Change, part
from pyarrowquant.llama_cpp.sizes import Place, Sizes, attention, feed_forward, norms
from pyarrowquant.llama_cpp.supported import check_values
from pyarrowquant.llama_cpp.windows import describe_windows
from pyarrowquant.reading.gguf import import_gguf
from pyarrowquant.reading.numbers import Array
from pyarrowquant.reading.tensors import Tensor

# Tables that code computes, and parts that are no text models.
_UNUSED = re.compile(
    r"(\.attention\.(masked_)?bias|\.rotary_emb\.inv_freq|\.rotary_emb\.(cos|sin)_cached|"
    r"(^|\.)embeddings\.position_ids)$"
)
_OTHER_MODELS = re.compile(
    r"(^|\.)(vision_tower|vision_model|visual|vision_embed_tokens|audio_tower|audio_model|"
    r"multi_modal_projector|mm_projector|projector|image_newline)\."
)
HEAD = "lm_head.weight"
_EMBEDDINGS = "model.embed_tokens.weight"
_LAYER = re.compile(r"(?:^|\.)layers?\.(\d{1,9})\.")
# The most that llama.cpp has room for.
MOST_LAYERS = 512
_MOST_EXPERTS = 512
# One of several feed-forward parts, each of which is a module.
_EXPERT = re.compile(
    r"(?P<before>.+\.experts)\.(?P<number>\d{1,9})\.(?P<matrix>w[123]|(gate|up|down)_proj)\.weight"
)
# All of them as stacks, of which gates and what goes up are one.
_FUSED = re.compile(r"(?P<before>.+\.experts)\.(?P<matrix>gate_up_proj|down_proj)(\.weight)?")


@dataclass(frozen=True)
class Named:
    """A tensor of the output, and what is done to get it.

    Attributes
    ----------
    expert : int or None
        Which matrix of a stack it is.
    """

    name: str
    change: Change | None = None
    expert: int | None = None


@dataclass(frozen=True)
class Part:
    """A tensor that has rows of another, or that another is a matrix of; the columns are the same.

    Attributes
    ----------
    name : str
        Not llama.cpp's.
    expert : int or None
        Which matrix of it the other is.
    """

    name: str
    expert: int | None = None


@dataclass(frozen=True)
class Added:
    """A tensor that the source lacks."""

    name: str
    array: Array


class Architecture:
    """How models of some classes of transformers become what llama.cpp loads.

    Attributes
    ----------
    name : str
        What llama.cpp calls it.
    classes : sequence of str
        Of transformers, as in config.json.
    bases : sequence of str
        Those of them whose tensors lack the prefix "model.", as they have no head.
    has_own_head_size : bool
        Whether llama.cpp has heads of another size than their part of all columns.
    has_head : bool
        Whether llama.cpp has a head that is not the embeddings.
    needs_head : bool
        Whether it has the embeddings as a head only where they are there twice.
    ties : bool
        Whether transformers has the embeddings as the head where config.json does not say it.
    pooling : str or None
        How embeddings of tokens make that of a text, where no file says it.
    ignored : sequence of str
        Keys of config.json that say nothing of it, though they do of others.
    """

    name: ClassVar[str]
    classes: ClassVar[Sequence[str]]
    bases: ClassVar[Sequence[str]] = ()
    has_own_head_size: ClassVar[bool] = True
    has_head: ClassVar[bool] = True
    needs_head: ClassVar[bool] = False
    ties: ClassVar[bool] = False
    pooling: ClassVar[str | None] = None
    ignored: ClassVar[Sequence[str]] = ()

    def __init__(self, hyperparameters: Hyperparameters, model_class: str) -> None:
        self.hyperparameters = hyperparameters.without(self.ignored)
        self.model_class = model_class
        self._check()
        gguf = import_gguf("Writing")
        kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
        self._names = gguf.get_tensor_name_map(kinds[self.name], hyperparameters.layers)

    def _check(self) -> None:
        """Raise where llama.cpp would end the process, or lacks what config.json says."""
        said = self.hyperparameters
        columns, heads = said.whole("hidden_size", "n_embd", "dim"), said.heads
        own = said.whole_or_none("head_dim")
        if said.layers > MOST_LAYERS:
            raise said.contradiction(f"num_hidden_layers {said.layers} is above {MOST_LAYERS}")
        if heads % said.key_value_heads:
            raise said.contradiction(
                f"num_attention_heads {heads} is no multiple of num_key_value_heads "
                f"{said.key_value_heads}"
            )
        if own is None and columns % heads:
            raise said.contradiction(f"hidden_size {columns} does not make {heads} heads")
        if own is not None and not self.has_own_head_size and own * heads != columns:
            raise said.contradiction(
                f"head_dim {own} is not hidden_size {columns} / num_attention_heads {heads}"
            )
        if (size := own or columns // heads) % 2:
            raise said.contradiction(f"heads of {size} columns, which must be even")
        if said.experts is not None and said.experts > _MOST_EXPERTS:
            raise said.contradiction(f"{said.experts} experts are more than {_MOST_EXPERTS}")
        if not self.has_head and not self.is_tied:
            raise said.contradiction("tie_word_embeddings is false")

    @property
    def is_tied(self) -> bool:
        """Whether the embeddings are the head."""
        return self.hyperparameters.flag("tie_word_embeddings", self.ties)

    def unused(self, name: str) -> str | None:
        """Say why a tensor of the source is not needed, or None."""
        if _UNUSED.search(name):
            return "which llama.cpp computes itself"
        if _OTHER_MODELS.search(name):
            return "of parts that are not text models"
        layers = self.hyperparameters.layers
        layer = _LAYER.search(name)
        if layer is not None and int(layer[1]) >= layers:
            return f"of layers beyond the {layers} that config.json says"
        return None

    @classmethod
    def within(cls, name: str) -> str:
        """Return a tensor's name without what classes around the text model put before it."""
        name = re.sub(r"^(model\.)?(language_model\.|text_model\.)(model\.)?", "model.", name)
        return HEAD if name == f"model.{HEAD}" else name

    def original(self, name: str) -> str:
        """Return the name by which a tensor's place in the model is known."""
        name = self.within(name)
        return f"model.{name}" if self.model_class in self.bases else name

    @classmethod
    def parts(cls, original: str) -> list[Part]:
        """Return the tensors that have the columns of one."""
        if expert := _EXPERT.fullmatch(original):
            return [Part(f"{expert['before']}.{expert['matrix']}.weight", int(expert["number"]))]
        if fused := _FUSED.fullmatch(original):
            is_both = fused["matrix"] == "gate_up_proj"
            matrices = ("gate_proj", "up_proj") if is_both else ("down_proj",)
            return [Part(f"{fused['before']}.{matrix}.weight") for matrix in matrices]
        return [Part(original)]

    def named(self, tensor: Tensor, copied: bool) -> list[Named]:
        """Return what becomes of a tensor; mostly it gets another name.

        Parameters
        ----------
        tensor : Tensor
        copied : bool
            Whether embeddings become a head too.
        """
        original, shape = self.original(tensor.name), tensor.shape
        first, *others = self.parts(original)
        if others and len(shape) > 1:  # else it is told of with its shape
            half, (second,) = shape[1] // 2, others
            return [
                Named(self.target(first.name), part(shape, 1, 0, half)),
                Named(self.target(second.name), part(shape, 1, half, shape[1])),
            ]
        found = [Named(self.target(first.name), self.change(original, shape), first.expert)]
        if copied and original == _EMBEDDINGS:
            found.append(Named(self.target(HEAD)))
        return found

    def copies_embeddings(self, names: Iterable[str]) -> bool:
        """Whether tensors of these names lack a head that llama.cpp reads."""
        if not self.needs_head or not self.is_tied:
            return False
        return all(self.original(name) != HEAD for name in names)

    def change(self, name: str, shape: tuple[int, ...]) -> Change | None:
        """Return what is done to a tensor."""
        return None

    def target(self, name: str) -> str:
        """Return llama.cpp's name of a tensor."""
        found = self._names.get_name(self.known_as(name), (".weight", ".bias"))
        if found is None:
            raise ValueError(
                f"'{self.hyperparameters.path}' has the class {self.model_class}, and llama.cpp's "
                f"{self.name!r} has no tensor for {quoted(name)}. Give the safetensors file "
                "itself to quantize with tensors_only=True, to write its tensors under their own "
                "names"
            )
        return str(found)

    @classmethod
    def known_as(cls, name: str) -> str:
        """Return what gguf calls a tensor of transformers."""
        return name

    def outer_places(self, sizes: Sizes) -> Iterator[Place]:
        """Give the tensors of no layer."""
        columns, vocabulary = sizes.columns, sizes.vocabulary
        yield Place("token_embd.weight", (vocabulary, columns))
        yield from norms(columns, "output_norm")
        if self.has_head:
            is_base = self.model_class in self.bases
            needed = self.needs_head or not (self.is_tied or is_base)
            yield Place("output.weight", (vocabulary, columns), needed)

    def layer_places(self, sizes: Sizes, layer: int) -> Iterator[Place]:
        """Give the tensors of a layer, without its number."""
        yield from norms(sizes.columns, "attn_norm", "ffn_norm")
        yield from attention(sizes)
        yield from feed_forward(sizes)

    def added(self) -> list[Added]:
        """Return tensors that the source lacks."""
        factors = rope_factors(self.hyperparameters, self.name)
        return [Added(name, array) for name, array in factors.items()]

    def context(self) -> int:
        """Return how many tokens the model takes."""
        return self.hyperparameters.whole("max_position_embeddings", "n_ctx", "n_positions")

    def describe(self, metadata: Metadata) -> None:
        """Add the keys that llama.cpp needs."""
        said, add = self.hyperparameters, metadata.add
        check_values(said, self.name)
        add.add_block_count(said.layers)
        add.add_context_length(self.context())
        add.add_embedding_length(said.whole("hidden_size", "n_embd", "dim"))
        add.add_feed_forward_length(said.whole("intermediate_size", "n_inner", "hidden_dim"))
        add.add_head_count(said.heads)
        self.describe_heads(metadata)
        describe_rope(said, metadata)
        describe_windows(said, family_of(self.model_class), metadata)
        if (epsilon := said.not_negative_or_none("rms_norm_eps", "norm_eps")) is not None:
            add.add_layer_norm_rms_eps(epsilon)
        epsilon = said.not_negative_or_none("layer_norm_eps", "layer_norm_epsilon")
        if epsilon is not None:
            add.add_layer_norm_eps(epsilon)
        if said.experts:
            add.add_expert_count(said.experts)
            used = said.whole("num_experts_per_tok", "num_experts_per_token")
            if used > said.experts:
                raise said.contradiction(
                    f"num_experts_per_tok {used} is above the {said.experts} experts"
                )
            add.add_expert_used_count(used)

    def describe_heads(self, metadata: Metadata) -> None:
        """Add the keys of the heads of keys and values, and of their sizes."""
        said, add = self.hyperparameters, metadata.add
        add.add_head_count_kv(said.key_value_heads)
        if (size := said.whole_or_none("head_dim")) is not None:
            add.add_key_length(size)
            add.add_value_length(size)
