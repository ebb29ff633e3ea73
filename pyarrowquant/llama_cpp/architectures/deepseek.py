"""DeepSeek V2 and V3, whose keys and values are made of a few numbers for each token."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from pyarrowquant._core.quoting import quoted
from pyarrowquant.errors import users_level
from pyarrowquant.llama_cpp.architecture import Architecture, Named, Part
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.rows import Change
from pyarrowquant.llama_cpp.sizes import Place, Size, Sizes, experts, feed_forward, norms
from pyarrowquant.llama_cpp.supported import check_known
from pyarrowquant.reading.gguf import import_gguf
from pyarrowquant.reading.numbers import Array
from pyarrowquant.reading.tensors import Tensor

_BOTH = ".kv_b_proj.weight"


class DeepseekV3(Architecture):
    """Experts are chosen by sigmoids, out of groups of them.

    llama.cpp attends with what keys and values are made of, by one head that all queries share,
    and has the matrices that make them apart from each other, as stacks of one for each head.
    """

    name = "deepseek2"
    classes: ClassVar[Sequence[str]] = ("DeepseekV3ForCausalLM",)
    gates = "SIGMOID"
    known: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "scoring_func": ("sigmoid",),
        "topk_method": ("noaux_tc",),
    }

    def _check(self) -> None:
        super()._check()
        said = self.hyperparameters
        if (turned := said.whole("qk_rope_head_dim")) % 2:
            raise said.contradiction(f"qk_rope_head_dim {turned} is not even")
        rank = said.whole_or_none("q_lora_rank")
        if rank is not None and self._is_lite:
            raise said.contradiction(
                f"q_lora_rank is {rank} in a model of {said.layers} layers, by which it knows "
                "models without one"
            )

    @property
    def _is_lite(self) -> bool:
        """Whether llama.cpp takes the model for one without q_lora_rank, whatever is said."""
        said = self.hyperparameters
        return said.layers in (26, 27) or (
            said.layers == 48 and said.whole("vocab_size") == 128_256
        )

    def named(self, tensor: Tensor, copied: bool) -> list[Named]:
        original = self.original(tensor.name)
        if not original.endswith(_BOTH):
            return super().named(tensor, copied)
        before, said = original.removesuffix(_BOTH), self.hyperparameters
        keys, values = self.target(f"{before}.k_b_proj.weight"), f"{before}.v_b_proj.weight"
        heads, of_key = said.heads, said.whole("qk_nope_head_dim")
        of_both = of_key + (of_value := said.whole("v_head_dim"))
        if len(tensor.shape) != 2 or tensor.shape[0] != heads * of_both:
            raise said.contradiction(
                f"{quoted(tensor.name)} of shape {list(tensor.shape)} has not num_attention_heads "
                f"{heads} x (qk_nope_head_dim {of_key} + v_head_dim {of_value}) rows"
            )
        rank = tensor.shape[1]

        def of_keys(rows: Array) -> Array:
            parted = rows.reshape(heads, of_both, rank)[:, :of_key]
            return np.ascontiguousarray(parted.swapaxes(1, 2))

        def of_values(rows: Array) -> Array:
            return np.ascontiguousarray(rows.reshape(heads, of_both, rank)[:, of_key:])

        return [
            Named(keys, Change((heads, rank, of_key), of_keys)),
            Named(self.target(values), Change((heads, of_value, rank), of_values)),
        ]

    @classmethod
    def parts(cls, original: str) -> list[Part]:
        if not original.endswith(_BOTH):
            return super().parts(original)
        # Those that make keys have other columns; older files have both as one.
        return [Part(original), Part(f"{original.removesuffix(_BOTH)}.v_b_proj.weight")]

    @classmethod
    def known_as(cls, name: str) -> str:
        return name.replace(".e_score_correction_bias", ".e_score_correction.bias")

    def _size(self, key: str) -> Size:
        value = self.hyperparameters.whole(key)
        return Size(value, f"{key} {value}")

    def layer_places(self, sizes: Sizes, layer: int) -> Iterator[Place]:
        columns, said = sizes.columns, self.hyperparameters
        yield from norms(columns, "attn_norm", "ffn_norm")
        yield from self._attention(sizes)
        if layer < said.whole("first_k_dense_replace", least=0):
            yield from feed_forward(sizes)
            return
        yield from experts(sizes, sizes.of_expert)
        if self.gates == "SIGMOID":
            yield Place("exp_probs_b.bias", (sizes.experts,))
        inner = sizes.of_expert * self._size("n_shared_experts")
        yield Place("ffn_gate_shexp.weight", (inner, columns))
        yield Place("ffn_up_shexp.weight", (inner, columns))
        yield Place("ffn_down_shexp.weight", (columns, inner))

    def _attention(self, sizes: Sizes) -> Iterator[Place]:
        columns, heads, rank = sizes.columns, sizes.heads, self._size("kv_lora_rank")
        of_key, turned = self._size("qk_nope_head_dim"), self._size("qk_rope_head_dim")
        of_value, queries = self._size("v_head_dim"), heads * (of_key + turned)
        if self.hyperparameters.whole_or_none("q_lora_rank") is None:
            yield Place("attn_q.weight", (queries, columns))
        else:
            query_rank = self._size("q_lora_rank")
            yield Place("attn_q_a.weight", (query_rank, columns))
            yield from norms(query_rank, "attn_q_a_norm")
            yield Place("attn_q_b.weight", (queries, query_rank))
        yield Place("attn_kv_a_mqa.weight", (rank + turned, columns))
        yield from norms(rank, "attn_kv_a_norm")
        yield Place("attn_k_b.weight", (heads, rank, of_key))
        yield Place("attn_v_b.weight", (heads, of_value, rank))
        yield Place("attn_output.weight", (columns, heads * of_value))

    def describe_heads(self, metadata: Metadata) -> None:
        said, add = self.hyperparameters, metadata.add
        rank, turned = said.whole("kv_lora_rank"), said.whole("qk_rope_head_dim")
        add.add_head_count_kv(1)
        add.add_key_length(rank + turned)
        add.add_value_length(rank)
        add.add_key_length_mla(said.whole("qk_nope_head_dim") + turned)
        add.add_value_length_mla(said.whole("v_head_dim"))
        add.add_kv_lora_rank(rank)
        query_rank = said.whole_or_none("q_lora_rank") or 0
        if query_rank or not self._is_lite:  # where llama.cpp asks for it
            add.add_q_lora_rank(query_rank)
        add.add_rope_dimension_count(turned)

    def describe(self, metadata: Metadata) -> None:
        super().describe(metadata)
        said, add = self.hyperparameters, metadata.add
        check_known(said, self.known, self.model_class)
        add.add_vocab_size(said.whole("vocab_size"))
        add.add_leading_dense_block_count(said.whole("first_k_dense_replace", least=0))
        add.add_expert_feed_forward_length(said.whole("moe_intermediate_size"))
        add.add_expert_shared_count(said.whole("n_shared_experts"))
        add.add_expert_weights_scale(said.positive("routed_scaling_factor"))
        add.add_expert_weights_norm(said.flag("norm_topk_prob", False))
        add.add_expert_gating_func(import_gguf("Writing").ExpertGatingFuncType[self.gates])
        self._describe_groups(metadata)

    def _describe_groups(self, metadata: Metadata) -> None:
        """Add of how many groups of experts how many are taken, if not all."""
        said, count = self.hyperparameters, self.hyperparameters.whole("n_routed_experts")
        groups = said.whole_or_none("n_group") or 1
        taken = groups if groups == 1 else said.whole("topk_group")
        if count % groups or (groups > 1 and groups == count):
            raise said.contradiction(f"n_routed_experts {count} does not make {groups} groups")
        if taken > groups:
            raise said.contradiction(f"topk_group {taken} is above n_group {groups}")
        if taken < groups:
            metadata.add.add_expert_group_count(groups)
            metadata.add.add_expert_group_used_count(taken)


class DeepseekV2(DeepseekV3):
    """Experts are chosen by softmax, of all or of groups."""

    classes: ClassVar[Sequence[str]] = ("DeepseekV2ForCausalLM",)
    gates = "SOFTMAX"
    known: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "scoring_func": ("softmax",),
        "topk_method": ("greedy", "group_limited_greedy"),
        "norm_topk_prob": (False,),
    }

    def _describe_groups(self, metadata: Metadata) -> None:
        said = self.hyperparameters
        if said.get("topk_method") != "group_limited_greedy":
            return
        super()._describe_groups(metadata)
        warnings.warn(
            f"'{said.path}': topk_method is group_limited_greedy, which takes the groups with the "
            "best expert each, and llama.cpp those whose two best are best together, so that it "
            "computes something else for some tokens",
            UserWarning,
            stacklevel=users_level(),
        )
