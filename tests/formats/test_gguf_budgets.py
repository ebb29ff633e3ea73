"""What a budget of bits chooses for GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from pyarrowquant import Recipe, Rule, convert

KINDS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
K_QUANTS = {"Q2_K", "Q3_K", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0"}
BLOCKS = {"MXFP4", "IQ4_NL", "Q4_1", "Q5_0", "Q5_1", "Q8_0"}


def saved(path: Path, columns: int = 256, head: str | None = "output") -> Path:
    """Write a model whose tensors have weights of the same kind, but of all sizes."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    names = [f"blk.{i}.{kind}" for i in range(3) for kind in KINDS]
    for name in [*names, "token_embd", *([head] if head else [])]:
        weights = rng.standard_normal((64, columns), np.float32) * 10 ** rng.uniform(-2, 1)
        writer.add_tensor(f"{name}.weight", weights.astype(np.float32))
    writer.add_tensor("blk.0.attn_norm.weight", np.ones(columns, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def types(path: Path) -> dict[str, str]:
    return {
        tensor.name.removesuffix(".weight"): tensor.tensor_type.name
        for tensor in gguf.GGUFReader(path).tensors
    }


def bits(kind: str) -> float:
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    return 8 * size / block


@pytest.mark.parametrize(("columns", "known"), [(256, K_QUANTS), (96, BLOCKS)])
@pytest.mark.parametrize("budget", [4.5, 5, 5.7, 7])
def test_types_are_those_that_fit_the_columns(
    tmp_path: Path, columns: int, known: set[str], budget: float
) -> None:
    done = convert(saved(tmp_path / "m.gguf", columns), tmp_path / "s.gguf", bits_per_weight=budget)
    found = types(tmp_path / "s.gguf")
    assert found.pop("blk.0.attn_norm") == "F32"
    assert set(found.values()) <= known
    assert budget - 0.3 < done.bits_per_weight <= budget
    assert done.bits_per_weight == pytest.approx(np.mean([bits(each) for each in found.values()]))


def test_what_matters_more_gets_more_bits_whatever_the_size_of_its_weights(tmp_path: Path) -> None:
    convert(saved(tmp_path / "m.gguf"), tmp_path / "s.gguf", bits_per_weight=4.8)
    found = types(tmp_path / "s.gguf")
    mean = {kind: np.mean([bits(found[f"blk.{i}.{kind}"]) for i in range(3)]) for kind in KINDS}
    assert mean["attn_v"] > mean["attn_k"] >= mean["ffn_up"] >= mean["ffn_gate"]
    assert mean["ffn_down"] >= mean["attn_q"]
    assert bits(found["output"]) > bits(found["token_embd"])


def test_embeddings_that_are_the_head_too_count_as_it(tmp_path: Path) -> None:
    for name, head in (("tied", None), ("untied", "output")):
        convert(saved(tmp_path / f"{name}.gguf", head=head), tmp_path / "s.gguf", bits_per_weight=5)
        found = bits(types(tmp_path / "s.gguf")["token_embd"])
        (tmp_path / "s.gguf").unlink()
        assert (found > 5) is (name == "tied")


def test_types_that_a_recipe_says_hold(tmp_path: Path) -> None:
    recipe = Recipe([Rule("blk.0.*", encoding="q6_k"), Rule("blk.1.*", zero_point="integer")])
    source = saved(tmp_path / "m.gguf")
    convert(source, tmp_path / "s.gguf", bits_per_weight=5.6, recipe=recipe)
    found = types(tmp_path / "s.gguf")
    assert {found[f"blk.0.{kind}"] for kind in KINDS} == {"Q6_K"}
    assert {found[f"blk.1.{kind}"] for kind in KINDS} <= {"Q4_1", "Q5_1"}
    convert(source, tmp_path / "h.gguf", bits_per_weight=5.6, method="hqq", zero_point="float")
    assert set(types(tmp_path / "h.gguf").values()) <= {"Q4_1", "Q5_1", "F32"}


@pytest.mark.parametrize("options", [{}, {"recipe": "local"}])
def test_hqq_has_8_bits_of_mse_for_embeddings(tmp_path: Path, options: dict[str, Any]) -> None:
    source = saved(tmp_path / "m.gguf")
    convert(source, tmp_path / "h.gguf", method="hqq", zero_point="float", **options)
    convert(source, tmp_path / "m4.gguf", method="mse", zero_point="float", **options)
    assert types(tmp_path / "h.gguf") == types(tmp_path / "m4.gguf")
    assert types(tmp_path / "h.gguf")["token_embd"] == "Q8_0"


def test_other_sources_have_the_same_types(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {f"{i}.weight": rng.standard_normal((64, 256), np.float32) for i in range(9)}
    save_file(weights, tmp_path / "m.safetensors")
    done = convert(tmp_path / "m.safetensors", tmp_path / "s.gguf", bits_per_weight=4)
    assert 3.7 < done.bits_per_weight <= 4
    assert set(types(tmp_path / "s.gguf").values()) <= K_QUANTS
