"""Evaluations of an ONNX model beside the folder that it computes the same as.

`make test-transformers` runs these, in an environment that has torch and ONNX Runtime.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hf_folders
import numpy as np
import onnx
import pytest
import torch
import transformers
from calibrated_models import SIZES, TEXT, save_tokenizer
from commands import failed, succeeded
from onnx import helper, numpy_helper
from predicted_text import Tolerances, assert_figures

from pyarrowquant import evaluate

INT64, FLOAT = onnx.TensorProto.INT64, onnx.TensorProto.FLOAT
EPSILON = 1e-5
CONTEXT = 50
node, value = helper.make_node, helper.make_tensor_value_info


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text(TEXT[:600] + "\n\n" + TEXT[:2000])
    return path


def saved(folder: Path, kind: str) -> dict[str, np.ndarray]:
    """Save a Llama without layers, which is a table, a norm and perhaps a head; return these."""
    torch.manual_seed(3)
    said = {**SIZES, "num_hidden_layers": 0, "rms_norm_eps": EPSILON}
    model = getattr(transformers, kind)(transformers.LlamaConfig(**said))
    arrays = {}
    for name, parameter in model.named_parameters():
        parameter.data = torch.randn(parameter.shape) + ("norm" in name)
        arrays[name.removeprefix("model.")] = parameter.detach().numpy()
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return arrays


def exported(path: Path, arrays: dict[str, np.ndarray], outputs: dict[str, int]) -> Path:
    """Write what computes the same, and also gives the largest of what tokens become."""
    nodes = [
        node("Gather", ["embed_tokens.weight", "input_ids"], ["x"]),
        node("Mul", ["x", "x"], ["squares"]),
        node("ReduceMean", ["squares"], ["mean"], axes=[-1]),
        node("Add", ["mean", "epsilon"], ["more"]),
        node("Sqrt", ["more"], ["size"]),
        node("Div", ["x", "size"], ["unit"]),
        node("Mul", ["unit", "norm.weight"], ["last_hidden_state"]),
        node("ReduceMax", ["last_hidden_state"], ["sentence_embedding"], axes=[1], keepdims=0),
    ]
    constants = {**arrays, "epsilon": np.array(EPSILON, np.float32)}
    if "lm_head.weight" in constants:
        constants["lm_head"] = np.ascontiguousarray(constants.pop("lm_head.weight").T)
        nodes.append(node("MatMul", ["last_hidden_state", "lm_head"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("input_ids", INT64, ["batch", "length"])],
        [value(name, FLOAT, [None] * dimensions) for name, dimensions in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    (path.parent / "tokenizer.json").write_bytes(hf_folders.bpe().to_str().encode())
    return path


def distributions(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of probabilities of the tokens behind each window's half, and these."""
    ids = hf_folders.bpe().encode(TEXT[:600] + "\n\n" + TEXT[:2000]).ids
    table, weight, head = (
        arrays[name].astype(np.float64)
        for name in ("embed_tokens.weight", "norm.weight", "lm_head.weight")
    )
    found, behind = [], []
    for begin in range(0, len(ids) - CONTEXT + 1, CONTEXT):
        window = ids[begin : begin + CONTEXT]
        x = table[window]
        logits = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + EPSILON) * weight @ head.T
        logits -= logits.max(-1, keepdims=True)
        rows = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        found.append(rows[CONTEXT // 2 : CONTEXT - 1])
        behind += window[CONTEXT // 2 + 1 :]
    return np.concatenate(found), np.array(behind)


def test_predictions_are_compared(tmp_path: Path, text: Path) -> None:
    folder, beside = tmp_path / "model", tmp_path / "onnx"
    beside.mkdir()
    arrays = saved(folder, "LlamaForCausalLM")
    same = exported(beside / "same.onnx", arrays, {"logits": 3})
    found = evaluate(same, text, against=folder, context=CONTEXT)
    assert found.divergence == pytest.approx(0, abs=1e-9)
    assert found.top_agreement == 1
    rounded = {**arrays, "lm_head.weight": np.round(arrays["lm_head.weight"] * 8) / 8}
    other = exported(beside / "other.onnx", rounded, {"logits": 3})
    p, behind = distributions(arrays)
    q, _ = distributions(rounded)
    for result, reference, of_result, of_reference in (
        (other, folder, q, p),
        (folder, other, p, q),
    ):
        found = evaluate(result, text, against=reference, context=CONTEXT, threads=1)
        tolerances = Tolerances(1e-3, 1e-3, 0)
        assert_figures(found, of_result, of_reference, behind, CONTEXT, tolerances)


def test_embeddings_are_the_means_of_both(tmp_path: Path, text: Path) -> None:
    """Also where the ONNX model has another one of the text."""
    folder, beside = tmp_path / "model", tmp_path / "onnx"
    beside.mkdir()
    arrays = saved(folder, "LlamaModel")
    outputs = {"sentence_embedding": 2, "last_hidden_state": 3}
    model = exported(beside / "a.onnx", arrays, outputs)
    found: Any = evaluate(model, text, against=folder, context=CONTEXT)
    assert found.least_cosine == pytest.approx(1, abs=1e-6)
    assert found.passages > 2
    told = succeeded("evaluate", folder, "--against", model, "--text", text)
    assert "cosine 1.000000, the least 1.000000" in told


def test_models_of_other_tokens_are_refused(tmp_path: Path, text: Path) -> None:
    folder, beside = tmp_path / "model", tmp_path / "onnx"
    beside.mkdir()
    model = exported(beside / "a.onnx", saved(folder, "LlamaForCausalLM"), {"logits": 3})
    tokenizer = beside / "tokenizer.json"
    said = json.loads(tokenizer.read_text())
    numbers = said["model"]["vocab"]
    numbers["a"], numbers["b"] = numbers["b"], numbers["a"]
    tokenizer.write_text(json.dumps(said))
    error = failed("evaluate", model, "--against", folder, "--text", text)
    assert f"The vocabularies of '{model}' and '{folder}' differ" in error
