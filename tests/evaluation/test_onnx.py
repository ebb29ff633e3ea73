"""Evaluations of ONNX models by ONNX Runtime, beside formulas in numpy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf_models
import hf_folders
import numpy as np
import pytest
from commands import failed, succeeded
from onnx import helper
from predicted_text import Tolerances, assert_figures
from safetensors.numpy import load_file

from evaluation.onnx_text_models import (
    FLOAT,
    WORDS,
    hidden,
    logits,
    proto,
    saved,
    tokenizer,
    weights,
)
from pyarrowquant import evaluate

CONTEXT = 50
PARAGRAPHS = [WORDS * 2, "A fox.", "Another dog jumps.\nIt is lazy.", WORDS * 9]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text(WORDS * 40)
    return path


def quantized(model: Path, out: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Quantize a model; return it and its weights, as `dequantize` has them."""
    succeeded("quantize", model, out, "--bits", 4, "--group-size", 32)
    (out.parent / "tokenizer.json").write_bytes((model.parent / "tokenizer.json").read_bytes())
    floats = out.with_suffix(".safetensors")
    succeeded("dequantize", out, floats)
    return out, {name: array.T for name, array in load_file(floats).items()}


def distributions(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of probabilities of the tokens behind each window's half, and these."""
    made = tokenizer()
    first = made.token_to_id(hf_folders.SPECIAL[0])
    ids = [first, *made.encode(WORDS * 40, add_special_tokens=False).ids]
    found, behind = [], []
    for begin in range(0, len(ids) - CONTEXT + 1, CONTEXT):
        window = [first, *ids[begin + 1 : begin + CONTEXT]]
        rows = logits(arrays, window)[CONTEXT // 2 : CONTEXT - 1]
        rows = rows - rows.max(axis=1, keepdims=True)
        found.append(rows - np.log(np.exp(rows).sum(axis=1, keepdims=True)))
        behind += window[CONTEXT // 2 + 1 :]
    return np.concatenate(found), np.array(behind)


def test_numbers_are_those_of_the_formulas(tmp_path: Path, text: Path) -> None:
    arrays = weights()
    model = saved(tmp_path / "model.onnx", proto(arrays, "logits"))
    out, decoded = quantized(model, tmp_path / "q.onnx")
    assert not np.array_equal(decoded["up"], arrays["up"])
    p, behind = distributions(arrays)
    q, _ = distributions(arrays | decoded)
    found = evaluate(out, text, against=model, context=CONTEXT, threads=1)
    assert_figures(found, q, p, behind, CONTEXT, Tolerances(1e-3, 1e-3, 0))
    alone = evaluate(out, text, context=CONTEXT)
    assert (alone.perplexity, alone.divergence) == (pytest.approx(found.perplexity), None)


def passages() -> list[list[int]]:
    made = tokenizer()
    begin, end = (made.token_to_id(each) for each in hf_folders.SPECIAL)
    found = []
    for paragraph in PARAGRAPHS:
        ids = made.encode(paragraph.strip(), add_special_tokens=False).ids
        for start in range(0, len(ids), CONTEXT - 2):
            found.append([begin, *ids[start : start + CONTEXT - 2], end])
    return found


@pytest.mark.parametrize("output", ["last_hidden_state", "token_embeddings", "sentence_embedding"])
def test_cosines_are_those_of_the_embeddings(tmp_path: Path, output: str) -> None:
    arrays = weights()
    model = saved(tmp_path / "model.onnx", proto(arrays, output))
    out, decoded = quantized(model, tmp_path / "q.onnx")
    text = tmp_path / "a.txt"
    text.write_text("\n\n".join(PARAGRAPHS) + "\n \n\n")
    cosines = []
    for passage in passages():
        a, b = (
            rows.max(axis=0) if output == "sentence_embedding" else rows.mean(axis=0)
            for rows in (hidden(arrays, passage), hidden(arrays | decoded, passage))
        )
        cosines.append(a @ b / np.sqrt((a @ a) * (b @ b)))
    told = succeeded(
        "evaluate", out, "--against", model, "--text", text, "--context", CONTEXT, "--json"
    )
    found = json.loads(told)
    assert found == {
        "result": str(out),
        "reference": str(model),
        "passages": len(cosines),
        "tokens": sum(map(len, passages())),
        "context": CONTEXT,
        "cosine": pytest.approx(np.mean(cosines), abs=1e-6),
        "least_cosine": pytest.approx(np.min(cosines), abs=1e-6),
    }
    assert found["least_cosine"] < found["cosine"] < 0.9999
    shown = succeeded("evaluate", out, "--against", model, "--text", text, "--context", CONTEXT)
    assert shown == (
        f"{len(cosines)} passages of up to {CONTEXT} tokens: cosine {found['cosine']:.6f}, the "
        f"least {found['least_cosine']:.6f}\n"
    )


def test_a_model_differs_nothing_from_itself(tmp_path: Path, text: Path) -> None:
    """Also where the tokenizer is in the folder above; config.json says how much it takes."""
    model = saved(tmp_path / "onnx" / "model.onnx", proto(weights(), "last_hidden_state"))
    (tmp_path / "onnx" / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 30}))
    found = evaluate(model, text, against=model)
    assert (found.cosine, found.least_cosine) == (pytest.approx(1), pytest.approx(1))
    assert found.context == 30
    error = failed("evaluate", model, "--against", model, "--text", text, "--context", 31, code=2)
    assert "takes up to 30 tokens" in error


def test_what_cannot_be_evaluated_is_said(tmp_path: Path, text: Path) -> None:
    def said(*arguments: Any, code: int = 1) -> str:
        error = failed("evaluate", *arguments, "--text", text, code=code)
        assert error.splitlines()[-1].startswith("Error: ")
        assert error.count("\n") == 1 or code == 2
        return error

    arrays = weights()
    decoder = saved(tmp_path / "decoder.onnx", proto(arrays, "logits"))
    encoder = saved(tmp_path / "encoder.onnx", proto(arrays, "last_hidden_state"))
    error = said(encoder, "--against", decoder)
    assert f"'{decoder}' predicts the next token, and '{encoder}' gives embeddings" in error
    assert "that it was made from by --against" in said(encoder, code=2)
    gguf = gguf_models.saved(tmp_path / "model.gguf")
    error = said(decoder, "--against", gguf)
    assert f"{decoder} is an ONNX model, and {gguf} is a GGUF file" in error
    assert "give a GGUF file of its model, or a folder and an ONNX model" in error
    pooled = saved(tmp_path / "other.onnx", proto(arrays, "pooler_output"))
    assert f"{pooled} has the outputs pooler_output. Only models with the output" in said(pooled)
    classes = saved(tmp_path / "classes.onnx", proto(arrays, "logits", dimensions=2))
    assert "its logits have 2 dimensions, where those of tokens have 3" in said(classes)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertForMaskedLM"]}))
    assert "its logits are of masked tokens, by BertForMaskedLM" in said(decoder)
    (tmp_path / "config.json").unlink()
    narrow = arrays | {"head": arrays["head"][:, :50]}
    fewer = saved(tmp_path / "fewer.onnx", proto(narrow, "logits"))
    assert "gives logits of 50 tokens, and the text has token" in said(fewer)
    damaged = arrays | {"down": arrays["down"] * np.float32(np.nan)}
    bad = saved(tmp_path / "bad.onnx", proto(damaged, "last_hidden_state"))
    error = said(bad, "--against", encoder)
    assert f"{bad}: the embedding of passage 1 is NaN or Inf" in error
    text.write_text("\n \n")
    assert "the text has no tokens" in said(encoder, "--against", encoder)
    (tmp_path / "tokenizer.json").unlink()
    assert "has no tokenizer.json beside it" in said(decoder)
    decoder.write_bytes(b"garbage")
    assert f"{decoder}: no ONNX model that can be read" in said(decoder)


def test_vocabularies_that_differ(tmp_path: Path, text: Path) -> None:
    model = saved(tmp_path / "model.onnx", proto(weights(), "logits"))
    other = saved(tmp_path / "other" / "model.onnx", proto(weights(), "logits"))
    made = json.loads((tmp_path / "other" / "tokenizer.json").read_text())
    numbers = made["model"]["vocab"]
    numbers["a"], numbers["b"] = numbers["b"], numbers["a"]
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(made))
    error = failed("evaluate", other, "--against", model, "--text", text)
    assert f"The vocabularies of '{other}' and '{model}' differ: token " in error


