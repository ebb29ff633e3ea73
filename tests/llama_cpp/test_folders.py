"""Hugging Face folders to GGUF: names, rows, dtypes, keys, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import hf_folders
import ml_dtypes
import numpy as np
import pytest
from commands import failed, run, succeeded
from folders_to_gguf import contents, floats
from safetensors.numpy import load_file, save_file

import pyarrowquant


def test_llama_has_the_names_and_keys_of_llama_cpp(tmp_path: Path) -> None:
    weights = hf_folders.llama()
    keys, tensors = floats(hf_folders.write(tmp_path / "model", weights))
    assert keys["general.architecture"] == "llama"
    assert keys["general.name"] == "Model"
    assert keys["general.file_type"] == 0
    assert {key: value for key, value in keys.items() if key.startswith("llama.")} == {
        "llama.block_count": 2,
        "llama.context_length": 128,
        "llama.embedding_length": 256,
        "llama.feed_forward_length": 512,
        "llama.attention.head_count": 8,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-5),
        "llama.rope.freq_base": 10000.0,
        "llama.rope.dimension_count": 32,
        "llama.vocab_size": 320,
    }
    same = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output.weight": "lm_head.weight",
        "output_norm.weight": "model.norm.weight",
        "blk.1.attn_v.weight": "model.layers.1.self_attn.v_proj.weight",
        "blk.0.attn_output.weight": "model.layers.0.self_attn.o_proj.weight",
        "blk.0.ffn_gate.weight": "model.layers.0.mlp.gate_proj.weight",
        "blk.0.ffn_up.weight": "model.layers.0.mlp.up_proj.weight",
        "blk.1.ffn_down.weight": "model.layers.1.mlp.down_proj.weight",
        "blk.0.attn_norm.weight": "model.layers.0.input_layernorm.weight",
        "blk.0.ffn_norm.weight": "model.layers.0.post_attention_layernorm.weight",
    }
    for name, original in same.items():
        np.testing.assert_array_equal(tensors[name], weights[original])
    assert len(tensors) == len(weights)


def test_rows_of_queries_and_keys_are_paired(tmp_path: Path) -> None:
    weights = hf_folders.llama()
    _, tensors = floats(hf_folders.write(tmp_path / "model", weights))
    for name, original, heads in (("attn_q", "q_proj", 8), ("attn_k", "k_proj", 2)):
        rows = weights[f"model.layers.0.self_attn.{original}.weight"]
        size = len(rows) // heads
        order = [
            head * size + half * (size // 2) + i
            for head in range(heads)
            for i in range(size // 2)
            for half in (0, 1)
        ]
        np.testing.assert_array_equal(tensors[f"blk.0.{name}.weight"], rows[order])


def test_a_mix_is_that_of_the_same_gguf(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model")
    plain, again = tmp_path / "model-float32.gguf", tmp_path / "again.gguf"
    floats(folder)
    succeeded("quantize", folder, tmp_path / "model.gguf", "--recipe", "Q4_K_M")
    succeeded("quantize", plain, again, "--recipe", "Q4_K_M")
    (keys, tensors), (keys_again, tensors_again) = (
        contents(tmp_path / "model.gguf"),
        contents(again),
    )
    assert keys.keys() == keys_again.keys()
    assert {key for key in keys if keys[key] != keys_again[key]} == set()
    for name, values in tensors.items():
        np.testing.assert_array_equal(values, tensors_again[name])


def test_dtypes(tmp_path: Path) -> None:
    halves = {name: array.astype(np.float16) for name, array in hf_folders.llama().items()}
    folder = hf_folders.write(tmp_path / "model", halves)
    for dtype, kind in (("float16", "F16"), ("bfloat16", "BF16"), ("float32", "F32")):
        keys, tensors = floats(folder, dtype)
        reader = gguf.GGUFReader(tmp_path / f"model-{dtype}.gguf")
        types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
        assert types["blk.0.attn_q.weight"] == kind
        assert types["blk.0.attn_norm.weight"] == "F32"
        assert keys["general.file_type"] == {"float32": 0, "float16": 1, "bfloat16": 32}[dtype]
    original = halves["lm_head.weight"].astype(np.float32)
    np.testing.assert_array_equal(tensors["output.weight"], original)


def test_what_bfloat16_rounds_to(tmp_path: Path) -> None:
    weights = hf_folders.llama()
    _, tensors = floats(hf_folders.write(tmp_path / "model", weights), "bfloat16")
    wanted = weights["lm_head.weight"].astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(tensors["output.weight"], wanted)


def test_beyond_float16_is_an_error(tmp_path: Path) -> None:
    weights = hf_folders.llama()
    weights["lm_head.weight"][3, 5] = 1e6
    folder = hf_folders.write(tmp_path / "model", weights)
    error = failed("dequantize", folder, tmp_path / "a.gguf", "--dtype", "float16")
    assert "output.weight" in error
    assert "bfloat16" in error
    assert not (tmp_path / "a.gguf").exists()


def test_llama_3_has_factors_of_frequencies(tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    _, old = floats(hf_folders.write(tmp_path / "old", rope_scaling=rope))
    _, new = floats(
        hf_folders.write(
            tmp_path / "new",
            rope_parameters={**rope, "rope_theta": 10000.0},
            without=["rope_theta"],
        )
    )
    lengths = 2 * np.pi * 10000.0 ** (np.arange(0, 32, 2) / 32)
    smooth = np.clip((64 / lengths - 1) / 3, 0, 1)
    np.testing.assert_allclose(old["rope_freqs.weight"], 1 / ((1 - smooth) / 8 + smooth), rtol=1e-5)
    np.testing.assert_array_equal(old["rope_freqs.weight"], new["rope_freqs.weight"])


@pytest.mark.parametrize(
    ("rope", "keys"),
    [
        ({"type": "linear", "factor": 4.0}, {"type": "linear", "factor": 4.0}),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
            {"type": "yarn", "factor": 4.0, "original_context_length": 32},
        ),
    ],
)
def test_scaled_positions(tmp_path: Path, rope: dict[str, Any], keys: dict[str, Any]) -> None:
    said, _ = floats(hf_folders.write(tmp_path / "model", rope_scaling=rope))
    prefix = "llama.rope.scaling."
    assert {k.removeprefix(prefix): v for k, v in said.items() if k.startswith(prefix)} == keys


def test_gemma_adds_one_to_norms_and_has_no_head(tmp_path: Path) -> None:
    weights = hf_folders.llama()
    folder = hf_folders.write(
        tmp_path / "model",
        weights,
        hf_folders.pieces(prepend=False),
        architectures=["GemmaForCausalLM"],
        head_dim=32,
    )
    keys, tensors = floats(folder)
    one = np.float32(1)
    np.testing.assert_array_equal(tensors["output_norm.weight"], weights["model.norm.weight"] + one)
    assert "output.weight" not in tensors
    assert keys["tokenizer.ggml.add_space_prefix"] is False
    told = json.loads(succeeded("quantize", folder, tmp_path / "a.gguf", "--dry-run", "--json"))
    (dropped,) = (tensor for tensor in told["unquantized"] if not tensor["kept"])
    assert dropped["name"] == "lm_head.weight"
    assert dropped["reason"] == "which are the embeddings again"


def test_a_folder_that_is_coded_is_decoded(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model")
    packed, plain = tmp_path / "packed", tmp_path / "plain.safetensors"
    succeeded("quantize", folder, packed, "--to", "compressed-tensors")
    succeeded("dequantize", packed, plain)
    weights = load_file(plain)
    _, tensors = floats(packed)
    down = weights["model.layers.1.mlp.down_proj.weight"]
    np.testing.assert_array_equal(tensors["blk.1.ffn_down.weight"], down)


def test_shards_are_one_model(tmp_path: Path) -> None:
    weights = hf_folders.llama()
    folder = hf_folders.write(tmp_path / "model", weights)
    whole = floats(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    index = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    sharded = again(folder)
    assert whole[0] == sharded[0]
    for name, array in whole[1].items():
        np.testing.assert_array_equal(array, sharded[1][name])


def again(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    path = folder.parent / "again.gguf"
    succeeded("dequantize", folder, path)
    return contents(path)


def test_another_tokenizer_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = hf_folders.write(tmp_path / "model"), tmp_path / "a.gguf"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("pyarrowquant.conversion.partial.results.PlacedResults.finish", full)
        assert run("quantize", folder, out).exit_code == 1
    hf_folders.bpe(rows=300).save(str(folder / "tokenizer.json"))
    assert "tokenizer.json" in failed("quantize", folder, out, "--resume")


def test_functions_take_folders(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model")
    done = pyarrowquant.convert(folder, tmp_path / "a.gguf", recipe="Q5_K_M")
    assert done.layers == 16
    assert {tensor.reason for tensor in done.unquantized} == {"no matrices"}


def test_rules_may_say_the_names_of_the_folder(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model")
    recipe = tmp_path / "recipe.json"
    rules = [
        {"match": "model.layers.0.self_attn.*", "skip": True},
        {"regex": "^lm_head", "bit_width": 8},
        {"match": "blk.1.ffn_up.weight", "skip": True},
    ]
    recipe.write_text(json.dumps({"rules": rules}))
    out = tmp_path / "a.gguf"
    told = run("quantize", folder, out, "--recipe", recipe)
    assert told.exit_code == 0
    assert "No layer matches" not in told.stderr
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(out).tensors}
    assert {name for name, kind in types.items() if kind == "F32" and "norm" not in name} == {
        *(f"blk.0.attn_{part}.weight" for part in ("q", "k", "v", "output")),
        "blk.1.ffn_up.weight",
    }
    assert types["output.weight"] == "Q8_0"


def test_a_folder_is_compared_with_its_gguf(tmp_path: Path) -> None:
    folder, out = hf_folders.write(tmp_path / "model"), tmp_path / "a.gguf"
    succeeded("quantize", folder, out, "--recipe", "Q4_K_M")
    totals = json.loads(succeeded("compare", folder, out, "--json"))["totals"]
    assert totals["missing"] == totals["added"] == []
    assert 0.01 < totals["relative_error"] < 0.1


def test_a_gguf_model_is_compared_with_folders(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model")
    gguf_model, mlx = tmp_path / "f.gguf", tmp_path / "mlx"
    succeeded("dequantize", folder, gguf_model, "--dtype", "float32")
    succeeded("quantize", folder, mlx, "--to", "mlx")
    totals = json.loads(succeeded("compare", gguf_model, folder, "--json"))["totals"]
    assert totals["missing"] == totals["added"] == []
    assert totals["relative_error"] < 1e-6
    one, other = (
        json.loads(succeeded("compare", source, mlx, "--json")) for source in (gguf_model, folder)
    )
    assert one["totals"]["relative_error"] == pytest.approx(other["totals"]["relative_error"])
    assert "blk.0.attn_q.weight" in {layer["layer_name"] for layer in one["layers"]}


def test_a_folder_of_no_class_has_its_own_names(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model", without=["architectures"])
    error = failed("quantize", folder, tmp_path / "a.gguf", "--dry-run", code=2)
    assert "config.json' names no class of models" in error
    assert "use --tensors-only if only tensors are wanted" in error
    succeeded("quantize", folder, tmp_path / "a.gguf", "--tensors-only")
    names = {tensor.name for tensor in gguf.GGUFReader(tmp_path / "a.gguf").tensors}
    assert names == hf_folders.llama().keys()


@pytest.mark.parametrize("card", [b"---\na: [\n---\n", b"\xff\xfe---\n", b"---\n- 1\n---\n"])
def test_a_broken_card_is_no_obstacle(tmp_path: Path, card: bytes) -> None:
    folder = hf_folders.write(tmp_path / "model")
    (folder / "README.md").write_bytes(card)
    result = run("quantize", folder, tmp_path / "a.gguf", "--dry-run")
    assert result.exit_code == 0
    assert all("README.md" in line for line in result.stderr.splitlines())


def test_a_config_with_a_mark_of_order_is_named_where_gguf_cannot_read_it(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model")
    config = folder / "config.json"
    config.write_text(config.read_text(), encoding="utf-8-sig")
    result = run("quantize", folder, tmp_path / "a.gguf", "--dry-run")
    assert result.exit_code == 0
    (line,) = result.stderr.splitlines()
    assert "config.json" in line


def test_what_a_card_has_of_another_type_is_left_out(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model")
    (folder / "README.md").write_text("---\nlicense: {a: b}\nauthor: me\ntags: 7\n---\n")
    keys, _ = floats(folder)
    assert keys["general.author"] == "me"
    assert "general.license" not in keys


def test_a_budget_is_that_of_the_same_gguf(tmp_path: Path) -> None:
    folder = hf_folders.write(tmp_path / "model", hf_folders.llama(rows=2048), vocab_size=2048)
    floats(folder)
    options = ("--bits-per-weight", "4.6")
    succeeded("quantize", folder, tmp_path / "a.gguf", *options)
    succeeded("quantize", tmp_path / "model-float32.gguf", tmp_path / "b.gguf", *options)
    types = [
        {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
        for path in (tmp_path / "a.gguf", tmp_path / "b.gguf")
    ]
    assert types[0] == types[1]


@pytest.mark.parametrize(
    ("folder", "name"),
    [("tiny-phi3", "Tiny Phi 3"), ("My-Phi-3.5", "My Phi 3.5"), ("phi4", "Phi4")],
)
def test_a_name_that_llama_cpp_takes_for_phi_3(tmp_path: Path, folder: str, name: str) -> None:
    keys, _ = floats(hf_folders.write(tmp_path / folder))
    assert keys["general.name"] == name


def test_a_run_goes_on_with_the_same_name_of_splitting(tmp_path: Path) -> None:
    """The name is in the file's header, which the first run has written."""
    folder, out = hf_folders.write(tmp_path / "model"), tmp_path / "x.gguf"

    def stop(step: Any) -> None:
        if step.layers:
            raise RuntimeError("stopped")

    with pytest.warns(UserWarning, match="What is done"), pytest.raises(RuntimeError):
        pyarrowquant.convert(folder, out, pre_tokenizer="llama3", progress=stop)
    for other, said in ((None, "None"), ("gpt-2", "gpt-2")):
        with pytest.raises(ValueError, match=f"pre_tokenizer was llama3, now is {said}"):
            pyarrowquant.convert(folder, out, pre_tokenizer=other, resume=True)
    pyarrowquant.convert(folder, out, pre_tokenizer="llama3", resume=True)
    assert contents(out)[0]["tokenizer.ggml.pre"] == "llama3"
