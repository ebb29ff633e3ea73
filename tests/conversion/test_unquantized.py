"""Every tensor of a source is quantized, or named with what becomes of it and why."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import gguf
import gguf_models
import hf_folders
import numpy as np
import onnx
import onnx_models
import pyarrow.parquet as pq
import pytest
from commands import failed, run, succeeded
from models import source_for
from safetensors.numpy import load_file, save_file

from pyarrowquant import Recipe, Rule, UnquantizedTensor, convert, plan
from pyarrowquant.errors import UnquantizedTensorWarning

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

SHAPE = "the format does not take their shape"
# What is said of some tensors; the rest depends on what sources and formats have.
PLACES = {
    "gguf": {
        "patches.weight": "Left out, the format has no tensors of 5 dimensions",
        "none.weight": "Left out, the format has no empty tensors",
        "mask": "Left out, of dtype BOOL",
        "kernel.weight": "Kept, no matrices",
        "odd.weight": f"Kept, {SHAPE}",
    },
    "mlx": {
        "patches.weight": "Kept, no matrices",
        "none.weight": f"Kept, {SHAPE}",
        "odd.weight": f"Kept, {SHAPE}",
    },
    "onnx": {
        "patches.weight": "Left out, no matrices",
        "none.weight": f"Left out, {SHAPE}",
        "mask": "Left out, of dtype BOOL",
    },
    "parquet": {
        "norm.weight": "Left out, of fewer than two dimensions",
        "mask": "Left out, of dtype BOOL",
    },
    "compressed-tensors": {
        "patches.weight": "Kept, no matrices",
        "none.weight": f"Kept, {SHAPE}",
        "odd.weight": f"Kept, {SHAPE}",
    },
    "bitsandbytes": {
        "patches.weight": "Kept, no matrices",
        "none.weight": f"Kept, {SHAPE}",
        "odd.weight": f"Kept, {SHAPE}",
    },
}


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


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["quantize", "plan"])
@pytest.mark.parametrize(
    ("to", "rows", "figure"),
    [
        ("onnx", 16, "81.9 kB"),
        ("gguf", 16, "81.9 kB"),  # which keeps them
        ("mlx", 159, "81.9 kB"),
        ("mlx", 160, None),  # as many bytes as the others
        ("onnx", 161, None),
    ],
)
def test_it_is_said_where_most_of_a_model_stays(
    tmp_path: Path, to: str, rows: int, figure: str | None, options: list[str]
) -> None:
    tensors = {
        UP: np.ones((rows, 128), np.float32),
        "kernel.weight": np.ones((4, 2, 32, 64), np.float32),  # 65,536 bytes
        "ids": np.ones((32, 64), np.int64),  # 16,384 bytes
    }
    save_file(tensors, tmp_path / "m.safetensors")
    path = tmp_path / "m.safetensors"
    said = succeeded("quantize", path, tmp_path / "out", "--to", to, *options)
    lines = [line for line in said.splitlines() if line.startswith("Less than half")]
    text = f"Less than half of the model is quantized: {figure} are not"
    assert lines == ([] if figure is None else [text])


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["quantize", "plan"])
@pytest.mark.parametrize("quantized_already", [False, True])
def test_what_stays_quantized_does_not_count_as_floats(
    tmp_path: Path, quantized_already: bool, options: list[str]
) -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    stays = np.ones((256, 64), np.float32)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("blk.0.ffn_up.weight", np.ones((32, 64), np.float32))
    if quantized_already:
        writer.add_tensor("blk.0.ffn_down.weight", gguf.quantize(stays, kind), raw_dtype=kind)
    else:
        writer.add_tensor("blk.0.ffn_down.weight", stays)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"rules": [{"match": "*down*", "skip": true}]}')
    said = succeeded(
        "quantize", tmp_path / "m.gguf", tmp_path / "out.gguf", "--recipe", recipe, *options
    )
    text = "Less than half of the model is quantized: 65.5 kB are not\n"
    assert (text in said) is not quantized_already
    assert ("Less than half" in said) is not quantized_already


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


@pytest.mark.filterwarnings("ignore:Left out, as the format has no F64")
def test_a_model_for_mlx_lacks_no_weights(tmp_path: Path) -> None:
    tensors = hf_folders.llama()
    tensors["model.rotary_emb.inv_freq"] = np.ones(16, np.float64)  # which is computed
    folder = hf_folders.write(tmp_path / "model", tensors, model_type="llama")
    convert(folder, tmp_path / "out", to="mlx")
    for name in ("model.norm.weight", "model.layers.0.mlp.up_proj.weight"):
        changed = {**tensors, name: tensors[name].astype(np.float64)}
        save_file(changed, folder / "model.safetensors")
        error = failed("quantize", folder, tmp_path / "more", "--to", "mlx", code=2)
        assert f"MLX has no F64, which '{name}' is. Store it as F32" in error
        assert not (tmp_path / "more").exists()
    convert(folder, tmp_path / "more", to="mlx", tensors_only=True)


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
    for name, expected in (
        (
            "out.gguf",
            {
                "Kept, as the format does not take their shape: odd.weight",
                "Left out, as the format has no empty tensors: none.weight",
            },
        ),
        ("out.onnx", {"Left out, as the format does not take their shape: none.weight"}),
    ):
        for does in (plan, convert):
            with pytest.warns(UnquantizedTensorWarning) as warned:
                does(tmp_path / "m.safetensors", tmp_path / name)
            assert {str(each.message) for each in warned} == expected
            assert len(warned) == len(expected)


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
@pytest.mark.parametrize("source", ["safetensors", "npz", "folder"])
@pytest.mark.parametrize("to", list(PLACES))
def test_each_tensor_is_named_once(
    tmp_path: Path, to: str, source: str, options: list[str]
) -> None:
    tensors = {
        UP: TENSORS[UP],
        "odd.weight": np.ones((16, 100), np.float32),
        "none.weight": np.ones((0, 64), np.float32),
        "patches.weight": np.ones((4, 3, 2, 4, 4), np.float32),
        "kernel.weight": np.ones((4, 3, 4, 4), np.float32),
        "experts.weight": np.ones((4, 32, 100), np.float32),
        "norm.weight": np.ones(64, np.float32),
        "double.weight": np.ones((2, 2)),
        "mask": np.ones(3, bool),
    }
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "dtype": "float32"}')
    save_file(tensors, folder / "model.safetensors")
    np.savez(folder / "m.npz", **tensors)
    file = folder / {"safetensors": "model.safetensors", "npz": "m.npz", "folder": ""}[source]
    result = run("quantize", file, tmp_path / "out", "--to", to, "--tensors-only", *options)
    if to in ("compressed-tensors", "bitsandbytes") and source != "folder":
        assert result.exit_code == 1
        assert result.stderr == (
            f"Error: '{file}' is a file. Give the folder of a Hugging Face model, which has "
            "config.json, the tokenizer and the weights\n"
        )
        return
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    lines = [line for line in result.stdout.splitlines() if "with 4 bits" not in line]
    named = [name for name in tensors if any(name in line for line in lines)]
    for name in named:
        assert sum(line.count(name) for line in lines) == 1, name
    found = json.loads(
        succeeded(
            *("quantize", file, tmp_path / "json", "--to", to, "--tensors-only"), *options, "--json"
        )
    )
    assert sorted(named) == sorted(tensor["name"] for tensor in found["unquantized"])
    for name, what in PLACES[to].items():
        assert any(line.startswith(f"{what}: ") and name in line for line in lines), name


@pytest.mark.parametrize(("to", "what"), [("gguf", "Kept"), ("parquet", "Left out")])
def test_what_failed_is_said_to_be_where_it_is(tmp_path: Path, to: str, what: str) -> None:
    bad = np.full((32, 64), np.nan, np.float32)
    save_file({UP: TENSORS[UP], "bad.weight": bad}, tmp_path / "m.safetensors")
    said = succeeded(
        "quantize", tmp_path / "m.safetensors", tmp_path / f"out.{to}", "--continue-on-error"
    )
    assert f"1 layer failed\n{what}, with NaN or Inf: bad.weight (8.19 kB)\n" in said
    assert said.count("eft out") == (what == "Left out")
