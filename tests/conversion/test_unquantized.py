"""Every tensor of a source is quantized, or named with what becomes of it and why."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import gguf_models
import numpy as np
import onnx
import onnx_models
import pyarrow.parquet as pq
import pytest
from commands import failed, run, succeeded
from models import source_for
from safetensors.numpy import load_file, save_file

from pyarrowquant import Recipe, Rule, UnquantizedTensor, convert, plan

UP = "model.layers.0.mlp.up_proj.weight"
TENSORS = {
    UP: np.ones((32, 128), np.float32),
    "model.embed_tokens.weight": np.ones((64, 128), np.float32),
    "model.layers.0.input_layernorm.weight": np.ones(128, np.float32),
    "model.layers.0.odd.weight": np.ones((8, 100), np.float32),
    "model.layers.0.bias": np.ones(7, np.float16),
    "conv.weight": np.ones((4, 3, 8), np.float32),
    "position_ids": np.arange(9),
    "mask": np.ones(3, bool),
}
NO_MATRICES = {"model.layers.0.input_layernorm.weight", "model.layers.0.bias", "conv.weight"}
DTYPES = {"position_ids": "of dtype I64", "mask": "of dtype BOOL"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    save_file(TENSORS, path / "model.safetensors")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "float32"}
    (path / "config.json").write_text(json.dumps(config))
    return path


def reasons(tensors: tuple[UnquantizedTensor, ...], kept: bool) -> dict[str, str]:
    return {tensor.name: tensor.reason for tensor in tensors if tensor.kept is kept}


@pytest.mark.filterwarnings("ignore:Kept, as:UserWarning", "ignore:Left out, as:UserWarning")
@pytest.mark.parametrize(
    "to", ["parquet", "arrow", "compressed-tensors", "bitsandbytes", "mlx", "gguf", "onnx"]
)
def test_all_tensors_are_accounted_for(folder: Path, tmp_path: Path, to: str) -> None:
    out = tmp_path / f"out.{to}"
    planned = plan(source_for(folder, to), out, to=to)
    done = convert(source_for(folder, to), out, to=to)
    assert done.unquantized == planned.unquantized
    quantized = [layer.name for layer in planned.layers if layer.settings is not None]
    assert len(quantized) == done.layers
    left = [tensor.name for tensor in done.unquantized]
    assert Counter([*quantized, *left]) == Counter(TENSORS.keys())
    for tensor in done.unquantized:
        assert tensor.shape == TENSORS[tensor.name].shape
        assert tensor.bytes == TENSORS[tensor.name].nbytes


@pytest.mark.filterwarnings("ignore:Kept, as:UserWarning")
def test_reasons_of_a_folder_for_transformers(folder: Path, tmp_path: Path) -> None:
    done = convert(folder, tmp_path / "out", to="compressed-tensors")
    shape = {"model.layers.0.odd.weight": "the format does not take their shape"}
    packed = "embeddings, norms and routers, which transformers does not pack"
    assert reasons(done.unquantized, kept=False) == {}
    assert reasons(done.unquantized, kept=True) == {
        "model.embed_tokens.weight": packed,
        **dict.fromkeys(NO_MATRICES, "no matrices"),
        **shape,
        **DTYPES,
    }
    written = load_file(tmp_path / "out" / "model.safetensors")
    for tensor in done.unquantized:  # what is said to be there is there
        np.testing.assert_array_equal(written[tensor.name], TENSORS[tensor.name])


@pytest.mark.filterwarnings("ignore:Kept, as:UserWarning", "ignore:Left out, as:UserWarning")
def test_reasons_of_tensors_for_llama_cpp(folder: Path, tmp_path: Path) -> None:
    done = convert(source_for(folder, "gguf"), tmp_path / "out.gguf")
    assert reasons(done.unquantized, kept=False) == {"mask": "of dtype BOOL"}
    assert set(reasons(done.unquantized, kept=True)) == {
        *NO_MATRICES,
        "model.layers.0.odd.weight",
        "position_ids",
    }


def test_a_table_has_quantized_layers_alone(folder: Path, tmp_path: Path) -> None:
    done = convert(folder, tmp_path / "out.parquet", recipe="text")
    left = reasons(done.unquantized, kept=False)
    assert reasons(done.unquantized, kept=True) == {}
    assert left["model.layers.0.bias"] == "of fewer than two dimensions"
    assert left["model.embed_tokens.weight"] == "norms and embeddings"
    assert left["position_ids"] == "of dtype I64"
    table = pq.read_table(tmp_path / "out.parquet")
    assert sorted([*table["layer_name"].to_pylist(), *left]) == sorted(TENSORS)


def test_rules_of_the_user_are_named_by_their_patterns(folder: Path, tmp_path: Path) -> None:
    rules = [Rule(("*odd*", "conv*"), skip=True), Rule("*up*"), Rule("*norm*", skip=True)]
    done = convert(folder, tmp_path / "out.parquet", recipe=Recipe(rules, default="skip"))
    left = reasons(done.unquantized, kept=False)
    assert left["conv.weight"] == "the recipe leaves them out ('*odd*', 'conv*')"
    assert left["model.layers.0.input_layernorm.weight"] == "the recipe leaves them out ('*norm*')"
    assert left["model.embed_tokens.weight"] == "no rule of the recipe is for them"


def test_models_of_llama_cpp_and_onnx_keep_all(tmp_path: Path) -> None:
    gguf_models.saved(tmp_path / "m.gguf")
    with (
        pytest.warns(UserWarning, match="Kept, as the format does not take their shape: small"),
        pytest.warns(UserWarning, match="decoded first: 1 of Q8_0"),
    ):
        done = convert(tmp_path / "m.gguf", tmp_path / "out.gguf", bit_width=4)
    assert all(tensor.kept for tensor in done.unquantized)
    assert {tensor.name: tensor.dtype for tensor in done.unquantized} == {
        "blk.0.norm.weight": "F32",
        "small.weight": "F32",
    }
    onnx.save(onnx_models.mlp().proto(), tmp_path / "m.onnx")
    done = convert(tmp_path / "m.onnx", tmp_path / "out.onnx")
    other = "no constant matrices of a MatMul or Gemm"
    assert reasons(done.unquantized, kept=True) == {"bias": other}
    assert reasons(done.unquantized, kept=False) == {}


def test_arrays_that_no_format_has_are_named(tmp_path: Path) -> None:
    words = np.array(["a", "b"])
    meta = np.array({"epoch": 3}, object)
    np.savez(tmp_path / "m.npz", w=np.ones((32, 64), np.float32), words=words, meta=meta)
    expected = {"words": "of dtype <U1", "meta": "of dtype object"}
    for to in ("parquet", "onnx"):
        done = convert(tmp_path / "m.npz", tmp_path / f"out.{to}")
        assert reasons(done.unquantized, kept=False) == expected
    with pytest.warns(UserWarning, match="Left out, as the format has no"):
        done = convert(tmp_path / "m.npz", tmp_path / "out.gguf")
    assert reasons(done.unquantized, kept=False) == expected


@pytest.mark.filterwarnings("ignore:Kept, as:UserWarning")
def test_the_command_says_it_all(folder: Path, tmp_path: Path) -> None:
    for options in ([], ["--dry-run"]):
        out = tmp_path / f"out{len(options)}"
        said = succeeded("quantize", folder, out, "--to", "compressed-tensors", *options)
        assert "Kept, no matrices: " in said
        assert "Kept, of dtype I64: position_ids (72 B)\n" in said
        found = json.loads(
            succeeded(
                "quantize", folder, f"{out}.json", "--to", "compressed-tensors", *options, "--json"
            )
        )
        assert {tensor["name"] for tensor in found["unquantized"]} == TENSORS.keys() - {UP}


def test_long_lists_are_shortened(tmp_path: Path) -> None:
    tensors = {f"layers.{n}.norm": np.ones(4, np.float32) for n in range(10)}
    save_file({UP: TENSORS[UP], **tensors}, tmp_path / "m.safetensors")
    said = succeeded("quantize", tmp_path / "m.safetensors", tmp_path / "out.gguf")
    names = "layers.0.norm, layers.1.norm, layers.2.norm and 7 more"
    assert f"Kept, no matrices: {names} (160 B)\n" in said


@pytest.mark.parametrize("to", ["parquet", "gguf", "onnx", "mlx"])
def test_what_is_quantized_already_is_refused(tmp_path: Path, to: str) -> None:
    tensors = {"up.qweight": np.ones((8, 64), np.int32), "up.scales": np.ones((1, 64), np.float16)}
    save_file(tensors, tmp_path / "gptq.safetensors")
    said = failed("quantize", tmp_path / "gptq.safetensors", tmp_path / "out", "--to", to)
    assert "gptq.safetensors is quantized already: of its 2 matrices 1 of I32, 1 of F16" in said
    assert "such as 'up.qweight': codes of GPTQ or AWQ are not decoded" in said
    save_file({UP: TENSORS[UP]}, tmp_path / "m.safetensors")
    convert(tmp_path / "m.safetensors", tmp_path / "table.parquet")
    said = failed("quantize", tmp_path / "table.parquet", tmp_path / "out", "--to", to)
    assert "table.parquet is quantized already: it has results of pyarrowquant" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("rows", "said"), [(16, True), (512, False)])
def test_it_is_said_where_most_of_a_model_stays(tmp_path: Path, rows: int, said: bool) -> None:
    experts = np.ones((4, 32, 128), np.float32)
    tensors = {UP: np.ones((rows, 128), np.float32), "experts.down_proj": experts}
    save_file(tensors, tmp_path / "m.safetensors")
    printed = succeeded("quantize", tmp_path / "m.safetensors", tmp_path / "m.onnx")
    text = "Less than half of the model is quantized: 65.5 kB are not\n"
    assert (text in printed) is said


@pytest.mark.parametrize("dtype", ["F64", "F8_E5M2", "F4"])
def test_what_mlx_does_not_load_is_left_out_by_name(tmp_path: Path, dtype: str) -> None:
    import mlx.core as mx

    size = {"F64": 64, "F8_E5M2": 8, "F4": 4}[dtype]
    up = np.ones((32, 128), np.float32).tobytes()
    header = json.dumps(
        {
            "up.weight": {"dtype": "F32", "shape": [32, 128], "data_offsets": [0, len(up)]},
            "other": {"dtype": dtype, "shape": [8], "data_offsets": [len(up), len(up) + size]},
        }
    ).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + up + bytes(size))
    with pytest.warns(UserWarning, match=f"Left out, as the format has no {dtype}: other"):
        done = convert(path, tmp_path / "out", to="mlx")
    assert reasons(done.unquantized, kept=False) == {"other": f"of dtype {dtype}"}
    assert "up.scales" in mx.load(str(tmp_path / "out" / "model.safetensors"))


def test_reasons_are_the_same_with_a_budget(folder: Path, tmp_path: Path) -> None:
    planned = plan(folder, tmp_path / "out.parquet", bits_per_weight=5)
    assert (
        planned.unquantized
        == convert(folder, tmp_path / "out.parquet", bits_per_weight=5).unquantized
    )
    assert "of fewer than two dimensions" in {tensor.reason for tensor in planned.unquantized}


def test_warnings_say_what_is_so(tmp_path: Path) -> None:
    odd = {"odd.weight": np.ones((8, 100), np.float32), "none.weight": np.ones((0, 64), np.float32)}
    save_file({UP: TENSORS[UP], **odd}, tmp_path / "m.safetensors")
    for name, kept, lost in (
        ("out.gguf", ["odd.weight"], ["none.weight"]),
        ("out.onnx", [], ["none.weight"]),
    ):
        said = run("quantize", tmp_path / "m.safetensors", tmp_path / name)
        assert said.exit_code == 0
        shape = "as the format does not take their shape: "
        lines = said.stderr.splitlines()
        assert (f"Kept, {shape}{', '.join(kept)}" in lines) == bool(kept)
        assert f"Left out, {shape}{', '.join(lost)}" in lines
