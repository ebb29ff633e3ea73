"""What the architectures have in common; each has a module of its own beside this one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pyarrowquant._core.quoting import quoted
from pyarrowquant.llama_cpp.class_defaults import family_of
from pyarrowquant.llama_cpp.hyperparameters import Hyperparameters
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.rope import describe_rope, rope_factors
from pyarrowquant.llama_cpp.rows import Change
from pyarrowquant.llama_cpp.supported import check_values
from pyarrowquant.llama_cpp.windows import describe_windows
from pyarrowquant.reading.gguf import import_gguf
from pyarrowquant.reading.numbers import Array

# Tables that code computes, and parts that are no text models.
_UNUSED = re.compile(
    r"(\.attention\.(masked_)?bias|\.rotary_emb\.inv_freq|\.rotary_emb\.(cos|sin)_cached|"
    r"(^|\.)embeddings\.position_ids)$"
)
_OTHER_MODELS = re.compile(
    r"(^|\.)(vision_tower|vision_model|visual|vision_embed_tokens|audio_tower|audio_model|"
    r"multi_modal_projector|mm_projector|projector|image_newline)\."
)
# One of several feed-forward parts, each of which is a module.
_EXPERT = re.compile(
    r"(?P<before>.+\.experts)\.(?P<number>\d+)\.(?P<matrix>w[123]|(gate|up|down)_proj)\.weight"
)


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
    """

    name: ClassVar[str]
    classes: ClassVar[Sequence[str]]
    bases: ClassVar[Sequence[str]] = ()

    def __init__(self, hyperparameters: Hyperparameters, model_class: str) -> None:
        self.hyperparameters = hyperparameters
        self.model_class = model_class
        gguf = import_gguf("Writing")
        kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
        self._names = gguf.get_tensor_name_map(kinds[self.name], hyperparameters.layers)

    def unused(self, name: str) -> str | None:
        """Say why a tensor of the source is not needed, or None."""
        if _UNUSED.search(name):
            return "which llama.cpp computes itself"
        return "of parts that are not text models" if _OTHER_MODELS.search(name) else None

    def original(self, name: str) -> str:
        """Return the name by which a tensor's place in the model is known."""
        name = re.sub(r"^(model\.)?(language_model\.|text_model\.)(model\.)?", "model.", name)
        name = "lm_head.weight" if name == "model.lm_head.weight" else name
        return f"model.{name}" if self.model_class in self.bases else name

    def named(self, name: str, shape: tuple[int, ...]) -> list[Named]:
        """Return what becomes of a tensor; mostly it gets another name."""
        original = self.original(name)
        if expert := _EXPERT.fullmatch(original):
            stack = f"{expert['before']}.{expert['matrix']}.weight"
            return [Named(self.target(stack), None, int(expert["number"]))]
        return [Named(self.target(original), self.change(original, shape))]

    def change(self, name: str, shape: tuple[int, ...]) -> Change | None:
        """Return what is done to a tensor."""
        return None

    def target(self, name: str) -> str:
        """Return llama.cpp's name of a tensor."""
        found = self._names.get_name(name, (".weight", ".bias"))
        if found is None:
            raise ValueError(
                f"'{self.hyperparameters.path}' has the class {self.model_class}, and llama.cpp's "
                f"{self.name!r} has no tensor for {quoted(name)}. Give the safetensors file "
                "itself, to write its tensors under their own names"
            )
        return str(found)

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
        add.add_head_count_kv(said.key_value_heads)
        describe_rope(said, metadata)
        describe_windows(said, family_of(self.model_class), metadata)
        if (epsilon := said.number_or_none("rms_norm_eps", "norm_eps")) is not None:
            add.add_layer_norm_rms_eps(epsilon)
        if (epsilon := said.number_or_none("layer_norm_eps", "layer_norm_epsilon")) is not None:
            add.add_layer_norm_eps(epsilon)
        if said.experts:
            add.add_expert_count(said.experts)
            add.add_expert_used_count(said.whole("num_experts_per_tok", "num_experts_per_token"))
        if (size := said.whole_or_none("head_dim")) is not None:
            add.add_key_length(size)
            add.add_value_length(size)
