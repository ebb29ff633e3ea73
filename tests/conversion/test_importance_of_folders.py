"""Importance by the names of a Hugging Face folder, for llama.cpp's tensors of the same model."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import gguf_models
import hf_folders
import numpy as np
import pytest
from commands import failed, run, succeeded
from mixture_models import DEEPSEEK, deepseek
from safetensors.numpy import save_file

import pyarrowquant

Values = dict[str, np.ndarray]
SAID = json.dumps({"format_version": 1, "texts": [], "tokens": 9})
RANDOM = np.random.default_rng(17)
LLAMA = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
EXPERTS = 11  # of which 10 comes before 2 in the order of names
STACKS = {"ffn_gate": (32, 256), "ffn_up": (32, 256), "ffn_down": (48, 256)}
COLUMNS = 256


def means(*shape: int) -> np.ndarray:
    return RANDOM.exponential(size=shape).astype(np.float32) ** 2


def importance(folder: Path, values: Values) -> Path:
    """A file as `calibrate` writes it; files go by the same name, which models say."""
    folder.mkdir()
    counts = {f"{name}.count": np.array([9]) for name in values}
    file = folder / "importance.safetensors"
    save_file({**values, **counts}, file, metadata={"pyarrowquant.importance": SAID})
    return file


def of_llama(layers: int) -> tuple[Values, Values]:
    """Importance by the names of a folder, and the same by llama.cpp's."""
    theirs, ours = {}, {}
    for layer in range(layers):
        for module, name in LLAMA.items():
            values = means(512 if name == "ffn_down" else COLUMNS)
            theirs[f"model.layers.{layer}.{module}.weight"] = values
            ours[f"blk.{layer}.{name}.weight"] = values
    theirs["lm_head.weight"] = ours["output.weight"] = means(COLUMNS)
    return theirs, ours


def of_experts(before: str, matrices: dict[str, str]) -> tuple[Values, Values]:
    """The same of the experts of a layer, each of which is a module of the folder."""
    theirs, ours = {}, {}
    for name, (_, columns) in STACKS.items():
        each = means(EXPERTS, columns)
        for expert in range(EXPERTS):
            theirs[f"{before}.{expert}.{matrices[name]}.weight"] = each[expert]
        ours[f"blk.0.{name}_exps.weight"] = each.reshape(-1)
    return theirs, ours


def weights(*shape: int) -> np.ndarray:
    return (RANDOM.standard_normal(shape) / 50).astype(np.float32)


def mixture(path: Path, architecture: str) -> Path:
    model = {f"blk.0.{name}_exps.weight": weights(EXPERTS, *STACKS[name]) for name in STACKS}
    return gguf_models.written(path, model, architecture, block_count=1, expert_count=EXPERTS)


