"""Importance by llama.cpp's names, for a Hugging Face folder that becomes no GGUF."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf_models
import hf_folders
import numpy as np
import pytest
from commands import failed, run
from mixture_models import COLUMNS, DEEPSEEK, EXPERTS, GPT_OSS, INNER, deepseek, gpt_oss
from safetensors.numpy import save_file

import pyarrowquant

Values = dict[str, np.ndarray]
FORMATS = ["compressed-tensors", "mlx", "bitsandbytes", "parquet"]
SAID = json.dumps({"format_version": 1, "texts": [], "tokens": 9})
RANDOM = np.random.default_rng(3)
ATTENTION = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output"}
MLP = {"gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}


def means(*shape: int) -> np.ndarray:
    return RANDOM.exponential(size=shape).astype(np.float32) ** 2


def imatrix(path: Path, values: Values) -> Path:
    layers = {name: (each, np.ones(len(np.atleast_2d(each)))) for name, each in values.items()}
    return gguf_models.imatrix(path, layers)


def calibrated(path: Path, values: Values) -> Path:
    counts = {f"{name}.count": np.array([9]) for name in values}
    save_file({**values, **counts}, path, metadata={"pyarrowquant.importance": SAID})
    return path


def of_llama(before: str = "model.") -> tuple[Values, Values]:
    """Importance by llama.cpp's names, and the same by those of the folder."""
    ours, theirs = {}, {}
    for layer in range(2):
        for module, names in (("self_attn", ATTENTION), ("mlp", MLP)):
            for matrix, name in names.items():
                values = means(512 if matrix == "down" else COLUMNS)
                ours[f"blk.{layer}.{name}.weight"] = values
                theirs[f"{before}layers.{layer}.{module}.{matrix}_proj.weight"] = values
    return ours, theirs


