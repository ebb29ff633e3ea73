"""llama.cpp's mixes as the default, in recipes of one's own, and their rules for some models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from commands import run
from gguf_models import llama, written

from pyarrowquant import (
    Recipe,
    Rule,
    UsageError,
    convert,
    numpy_to_arrow_table,
    plan,
    quantize_batch_arrow,
)

RNG = np.random.default_rng(2)


def weights(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / 50).astype(np.float32)


def kinds(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


def file_type(path: Path) -> Any:
    return gguf.GGUFReader(path).fields["general.file_type"].contents()


def test_the_default_of_a_gguf_model_is_q4_k_m(tmp_path: Path) -> None:
    source = llama(tmp_path / "m.gguf", layers=8)
    done = convert(source, tmp_path / "default.gguf")
    assert done.mix == "Q4_K_M"
    convert(source, tmp_path / "said.gguf", recipe="Q4_K_M")
    assert (tmp_path / "default.gguf").read_bytes() == (tmp_path / "said.gguf").read_bytes()
    assert set(kinds(tmp_path / "said.gguf").values()) == {"Q4_K", "Q6_K", "F32"}
    assert file_type(tmp_path / "said.gguf") == 15
    convert(source, tmp_path / "rtn.gguf", method="rtn")
    assert kinds(tmp_path / "rtn.gguf") == kinds(tmp_path / "said.gguf")
    assert (tmp_path / "rtn.gguf").read_bytes() != (tmp_path / "said.gguf").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        {"bit_width": 4},
        {"zero_point": "symmetric"},
        {"group_size": 32},
        {"encoding": "int"},
        {"recipe": "all"},
    ],
)
def test_what_is_said_of_bits_takes_its_place(tmp_path: Path, options: dict[str, Any]) -> None:
    source = llama(tmp_path / "m.gguf", layers=1)
    planned = plan(source, tmp_path / "x.gguf", **options)
    assert planned.mix is None
    assert {layer.settings.encoding for layer in planned.layers if layer.settings} == {"int"}


def test_a_budget_takes_its_place(tmp_path: Path) -> None:
    source = llama(tmp_path / "m.gguf", layers=1)
    planned = plan(source, tmp_path / "x.gguf", bits_per_weight=4.6)
    assert planned.mix is None
    encodings = {layer.settings.encoding for layer in planned.layers if layer.settings}
    assert len(encodings) > 1


def test_a_number_of_layers_beyond_the_tensors(tmp_path: Path) -> None:
    """The number takes no memory: all layers that are there are of the first eighth."""
    source = written(
        tmp_path / "m.gguf",
        {f"blk.{i}.ffn_down.weight": weights(32, 256) for i in range(3)},
        block_count=2**32 - 1,
    )
    layers = plan(source, tmp_path / "x.gguf").layers
    assert [layer.settings.encoding for layer in layers if layer.settings] == ["q6_k"] * 3


def test_other_sources_have_their_default(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", a=weights(64, 256))
    assert plan(tmp_path / "m.npz", tmp_path / "x.gguf").mix is None
    source = llama(tmp_path / "m.gguf", layers=1)
    assert plan(source, tmp_path / "x.parquet").mix is None


def test_the_command_line_names_the_mix(tmp_path: Path) -> None:
    source = llama(tmp_path / "m.gguf", layers=2)
    options = (str(source), str(tmp_path / "x.gguf"))
    dry = run("quantize", *options, "--dry-run")
    assert "16 of 19 layers would be quantized as Q4_K_M" in dry.stdout
    assert "  3 with 6 bits of q6_k in groups of 16, by recipe rule ('output" in dry.stdout
    told = run("quantize", *options, "--json")
    assert json.loads(told.stdout)["mix"] == "Q4_K_M"
    told = run("quantize", *options, "--overwrite", "--recipe", "q6_k")
    assert told.stdout.startswith("16 layers as Q6_K, ")


def test_rules_of_ones_own_come_before_a_mix(tmp_path: Path) -> None:
    source = llama(tmp_path / "m.gguf", layers=4)
    said: dict[str, Any] = {
        "name": "mine",
        "extends": "q4_k_m",
        "default": {"method": "rtn"},
        "rules": [
            {"match": "*attn_k*", "bits": 8},
            {"match": "*attn_q*", "encoding": "q5_k"},
            {"match": "*ffn_up*", "skip": True},
        ],
    }
    (tmp_path / "mine.json").write_text(json.dumps(said))
    done = convert(source, tmp_path / "x.gguf", recipe=tmp_path / "mine.json")
    assert done.mix == "Q4_K_M"
    assert done.mix_is_changed
    shown = run("quantize", source, tmp_path / "shown.gguf", "--recipe", tmp_path / "mine.json")
    assert " layers as Q4_K_M with changes, " in shown.stdout
    found = kinds(tmp_path / "x.gguf")
    names = ("attn_k", "attn_q", "ffn_up", "ffn_gate", "attn_output")
    types = [found[f"blk.1.{name}.weight"] for name in names]
    assert types == ["Q8_0", "Q5_K", "F32", "Q4_K", "Q4_K"]
    assert file_type(tmp_path / "x.gguf") == 15
    settings = {layer.settings for layer in plan(source, tmp_path / "y.gguf", recipe=said).layers}
    assert {each.method for each in settings if each} == {"rtn"}


def test_a_recipe_of_a_mix_is_one_of_a_model(tmp_path: Path) -> None:
    mix = Recipe.preset("q5_k_s")
    assert mix.to_dict() == {"name": "Q5_K_S", "extends": "Q5_K_S"}
    assert Recipe.from_dict(mix.to_dict()) == mix
    assert Recipe(extends="q5_k_s", name="Q5_K_S") == mix
    convert(llama(tmp_path / "m.gguf", layers=1), tmp_path / "x.gguf", recipe=mix)
    assert kinds(tmp_path / "x.gguf")["blk.0.attn_q.weight"] == "Q5_K"
    table = numpy_to_arrow_table({"a": weights(4, 256)})
    with pytest.raises(UsageError, match=r"'Q5_K_S' goes by the tensors .* convert\("):
        quantize_batch_arrow(table, recipe=mix)
    with pytest.raises(UsageError, match="'Q4_0' goes by the tensors"):
        quantize_batch_arrow(table, recipe="Q4_0")
    with pytest.raises(ValueError, match=r"extends 'text' is no scheme of .*, and no mix"):
        Recipe(extends="text")
    with pytest.raises(ValueError, match="default 'skip' leaves nothing to Q4_K_M"):
        Recipe([Rule("a", bit_width=4)], "skip", extends="Q4_K_M")
    with pytest.raises(ValueError, match="preset 'q4_k_m' must be one of"):
        Recipe.preset("q4_k_m", profile="edge")


def test_showing_a_mix_explains_it() -> None:
    shown = run("recipe", "show", "iq4_xs")
    assert json.loads(shown.stdout) == {"name": "IQ4_XS", "extends": "IQ4_XS"}
    assert "IQ4_XS goes by the tensors of a GGUF model" in shown.stderr
    assert "q5_k in the first 1/8 of the layers" in shown.stderr


@pytest.mark.parametrize("name", ["Q3_K", "q4_k", "Q5_k"])
def test_short_names_are_those_of_llama_quantize(tmp_path: Path, name: str) -> None:
    source = llama(tmp_path / "m.gguf", layers=2)
    assert plan(source, tmp_path / "out.gguf", recipe=name).mix == f"{name.upper()}_M"
    assert Recipe.preset(name).name == f"{name.upper()}_M"


def test_names_that_are_near() -> None:
    shown = run("recipe", "show", "Q4KM")
    assert "Did you mean 'Q4_K_M'?" in shown.stderr


def test_encodings_in_upper_case(tmp_path: Path) -> None:
    source = llama(tmp_path / "m.gguf", layers=1)
    done = run("quantize", str(source), str(tmp_path / "x.gguf"), "--encoding", "Q4_K")
    assert done.exit_code == 0
    assert kinds(tmp_path / "x.gguf")["blk.0.attn_q.weight"] == "Q4_K"
    with pytest.raises(ValueError, match=r"Did you mean 'q4_k'\?"):
        plan(source, tmp_path / "y.gguf", encoding="Q4_K")
    with pytest.raises(ValueError, match=r"The mix of llama\.cpp is recipe='Q4_K_M'"):
        plan(source, tmp_path / "y.gguf", encoding="Q4_K_M")


@pytest.mark.parametrize(
    ("name", "base", "head", "number"),
    [
        ("Q4_0", "Q4_0", "Q6_K", 2),
        ("Q4_1", "Q4_1", "Q6_K", 3),
        ("Q5_0", "Q5_0", "Q6_K", 8),
        ("Q5_1", "Q5_1", "Q6_K", 9),
        ("Q8_0", "Q8_0", "Q8_0", 7),
        ("MXFP4_MOE", "Q8_0", "Q8_0", 38),
    ],
)
def test_mixes_of_one_type(tmp_path: Path, name: str, base: str, head: str, number: int) -> None:
    source = llama(tmp_path / "m.gguf", layers=2)
    convert(source, tmp_path / "x.gguf", recipe=name)
    found = kinds(tmp_path / "x.gguf")
    assert found.pop("output.weight") == head
    assert set(found.values()) == {base, "F32"}
    assert file_type(tmp_path / "x.gguf") == number


def of_layers(layers: int, *kinds_of: str) -> dict[str, np.ndarray]:
    """Tensors of some kinds in all layers, and the embeddings."""
    model = {"token_embd.weight": weights(32, 256), "output.weight": weights(32, 256)}
    for i in range(layers):
        model |= {f"blk.{i}.{kind}.weight": weights(32, 256) for kind in kinds_of}
    return model


def test_falcon_has_rules_of_its_own(tmp_path: Path) -> None:
    model = of_layers(32, "attn_output", "ffn_down")
    source = written(tmp_path / "m.gguf", model, "falcon", block_count=32)
    convert(source, tmp_path / "x.gguf", recipe="Q4_K_M", method="rtn")
    found = kinds(tmp_path / "x.gguf")
    assert found["output.weight"] == "Q8_0"
    down = [found[f"blk.{i}.ffn_down.weight"] for i in range(8)]
    assert down == ["Q6_K", "Q6_K", "Q5_K", "Q5_K", "Q4_K", "Q4_K", "Q5_K", "Q4_K"]
    convert(source, tmp_path / "y.gguf", recipe="Q3_K_L", method="rtn")
    assert kinds(tmp_path / "y.gguf")["blk.9.attn_output.weight"] == "Q4_K"


@pytest.mark.parametrize(("shared", "expected"), [(1, "Q5_K"), (8, "Q4_K")])
def test_models_of_80_layers(tmp_path: Path, shared: int, expected: str) -> None:
    heads = {"attention_head_count": 8, "attention_head_count_kv": shared}
    source = written(tmp_path / "m.gguf", of_layers(80, "attn_v"), block_count=80, **heads)
    convert(source, tmp_path / "x.gguf", recipe="Q4_K_M", method="rtn")
    assert kinds(tmp_path / "x.gguf")["blk.10.attn_v.weight"] == expected


def test_models_of_eight_experts(tmp_path: Path) -> None:
    model = of_layers(8, "attn_v", "attn_k", "attn_output", "attn_q")
    source = written(tmp_path / "m.gguf", model, block_count=8, expert_count=8)
    convert(source, tmp_path / "x.gguf", recipe="Q4_K_M", method="rtn")
    found = kinds(tmp_path / "x.gguf")
    names = ("attn_v", "attn_k", "attn_output", "attn_q")
    assert [found[f"blk.3.{name}.weight"] for name in names] == ["Q8_0", "Q8_0", "Q5_K", "Q4_K"]


NEVER = (
    "blk.0.attn_k_norm.weight",
    "blk.0.ffn_gate_inp.weight",
    "blk.0.ffn_gate_tid2eid.weight",
    "blk.0.altup_proj.weight",
    "blk.0.laurel_l.weight",
    "per_layer_model_proj.weight",
    "position_embd.weight",
    "token_types.weight",
    "blk.0.ssm_conv1d.weight",
    "blk.0.ssm_a",
    "blk.0.shortconv.conv.weight",
    "blk.0.indexer.k_proj.weight",
    "blk.0.time_mix_w1.weight",
    "blk.0.time_mix_first.weight",
    "blk.0.time_mix_decay_w2.weight",
    "blk.0.time_mix_lerp_fused.weight",
    "enc.blk.0.attn_rel_b.weight",
    "v.position_embd.weight",
    "v.patch_embd.weight",
    "mm.patch_merger.weight",
    "v.sam.neck.0.weight",
    "a.rvq.codebook.0.weight",
)
QUANTIZED = (
    "blk.0.time_mix_key.weight",
    "blk.0.time_mix_receptance.weight",
    "blk.0.indexer.attn_q_b.weight",
    "blk.0.ssm_in.weight",
    "v.blk.0.attn_out.weight",
)


@pytest.mark.parametrize("recipe", [None, "Q8_0"])
def test_what_llama_quantize_never_quantizes(tmp_path: Path, recipe: str | None) -> None:
    model = {name: weights(32, 256) for name in (*NEVER, *QUANTIZED)}
    source = written(tmp_path / "m.gguf", model, block_count=1)
    convert(source, tmp_path / "x.gguf", recipe=recipe)
    found = kinds(tmp_path / "x.gguf")
    assert [name for name in found if found[name] == "F32"] == list(NEVER)


@pytest.mark.parametrize("encoding", ["iq4_nl", "mxfp4", "q4_k"])
def test_rows_that_nothing_holds_stay(tmp_path: Path, encoding: str) -> None:
    model = {"blk.0.ffn_up.weight": weights(8, 48), "blk.0.ffn_down.weight": weights(8, 256)}
    source = written(tmp_path / "m.gguf", model, block_count=1)
    with pytest.warns(UserWarning, match="does not take their shape: blk.0.ffn_up.weight"):
        convert(source, tmp_path / "x.gguf", encoding=encoding)
    assert kinds(tmp_path / "x.gguf")["blk.0.ffn_up.weight"] == "F32"


def test_a_resumed_run_has_the_same_mix(tmp_path: Path) -> None:
    """Of one layer, two mixes give the same types, and files that say another name."""
    model = {"blk.0.attn_q.weight": weights(8, 256)}
    source = written(tmp_path / "m.gguf", model, block_count=1)

    def stop(step: Any) -> None:
        if step.layers:
            raise RuntimeError("stopped")

    with pytest.warns(UserWarning, match="What is done"), pytest.raises(RuntimeError):
        convert(source, tmp_path / "x.gguf", recipe="Q4_K_M", progress=stop)
    with pytest.raises(ValueError, match=r"cannot be continued: .*mix was Q4_K_M, now is Q4_K_S"):
        convert(source, tmp_path / "x.gguf", recipe={"extends": "Q4_K_S"}, resume=True)
    convert(source, tmp_path / "x.gguf", resume=True)
    assert file_type(tmp_path / "x.gguf") == 15