def tensors(path: Path) -> dict[str, bytes]:
    return {tensor.name: tensor.data.tobytes() for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.filterwarnings("ignore:Without importance")
def test_of_a_llama(tmp_path: Path) -> None:
    source = gguf_models.llama(tmp_path / "m.gguf", layers=2)
    theirs, ours = of_llama(2)
    for name, values in {"theirs": theirs, "ours": ours}.items():
        file = importance(tmp_path / name, values)
        told = run("quantize", source, tmp_path / f"{name}.gguf", "--importance", file)
        assert told.exit_code == 0, told.output
        assert "so quantized as without a file: token_embd.weight\n" in told.stderr
        pyarrowquant.convert(source, tmp_path / f"{name}.parquet", importance=file)
    for suffix in (".gguf", ".parquet"):
        found = (tmp_path / f"theirs{suffix}").read_bytes()
        assert found == (tmp_path / f"ours{suffix}").read_bytes()
    pyarrowquant.convert(source, tmp_path / "plain.gguf")
    plain, weighed = tensors(tmp_path / "plain.gguf"), tensors(tmp_path / "theirs.gguf")
    assert {name for name in plain if plain[name] != weighed[name]} == ours.keys()


def test_matrices_that_a_layer_has_not(tmp_path: Path) -> None:
    source = gguf_models.llama(tmp_path / "m.gguf", layers=1)
    name = "model.layers.0.self_attn.q_proj.weight"
    file = tmp_path / "i.safetensors"
    entries = {name: means(256), f"{name}.count": np.array([3, 4])}
    save_file(entries, file, metadata={"pyarrowquant.importance": SAID})
    said = failed("quantize", source, tmp_path / "x.gguf", "--importance", file)
    assert said == (
        "Error: 'i.safetensors' has 2 x 128 values for layer 'blk.0.attn_q.weight', which has 256 "
        "columns. It is of another model\n"
    )


@pytest.mark.parametrize(
    ("architecture", "before", "matrices"),
    [
        ("llama", "model.layers.0.block_sparse_moe.experts", ("w1", "w3", "w2")),
        ("qwen3moe", "model.layers.0.mlp.experts", ("gate_proj", "up_proj", "down_proj")),
        # Which is converted by llama.cpp alone.
        ("olmoe", "model.layers.0.mlp.experts", ("gate_proj", "up_proj", "down_proj")),
    ],
)
def test_of_experts(
    tmp_path: Path, architecture: str, before: str, matrices: tuple[str, ...]
) -> None:
    source = mixture(tmp_path / "m.gguf", architecture)
    theirs, ours = of_experts(before, dict(zip(STACKS, matrices, strict=True)))
    for name, values in {"theirs": theirs, "ours": ours}.items():
        file = importance(tmp_path / name, values)
        pyarrowquant.convert(source, tmp_path / f"{name}.gguf", importance=file)
    pyarrowquant.convert(source, tmp_path / "plain.gguf")
    found = tensors(tmp_path / "theirs.gguf")
    assert found == tensors(tmp_path / "ours.gguf")
    plain = tensors(tmp_path / "plain.gguf")
    assert all(plain[name] != found[name] for name in ours)


def test_of_stacks_of_the_folder(tmp_path: Path) -> None:
    """Gates and what goes up are one stack there, and so have one importance."""
    source = mixture(tmp_path / "m.gguf", "qwen3moe")
    before, both, down = "model.layers.0.mlp.experts", means(EXPERTS * 256), means(EXPERTS * 256)
    theirs = {f"{before}.gate_up_proj": both, f"{before}.down_proj": down}
    ours = {f"blk.0.ffn_{name}_exps.weight": both for name in ("gate", "up")}
    ours["blk.0.ffn_down_exps.weight"] = down
    for name, values in {"theirs": theirs, "ours": ours}.items():
        file = importance(tmp_path / name, values)
        pyarrowquant.convert(source, tmp_path / f"{name}.gguf", importance=file)
    assert tensors(tmp_path / "theirs.gguf") == tensors(tmp_path / "ours.gguf")


def test_what_lacks_is_named(tmp_path: Path) -> None:
    source = mixture(tmp_path / "m.gguf", "qwen3moe")
    matrices = dict(zip(STACKS, ("gate_proj", "up_proj", "down_proj"), strict=True))
    theirs, _ = of_experts("model.layers.0.mlp.experts", matrices)
    for expert in (3, EXPERTS - 1):
        del theirs[f"model.layers.0.mlp.experts.{expert}.up_proj.weight"]
        file = importance(tmp_path / f"without-{expert}", theirs)
        with pytest.warns(UserWarning, match=r"without a file: blk\.0\.ffn_up_exps\.weight$"):
            pyarrowquant.plan(source, tmp_path / "x.gguf", importance=file)
    gate = "model.layers.0.mlp.experts.{}.gate_proj.weight"
    more = importance(tmp_path / "more", {**theirs, gate.format(EXPERTS): means(256)})
    said = failed("quantize", source, tmp_path / "x.gguf", "--importance", more)
    assert f"has {256 * (EXPERTS + 1)} values for layer 'blk.0.ffn_gate_exps.weight'" in said


def test_another_model_is_refused(tmp_path: Path) -> None:
    theirs, _ = of_llama(1)
    file = importance(tmp_path / "theirs", theirs)
    for architecture in ("qwen3moe", "", "nobody's"):
        source = mixture(tmp_path / "m.gguf", architecture)
        said = failed("quantize", source, tmp_path / "x.gguf", "--importance", file)
        assert "has the importance of 8 layers, such as " in said
        assert "and of none that" in said


@pytest.mark.parametrize(
    ("architecture", "theirs", "has_head", "expected"),
    [
        ("gemma", "model.embed_tokens.weight", False, ["token_embd.weight"]),
        ("gemma3", "language_model.model.embed_tokens.weight", False, ["token_embd.weight"]),
        ("gemma", "lm_head.weight", False, ["token_embd.weight"]),
        ("qwen2", "embed_tokens.weight", False, ["token_embd.weight"]),
        ("llama", "lm_head.weight", True, ["output.weight"]),
        ("olmo2", "model.embed_tokens.weight", True, ["output.weight", "token_embd.weight"]),
    ],
)
@pytest.mark.filterwarnings("ignore:Without importance")
def test_of_the_head(
    tmp_path: Path, architecture: str, theirs: str, has_head: bool, expected: list[str]
) -> None:
    names = ["token_embd.weight", *(["output.weight"] if has_head else [])]
    model = {name: weights(64, COLUMNS) for name in names}
    source = gguf_models.written(tmp_path / "m.gguf", model, architecture, block_count=1)
    values = means(COLUMNS)
    ours = dict.fromkeys(expected, values)
    for name, said in {"theirs": {theirs: values}, "ours": ours}.items():
        file = importance(tmp_path / name, said)
        pyarrowquant.convert(source, tmp_path / f"{name}.gguf", importance=file)
    pyarrowquant.convert(source, tmp_path / "plain.gguf")
    plain, found = tensors(tmp_path / "plain.gguf"), tensors(tmp_path / "theirs.gguf")
    assert found == tensors(tmp_path / "ours.gguf")
    assert sorted(name for name in plain if plain[name] != found[name]) == expected


@pytest.mark.filterwarnings("ignore:Their rows are no whole", "ignore:Quantized already")
def test_of_deepseek(tmp_path: Path) -> None:
    """What makes values is apart by heads, each with all columns; what makes keys is turned."""
    theirs = {n: means(each.shape[1]) for n, each in deepseek().items() if each.ndim == 2}
    attention = "model.layers.{}.self_attn.kv_b_proj.weight"
    both = {f"blk.{i}.attn_v_b.weight": np.tile(theirs[attention.format(i)], 8) for i in range(2)}
    ours = {name: each for name, each in theirs.items() if "kv_b_proj" not in name} | both
    folder = hf_folders.write(tmp_path / "model", deepseek(), **DEEPSEEK)
    succeeded("dequantize", folder, tmp_path / "m.gguf")
    files = [importance(tmp_path / "theirs", theirs), importance(tmp_path / "ours", ours)]
    out = tmp_path / "out.gguf"
    for source, rescale in ((folder, "off"), (folder, "on"), (tmp_path / "m.gguf", "off")):
        options = {"encoding": "iq4_nl", "rescale": rescale, "overwrite": True}
        found = []
        for file in files:
            with pytest.warns(UserWarning, match=r"a file: blk\.0\.attn_k_b.*blk\.1\.attn_k_b"):
                pyarrowquant.convert(source, out, importance=file, **options)
            found.append(tensors(out))
        assert found[0] == found[1]