def bytes_of(path: Path) -> Mapping[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    return {file.name: file.read_bytes() for file in path.glob("*.safetensors")}


def assert_used(
    tmp_path: Path, source: Path, to: str, ours: Values, theirs: Values, **options: Any
) -> None:
    """Convert with importance by both names, which is used, and without."""
    files = {
        "ours": imatrix(tmp_path / "ours.gguf", ours),
        "theirs": calibrated(tmp_path / "theirs.safetensors", theirs),
        "none": None,
    }
    found = {}
    for name, file in files.items():
        out = tmp_path / (f"{name}.parquet" if to == "parquet" else f"{name}-{to}")
        pyarrowquant.convert(source, out, to=to, importance=file, **options)
        found[name] = bytes_of(out)
    assert found["ours"] == found["theirs"]
    assert found["ours"] != found["none"]


@pytest.mark.filterwarnings("ignore:Without importance")
@pytest.mark.parametrize("to", FORMATS)
def test_of_a_llama(tmp_path: Path, to: str) -> None:
    source = hf_folders.write(tmp_path / "model", model_type="llama")
    ours, theirs = of_llama()
    ours["output.weight"] = theirs["lm_head.weight"] = means(COLUMNS)
    assert_used(tmp_path, source, to, ours, theirs)


@pytest.mark.filterwarnings("ignore:Without importance")
def test_of_columns_that_are_rescaled(tmp_path: Path) -> None:
    source = hf_folders.write(tmp_path / "model", model_type="llama")
    assert_used(tmp_path, source, "compressed-tensors", *of_llama(), rescale="on")


@pytest.mark.filterwarnings("ignore:Without importance")
@pytest.mark.parametrize("model_type", ["seed_oss", "cohere", "nobodys", None])
def test_of_a_class_that_does_not_become_gguf(tmp_path: Path, model_type: str | None) -> None:
    said: dict[str, Any] = {"architectures": ["OtherForCausalLM"], "model_type": model_type}
    source = hf_folders.write(tmp_path / "model", **said)
    assert_used(tmp_path, source, "parquet", *of_llama())


@pytest.mark.filterwarnings("ignore:Without importance")
def test_of_a_head_with_a_name_of_its_own(tmp_path: Path) -> None:
    head, embeddings = "embed_out.weight", "gpt_neox.embed_in.weight"
    tensors = hf_folders.weights(dict.fromkeys((head, embeddings), (64, COLUMNS)))
    said = {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox"}
    source = hf_folders.write(tmp_path / "model", tensors, **said)
    values = means(COLUMNS)
    layer = "blk.0.attn_qkv.weight"  # by which it is known to be of llama.cpp
    ours = {"output.weight": values, layer: values}
    with pytest.warns(UserWarning, match=f"no such layers: {layer}"):
        assert_used(tmp_path, source, "parquet", ours, {head: values})


@pytest.mark.filterwarnings("ignore:Without importance")
def test_of_an_encoder_and_a_decoder(tmp_path: Path) -> None:
    before = {
        "encoder.block.0.layer.0.SelfAttention.q.weight": "enc.blk.0.attn_q.weight",
        "decoder.block.0.layer.1.EncDecAttention.v.weight": "dec.blk.0.cross_attn_v.weight",
    }
    tensors = hf_folders.weights(dict.fromkeys(before, (64, COLUMNS)))
    said = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}
    source = hf_folders.write(tmp_path / "model", tensors, **said)
    ours = {name: means(COLUMNS) for name in before.values()}
    theirs = {name: ours[other] for name, other in before.items()}
    assert_used(tmp_path, source, "parquet", ours, theirs)


@pytest.mark.filterwarnings("ignore:Without importance")
def test_of_a_text_model_within_another(tmp_path: Path) -> None:
    before = "model.language_model."
    tensors = {name.replace("model.", before, 1): each for name, each in hf_folders.llama().items()}
    said = {"architectures": ["OtherForConditionalGeneration"], "model_type": "other"}
    source = hf_folders.write(tmp_path / "model", tensors, **said, text_config={})
    assert_used(tmp_path, source, "compressed-tensors", *of_llama(before))


@pytest.mark.parametrize("model_type", ["llama", "gemma"])
def test_of_embeddings_that_are_the_head(tmp_path: Path, model_type: str) -> None:
    tensors = hf_folders.llama()
    del tensors["lm_head.weight"]
    said = {"architectures": ["OtherForCausalLM"], "model_type": model_type}
    source = hf_folders.write(tmp_path / "model", tensors, **said, tie_word_embeddings=True)
    for name in ("output.weight", "token_embd.weight"):
        ours, theirs = of_llama()
        ours[name] = theirs["model.embed_tokens.weight"] = means(COLUMNS)
        place = tmp_path / name
        place.mkdir()
        assert_used(place, source, "mlx", ours, theirs)


@pytest.mark.filterwarnings("ignore:Without importance")
@pytest.mark.parametrize("to", FORMATS)
def test_of_experts_and_of_what_keys_and_values_are_made_of(tmp_path: Path, to: str) -> None:
    said = {**DEEPSEEK, "model_type": "deepseek_v3"}
    source = hf_folders.write(tmp_path / "model", deepseek(), **said)
    ours, theirs = {}, {}
    for matrix, name in MLP.items():
        each = means(EXPERTS, 96 if matrix == "down" else COLUMNS)
        ours[f"blk.1.{name}_exps.weight"] = each
        for expert in range(EXPERTS):
            theirs[f"model.layers.1.mlp.experts.{expert}.{matrix}_proj.weight"] = each[expert]
        shared = means(192 if matrix == "down" else COLUMNS)
        ours[f"blk.1.{name}_shexp.weight"] = shared
        theirs[f"model.layers.1.mlp.shared_experts.{matrix}_proj.weight"] = shared
    heads = means(8, 64)
    ours["blk.0.attn_v_b.weight"] = heads
    theirs["model.layers.0.self_attn.kv_b_proj.weight"] = np.float32(heads.mean(0, np.float64))
    ours["blk.1.attn_kv_b.weight"] = heads[0]
    theirs["model.layers.1.self_attn.kv_b_proj.weight"] = heads[0]
    options = {} if to == "bitsandbytes" else {"group_size": 32}
    assert_used(tmp_path, source, to, ours, theirs, **options)


@pytest.mark.filterwarnings("ignore:Without importance", "ignore:Quantized already")
@pytest.mark.parametrize("coded", [False, True])
def test_of_stacks_that_are_taken_apart(tmp_path: Path, coded: bool) -> None:
    """Those of floats have inputs as rows."""
    said = {**GPT_OSS, "model_type": "gpt_oss", "dtype": "float32"}
    source = hf_folders.write(tmp_path / "model", gpt_oss(coded=coded), **said)
    gate, down = means(EXPERTS, COLUMNS), means(EXPERTS, INNER)
    ours = {"blk.0.ffn_gate_exps.weight": gate, "blk.0.ffn_down_exps.weight": down}
    theirs = {
        f"model.layers.0.mlp.experts.{expert}.{matrix}_proj.weight": values[expert]
        for matrix, values in (("gate", gate), ("up", gate), ("down", down))
        for expert in range(EXPERTS)
    }
    assert_used(tmp_path, source, "mlx", ours, theirs, group_size=32)
    if coded:  # which tables have as stacks, with inputs as columns
        theirs = {
            "model.layers.0.mlp.experts.gate_up_proj": gate.reshape(-1),
            "model.layers.0.mlp.experts.down_proj": down.reshape(-1),
        }
        assert_used(tmp_path, source, "parquet", ours, theirs, group_size=32)


def test_stacks_whose_rows_may_be_columns_do_without(tmp_path: Path) -> None:
    said = {**GPT_OSS, "model_type": "gpt_oss", "dtype": "float32"}
    source = hf_folders.write(tmp_path / "model", gpt_oss(coded=False), **said)
    ours, _ = of_llama()
    ours = {name: each for name, each in ours.items() if "attn" in name}
    ours["blk.0.ffn_down_exps.weight"] = means(EXPERTS, INNER)
    file = imatrix(tmp_path / "ours.gguf", ours)
    with pytest.warns(UserWarning, match=r"without a file: .*model\.layers\.0\.mlp\.experts\.down"):
        pyarrowquant.plan(source, tmp_path / "out.parquet", importance=file)


def test_layers_that_are_stored_turned_do_without(tmp_path: Path) -> None:
    head, square, wide = "lm_head.weight", "attn.c_proj.weight", "attn.c_attn.weight"
    shapes = {head: (64, COLUMNS), square: (COLUMNS, COLUMNS), wide: (COLUMNS, 3 * COLUMNS)}
    names = {name: name if name == head else f"transformer.h.0.{name}" for name in shapes}
    tensors = hf_folders.weights({names[name]: shape for name, shape in shapes.items()})
    said = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
    source = hf_folders.write(tmp_path / "model", tensors, **said)
    values = means(COLUMNS)
    ours = {"blk.0.attn_output.weight": values, "blk.0.attn_qkv.weight": values}
    ours["output.weight"] = values
    lacking = rf"without a file: {names[wide]}, {names[square]}$"
    with pytest.warns(UserWarning, match=lacking):
        assert_used(tmp_path, source, "parquet", ours, {head: values})


@pytest.mark.parametrize("to", FORMATS[:3])
def test_what_lacks_is_named(tmp_path: Path, to: str) -> None:
    source = hf_folders.write(tmp_path / "model", model_type="llama")
    ours, _ = of_llama()
    del ours["blk.1.attn_v.weight"]
    file = imatrix(tmp_path / "ours.gguf", {**ours, "output.weight": means(COLUMNS)})
    told = run("quantize", source, tmp_path / "out", "--to", to, "--imatrix", file)
    assert told.exit_code == 0, told.output
    lacking = "model.embed_tokens.weight, " * (to == "mlx") + "model.layers.1.self_attn.v_proj"
    assert f"so quantized as without a file: {lacking}.weight\n" in told.stderr


def test_of_other_experts_than_the_model_has(tmp_path: Path) -> None:
    source = hf_folders.write(tmp_path / "m", deepseek(), **DEEPSEEK, model_type="deepseek_v3")
    for experts in (EXPERTS - 1, EXPERTS + 1):
        each = {"blk.1.ffn_gate_exps.weight": means(experts, COLUMNS)}
        file = imatrix(tmp_path / f"{experts}.gguf", each)
        with pytest.raises(
            ValueError, match=f"has {experts} x {COLUMNS} values for layer 'model.l"
        ):
            pyarrowquant.plan(source, tmp_path / "out", to="mlx", group_size=32, importance=file)


@pytest.mark.filterwarnings("ignore:Without importance")
def test_layers_that_the_model_lacks_are_named(tmp_path: Path) -> None:
    source = hf_folders.write(tmp_path / "m", deepseek(), **DEEPSEEK, model_type="deepseek_v3")
    names = ["ffn_gate_inp", "attn_k_b", "attn_v_b", "attn_output"]
    ours = {f"blk.1.{name}.weight": means(64 if "_b" in name else 384) for name in names}
    more = {"blk.2.ffn_up.weight": means(9), "blk.1.ssm_in.weight": means(9)}
    file = imatrix(tmp_path / "ours.gguf", {**ours, **more})
    with pytest.warns(UserWarning, match="no such layers") as caught:
        pyarrowquant.plan(source, tmp_path / "out", to="mlx", group_size=32, importance=file)
    (told,) = [text for each in caught if "no such" in (text := str(each.message))]
    listed = "blk.2.ffn_up.weight, blk.1.ssm_in.weight"
    assert told == f"Not used of 'ours.gguf', as '{source}' has no such layers: {listed}"


def test_another_model_is_refused(tmp_path: Path) -> None:
    source = hf_folders.write(tmp_path / "model", model_type="llama")
    ours, _ = of_llama()
    other = imatrix(tmp_path / "other.gguf", {**ours, "blk.1.ffn_up.weight": means(128)})
    few = imatrix(tmp_path / "few.gguf", {f"blk.{n}.ssm_in.weight": means(256) for n in range(2)})
    for file, told in (
        (other, "has 128 values for layer 'model.layers.1.mlp.up_proj.weight', which has 256"),
        (few, "has the importance of 2 layers, such as 'blk.0.ssm_in.weight', and of none that"),
    ):
        said = failed("quantize", source, tmp_path / "out", "--to", "mlx", "--importance", file)
        assert told in said
        assert len(said.splitlines()) == 1
