"""Encodings as types of ggml, judged by gguf, and llama.cpp's mixes of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf_models import llama, written

import pyarrowquant
from pyarrowquant import (
    Recipe,
    Rule,
    UsageError,
    convert,
    dequantize_batch_arrow,
    plan,
    quantize_batch_arrow,
)
from pyarrowquant.formats import write_gguf

TYPES = {
    "q2_k": "Q2_K",
    "q3_k": "Q3_K",
    "q4_k": "Q4_K",
    "q5_k": "Q5_K",
    "q6_k": "Q6_K",
    "iq4_nl": "IQ4_NL",
    "iq4_xs": "IQ4_XS",
    "mxfp4": "MXFP4",
}
WITH_MINIMUMS = ("q2_k", "q4_k", "q5_k")
RNG = np.random.default_rng(1)


def weights(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / 50).astype(np.float32)


def saved(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)
    return path


def tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def decoded(tensor: Any) -> np.ndarray:
    return gguf.dequantize(tensor.data, tensor.tensor_type)


def kinds(path: Path) -> dict[str, str]:
    return {name: tensor.tensor_type.name for name, tensor in tensors(path).items()}


@pytest.mark.parametrize("method", ["rtn", "mse"])
@pytest.mark.parametrize("encoding", TYPES)
def test_gguf_decodes_what_the_table_has(encoding: str, method: str, tmp_path: Path) -> None:
    model = {"a.weight": weights(5, 512), "b.weight": weights(256, 256) * 1000}
    model["a.weight"][1] = 0
    table = pyarrowquant.numpy_to_arrow_table(model)
    result = quantize_batch_arrow(table, encoding=encoding, method=method)
    wanted = dequantize_batch_arrow(result)
    for data in (result, result.to_reader()):
        write_gguf(data, tmp_path / "x.gguf", overwrite=True)
        found = tensors(tmp_path / "x.gguf")
        for row in wanted.to_pylist():
            tensor = found[row["layer_name"]]
            assert tensor.tensor_type.name == TYPES[encoding]
            got, want = decoded(tensor).ravel(), np.array(row["weights"], np.float32)
            if encoding in WITH_MINIMUMS:
                # scale*q and the minimum are each within the range of the weights
                assert np.abs(got - want).max() <= 2.0**-21 * 4 * np.abs(want).max()
            else:
                assert np.array_equal(got, want)


# What llama-quantize gives, by hand from its rules for a model of 16 layers.
EIGHTHS_AND_THIRDS = {0, 1, 4, 7, 10, 13, 14, 15}
MIXES: dict[str, dict[str, str]] = {
    "Q4_K_M": {
        "rest": "Q4_K",
        **{f"blk.{i}.{k}": "Q6_K" for i in EIGHTHS_AND_THIRDS for k in ("attn_v", "ffn_down")},
    },
    "Q5_K_M": {
        "rest": "Q5_K",
        **{f"blk.{i}.{k}": "Q6_K" for i in EIGHTHS_AND_THIRDS for k in ("attn_v", "ffn_down")},
    },
    "Q4_K_S": {
        "rest": "Q4_K",
        **{f"blk.{i}.attn_v": "Q5_K" for i in range(4)},
        **{f"blk.{i}.ffn_down": "Q5_K" for i in range(2)},
    },
    "Q5_K_S": {"rest": "Q5_K"},
    "Q6_K": {"rest": "Q6_K"},
    "Q3_K_S": {"rest": "Q3_K"},
    "Q3_K_M": {
        "rest": "Q3_K",
        **{f"blk.{i}.{k}": "Q4_K" for i in range(16) for k in ("attn_v", "ffn_down")},
        **{f"blk.{i}.attn_output": "Q4_K" for i in range(16)},
        **{"blk.0.attn_v": "Q5_K", "blk.1.attn_v": "Q5_K", "blk.0.ffn_down": "Q5_K"},
    },
    "Q3_K_L": {
        "rest": "Q3_K",
        **{
            f"blk.{i}.{k}": "Q5_K" for i in range(16) for k in ("attn_v", "ffn_down", "attn_output")
        },
    },
    "Q2_K": {
        "rest": "Q2_K",
        **{
            f"blk.{i}.{k}": "Q3_K" for i in range(16) for k in ("attn_v", "ffn_down", "attn_output")
        },
    },
    "IQ4_NL": {"rest": "IQ4_NL", "blk.0.ffn_down": "Q5_K", "blk.1.ffn_down": "Q5_K"},
    "IQ4_XS": {"rest": "IQ4_XS", "blk.0.ffn_down": "Q5_K", "blk.1.ffn_down": "Q5_K"},
}
FILE_TYPES = {"Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18, "Q2_K": 10, "IQ4_XS": 30}


@pytest.mark.parametrize("name", MIXES)
def test_mixes_are_those_of_llama_quantize(name: str, tmp_path: Path) -> None:
    source = llama(tmp_path / "m.gguf", layers=16)
    convert(source, tmp_path / "x.gguf", recipe=name)
    mix = MIXES[name]
    for tensor, kind in kinds(tmp_path / "x.gguf").items():
        if tensor.endswith("norm.weight"):
            assert kind == "F32"
        elif tensor == "output.weight":
            assert kind == "Q6_K"
        else:
            assert kind == mix.get(tensor.removesuffix(".weight"), mix["rest"]), tensor
    if name in FILE_TYPES:
        field = gguf.GGUFReader(tmp_path / "x.gguf").fields["general.file_type"]
        assert field.contents() == FILE_TYPES[name]


def test_tied_embeddings_are_the_head(tmp_path: Path) -> None:
    convert(llama(tmp_path / "m.gguf", layers=1, tied=True), tmp_path / "x.gguf", recipe="Q4_K_M")
    assert kinds(tmp_path / "x.gguf")["token_embd.weight"] == "Q6_K"


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("Q2_K", "Q4_0"),
        ("Q4_K_S", "Q5_0"),
        ("Q5_K_S", "Q5_1"),
        ("Q6_K", "Q8_0"),
        ("IQ4_XS", "IQ4_NL"),
    ],
)
def test_rows_of_no_whole_blocks_get_what_llama_cpp_gives_them(
    name: str, instead: str, tmp_path: Path
) -> None:
    """Layer 9 is none of those that a mix raises, but of Q2_K, which gives it Q3_K."""
    source = llama(tmp_path / "m.gguf", layers=16, odd=9)
    with pytest.warns(UserWarning, match=r"rows are no whole blocks .*: blk\.9\.ffn_down\.weight"):
        convert(source, tmp_path / "x.gguf", recipe=name)
    assert kinds(tmp_path / "x.gguf")["blk.9.ffn_down.weight"] == instead


@pytest.mark.parametrize("encoding", TYPES)
def test_an_encoding_for_all_layers(encoding: str, tmp_path: Path) -> None:
    source = llama(tmp_path / "m.gguf", layers=2)
    done = convert(source, tmp_path / "x.gguf", encoding=encoding)
    count = Counter(kinds(tmp_path / "x.gguf").values())
    assert count[TYPES[encoding]] == 14
    read = 8 * sum(
        int(tensor.n_bytes)
        for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors
        if tensor.tensor_type.name not in ("F32", "Q8_0")
        or "token" in tensor.name
        or "output." in tensor.name
    )
    assert done.bits_per_weight == pytest.approx(read / done.weights)


def test_recipes_mix_encodings_and_legacy_types(tmp_path: Path) -> None:
    source = llama(tmp_path / "m.gguf", layers=1)
    recipe = Recipe(
        [
            Rule("*attn_*", encoding="q5_k"),
            Rule("*ffn_down*", encoding="mxfp4"),
            Rule("*norm*", skip=True),
        ]
    )
    convert(source, tmp_path / "x.gguf", recipe=recipe)
    found = kinds(tmp_path / "x.gguf")
    assert found["blk.0.attn_q.weight"] == "Q5_K"
    assert found["blk.0.ffn_down.weight"] == "MXFP4"
    assert found["blk.0.ffn_up.weight"] == "Q4_0"


def test_mixes_are_for_models_of_llama_cpp(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", a=weights(64, 256))
    with pytest.raises(ValueError, match=r"recipe 'Q4_K_M' goes by llama\.cpp's names"):
        plan(tmp_path / "m.npz", tmp_path / "x.gguf", recipe="Q4_K_M")


def test_the_plan_has_what_instead(tmp_path: Path) -> None:
    source = llama(tmp_path / "m.gguf", layers=2, odd=0)
    with pytest.warns(UserWarning, match="these get 8 bits in groups of 32 instead"):
        planned = plan(source, tmp_path / "x.gguf", recipe="Q6_K")
    settings = {layer.name: layer.settings for layer in planned.layers}
    assert settings["blk.0.ffn_down.weight"].encoding == "int"
    assert settings["blk.1.ffn_down.weight"].encoding == "q6_k"


def test_layers_that_no_block_holds_are_refused(tmp_path: Path) -> None:
    table = pyarrowquant.numpy_to_arrow_table({"a.weight": weights(4, 288)})
    result = quantize_batch_arrow(table, encoding="q4_k")
    with pytest.raises(ValueError, match=r"'a\.weight': 288 columns are no multiple of 256"):
        write_gguf(result, tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("encoding", "columns", "floor", "kind"),
    [
        ("iq4_nl", 256, 0.05, "Q5_K"),
        ("iq4_nl", 96, 0.05, "Q5_1"),  # its rows are no whole super-blocks
        ("iq4_nl", 96, 0.01, "Q8_0"),
    ],
)
def test_a_floor_takes_what_fits_the_rows(
    encoding: str, columns: int, floor: float, kind: str, tmp_path: Path
) -> None:
    source = saved(tmp_path / "model.npz", {"a.weight": weights(64, columns)})
    path = tmp_path / "x.gguf"
    done = convert(source, path, encoding=encoding, quality_floor={"relative_error": floor})
    assert kinds(path) == {"a.weight": kind}
    assert not done.missed
    assert done.relative_error <= floor


def test_a_floor_stays_with_what_gguf_has(tmp_path: Path) -> None:
    source = saved(tmp_path / "model.npz", {"a.weight": weights(64, 64)})
    with pytest.warns(UserWarning, match="with 4 bits of encoding 'mxfp4', the most there are"):
        done = convert(source, tmp_path / "x.gguf", encoding="mxfp4", quality_floor=0.9999)
    assert kinds(tmp_path / "x.gguf") == {"a.weight": "MXFP4"}
    assert len(done.missed) == 1


def test_bits_are_those_of_what_a_floor_chooses(tmp_path: Path) -> None:
    source = llama(tmp_path / "m.gguf", layers=1)
    done = convert(source, tmp_path / "x.gguf", encoding="q2_k", quality_floor=0.99)
    found = {name: t for name, t in tensors(tmp_path / "x.gguf").items() if "norm" not in name}
    assert {"Q4_K"} <= {tensor.tensor_type.name for tensor in found.values()}
    stored = sum(int(tensor.n_bytes) for tensor in found.values())
    assert done.bits_per_weight == pytest.approx(8 * stored / done.weights)


@pytest.mark.parametrize(
    ("to", "options", "text"),
    [
        ("x.parquet", {"recipe": "q4_k_m"}, "is none of to='parquet': Q4_K_M is of gguf"),
        ("x.parquet", {"recipe": "Q4_K_M"}, "is none of to='parquet': Q4_K_M is of gguf"),
        ("x.gguf", {"recipe": "Q4_K_M", "encoding": "q6_k"}, "leave out encoding="),
        ("x.gguf", {"recipe": "Q4_K_M", "bit_width": 8}, "leave out bit_width="),
        ("x.gguf", {"recipe": "Q4_K_M", "bits_per_weight": 4.5}, "leave out bits_per_weight="),
    ],
)
def test_what_contradicts_a_mix_is_refused(
    to: str, options: dict[str, Any], text: str, tmp_path: Path
) -> None:
    source = llama(tmp_path / "m.gguf", layers=1)
    with pytest.raises(UsageError, match=text):
        plan(source, tmp_path / to, **options)


def test_values_of_hybrid_models_are_counted_by_themselves(tmp_path: Path) -> None:
    model = {f"blk.{i}.ffn_up.weight": weights(32, 256) for i in range(8)}
    model |= {f"blk.{i}.attn_v.weight": weights(32, 256) for i in (3, 5, 7)}
    model["blk.2.ffn_down_shexp.weight"] = weights(32, 256)
    convert(
        written(tmp_path / "m.gguf", model, block_count=8), tmp_path / "x.gguf", recipe="Q3_K_M"
    )
    found = kinds(tmp_path / "x.gguf")
    values = [found[f"blk.{i}.attn_v.weight"] for i in (3, 5, 7)]
    assert values == ["Q5_K", "Q5_K", "Q4_K"]
    assert found["blk.2.ffn_down_shexp.weight"] == "Q4_K"
