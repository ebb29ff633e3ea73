"""Evaluations of folders by transformers, beside its logits and formulas in numpy.

`make test-transformers` runs these, in an environment that has torch.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import pytest
import torch
import transformers
from calibrated_models import TEXT, saved
from commands import failed, succeeded
from predicted_text import Tolerances, assert_figures
from safetensors.numpy import load_file, save_file

from pyarrowquant import evaluate

CONTEXT = 50


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose predictions are no guesses, so that errors of weights change them."""
    folder = tmp_path / "model"
    saved(folder, "LlamaForCausalLM")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] *= 20
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    return path


def distributions(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of probabilities of the tokens behind each window's half, and these."""
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = hf_folders.bpe().encode(TEXT).ids
    found, behind = [], []
    for begin in range(0, len(ids) - CONTEXT + 1, CONTEXT):
        window = ids[begin : begin + CONTEXT]
        with torch.no_grad():
            logits = loaded(input_ids=torch.tensor([window])).logits[0].double()
        found.append(logits.log_softmax(-1)[CONTEXT // 2 : CONTEXT - 1].numpy())
        behind += window[CONTEXT // 2 + 1 :]
    return np.concatenate(found), np.array(behind)


def test_models_of_bfloat16_are_decoded_by_bitsandbytes(text: Path, tmp_path: Path) -> None:
    """Which leaves what it has not quantized as it is."""
    folder, out, plain = tmp_path / "model", tmp_path / "out", tmp_path / "plain"
    saved(folder, "LlamaForCausalLM", torch.bfloat16)
    succeeded("quantize", folder, out, "--to", "bitsandbytes")
    succeeded("dequantize", out, plain)
    q, behind = distributions(plain)
    found = evaluate(out, text, against=folder, context=CONTEXT, threads=1)
    assert found.perplexity == pytest.approx(
        np.exp(-q[np.arange(len(behind)), behind].mean()), rel=1e-4
    )


@pytest.mark.parametrize(
    "options",
    [["--to", "compressed-tensors"], ["--recipe", "FP8_DYNAMIC"], ["--to", "bitsandbytes"]],
)
def test_numbers_are_those_of_the_formulas(
    model: Path, text: Path, tmp_path: Path, options: list[str]
) -> None:
    out, plain = tmp_path / "out", tmp_path / "plain"
    to = [] if "--to" in options else ["--to", "compressed-tensors"]
    succeeded("quantize", model, out, *options, *to)
    succeeded("dequantize", out, plain)
    q, behind = distributions(plain)
    p, _ = distributions(model)
    found = evaluate(out, text, against=model, context=CONTEXT, threads=1)
    assert_figures(found, q, p, behind, CONTEXT, Tolerances(1e-3, 1e-3, 0.01))


def test_folders_of_several_widths(model: Path, text: Path, tmp_path: Path) -> None:
    out, rules = tmp_path / "out", tmp_path / "rules.json"
    named = [{"match": "*mlp*", "bit_width": 3}, {"match": "*o_proj*", "bit_width": 8}]
    rules.write_text(json.dumps({"extends": "text", "rules": named}))
    succeeded("quantize", model, out, "--to", "compressed-tensors", "--recipe", rules)
    groups = json.loads((out / "config.json").read_text())["quantization_config"]["config_groups"]
    assert {group["weights"]["num_bits"] for group in groups.values()} == {3, 4, 8}
    q, behind = distributions(out)
    p, _ = distributions(model)
    found = evaluate(out, text, against=model, context=CONTEXT, threads=1)
    assert_figures(found, q, p, behind, CONTEXT, Tolerances(1e-3, 1e-3, 0.01))


def test_experts_that_transformers_decodes_without_a_scale(text: Path, tmp_path: Path) -> None:
    folder, out, plain = tmp_path / "model", tmp_path / "out", tmp_path / "plain"
    saved(folder, "Qwen3MoeForCausalLM")
    succeeded("quantize", folder, out, "--to", "compressed-tensors", "--recipe", "NVFP4A16")
    succeeded("dequantize", out, plain)
    q, behind = distributions(plain)
    p, _ = distributions(folder)
    found = evaluate(out, text, against=folder, context=CONTEXT, threads=1)
    assert_figures(found, q, p, behind, CONTEXT, Tolerances(1e-3, 1e-3, 0.01))


def test_a_model_differs_nothing_from_itself(model: Path, text: Path) -> None:
    found = evaluate(model, text, against=model)
    assert found.perplexity == found.reference_perplexity
    assert found.divergence == found.divergence_99 == 0
    assert found.top_agreement == 1
    alone = evaluate(model, text)
    assert (alone.perplexity, alone.divergence) == (found.perplexity, None)


def test_a_process_prints_nothing_else(model: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    succeeded("quantize", model, out, "--to", "compressed-tensors")
    command = [sys.executable, "-m", "pyarrowquant", "evaluate", out, "--against", model]
    more = ["--text", text, "--threads", 1, "--json"]
    ran = subprocess.run(
        [str(each) for each in (*command, *more)], check=True, capture_output=True, text=True
    )
    found = json.loads(ran.stdout)
    assert (found["result"], found["reference"]) == (str(out), str(model))
    assert all(json.loads(line)["what"] == "evaluate" for line in ran.stderr.splitlines())


def test_what_cannot_be_evaluated_is_said(model: Path, text: Path, tmp_path: Path) -> None:
    def said(*arguments: Any, code: int = 1) -> str:
        error = failed("evaluate", *arguments, "--text", text, code=code)
        assert error.count("\n") == 1
        return error

    seen, mlx, gguf = tmp_path / "seen", tmp_path / "mlx", tmp_path / "x.gguf"
    seen.mkdir()
    for name in ("ViTModel", "T5ForConditionalGeneration", "PreTrainedModel", "nothing", 5):
        (seen / "config.json").write_text(json.dumps({"architectures": [name]}))
        assert f"{name!r} of its config.json is no class of transformers that" in said(seen)
    (seen / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert f"'{seen}': its config.json has no architectures, such as" in said(seen)
    succeeded("quantize", model, mlx, "--to", "mlx")
    assert "is MLX's, which transformers does not run" in said(mlx, "--against", model)
    succeeded("quantize", model, gguf)
    for pair, kinds in (
        ((gguf, model), f"{gguf} is a GGUF file, and {model} is a folder"),
        ((model, gguf), f"{model} is a folder, and {gguf} is a GGUF file"),
    ):
        error = said(pair[0], "--against", pair[1])
        assert kinds in error
        assert f"`pyarrowquant dequantize {model} x.gguf` makes a GGUF file" in error
    succeeded("dequantize", model, tmp_path / "plain.gguf")
    assert "a folder without config.json" in said(tmp_path)
    assert re.search(r"model takes up to \d+ tokens", said(model, "--context", 99999, code=2))
    other = tmp_path / "other"
    saved(other, "LlamaForCausalLM")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    numbers = tokenizer["model"]["vocab"]
    numbers["a"], numbers["b"] = numbers["b"], numbers["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    error = said(other, "--against", model)
    assert f"The vocabularies of '{other}' and '{model}' differ: token " in error
    (other / "tokenizer.json").unlink()
    assert f"'{other}': transformers loads no tokenizer of it" in said(other, "--against", model)
    text.write_text("A few words.")
    assert re.search(r"the text has \d+ tokens, and a window 512", said(model))


def test_weights_that_are_not_numbers(model: Path, text: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"][0] = np.nan
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    assert "model: predicts NaN for token 1" in failed("evaluate", model, "--text", text)