def test_the_extra_is_named(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tmp_path / "model.onnx", proto(weights(), "logits"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for name in ("evaluation.onnx_models", "calibration.onnx_session"):
        monkeypatch.delitem(sys.modules, f"pyarrowquant.{name}", raising=False)
    error = failed("evaluate", model, "--text", text)
    assert error.startswith(
        "Error: Evaluating ONNX models runs them with onnxruntime and tokenizers ("
    )
    assert error.endswith("): pip install 'pyarrowquant[calibrate-onnx]'\n")


@pytest.mark.parametrize("past", [True, False])
def test_inputs_of_decoders(tmp_path: Path, text: Path, past: bool) -> None:
    """What comes from earlier tokens is empty; what is not known is refused."""
    name = "past_key_values.0.key" if past else "pixels"
    made = proto(weights(), "logits")
    made.graph.input.append(helper.make_tensor_value_info(name, FLOAT, ["batch", 2, "past", 8]))
    model = saved(tmp_path / "model.onnx", made)
    if past:
        plain = saved(tmp_path / "plain.onnx", proto(weights(), "logits"))
        found = evaluate(model, text, against=plain, context=CONTEXT)
        assert (found.divergence, found.top_agreement) == (0, 1)
    else:
        assert "it has the inputs pixels." in failed("evaluate", model, "--text", text)
