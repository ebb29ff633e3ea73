"""Evaluations by llama.cpp, beside logits of its own high level and formulas in numpy."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import contradicting_models
import gguf
import numpy as np
import pytest
import text_models
from commands import failed, run, succeeded
from llama_cpp import Llama
from predicted_text import Tolerances, assert_figures

from pyarrowquant import evaluate

TEXT = "The thing about an anthem: it is the end of them all, and then, ünder the other. " * 8


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    """A model with some noise, and without.

    Both are of floats: with codes, what llama.cpp computes depends on how tokens are batched.
    """
    rng = np.random.default_rng(1)
    weights = text_models.weights()
    noisy = {
        name: array + rng.standard_normal(array.shape, np.float32) / 100
        for name, array in weights.items()
    }
    return (
        text_models.saved(tmp_path / "noisy.gguf", noisy),
        text_models.saved(tmp_path / "model.gguf", weights),
    )


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def distributions(path: Path, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logarithms of probabilities of the tokens behind each window's half, and these."""
    llama = Llama(str(path), n_ctx=context, n_threads=2, logits_all=True, verbose=False)
    tokens = llama.tokenize(TEXT.encode())
    found, behind = [], []
    for start in range(0, len(tokens) - context + 1, context):
        window = [llama.token_bos(), *tokens[start + 1 : start + context]]
        llama.reset()
        llama.eval(window)
        found.append(np.array(llama.scores[context // 2 : context - 1], np.float64))
        behind += window[context // 2 + 1 :]
    llama.close()
    logits = np.concatenate(found)
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), np.array(behind)


@pytest.mark.parametrize("context", [16, 33, 64])
def test_numbers_are_those_of_the_formulas(
    models: tuple[Path, Path], text: Path, context: int
) -> None:
    result, reference = models
    q, behind = distributions(result, context)
    p, _ = distributions(reference, context)
    found = evaluate(result, text, against=reference, context=context, threads=2)
    assert_figures(found, q, p, behind, context, Tolerances(5e-3, 2e-2, 0.01))


def test_windows_longer_than_a_batch(text: Path, tmp_path: Path) -> None:
    path = text_models.saved(tmp_path / "long.gguf", context=1024)
    q, behind = distributions(path, 400)
    found = evaluate(path, text, context=400)
    assert found.tokens == len(behind) == 398
    assert found.perplexity == pytest.approx(
        np.exp(-q[np.arange(len(behind)), behind].mean()), rel=1e-4
    )
    assert found.divergence is found.reference_perplexity is found.top_agreement is None


def test_more_bits_are_nearer(models: tuple[Path, Path], text: Path, tmp_path: Path) -> None:
    divergences = []
    for bits in (4, 5, 8):
        path = tmp_path / f"{bits}.gguf"
        succeeded("quantize", models[1], path, "--bits", bits)
        divergences.append(evaluate(path, text, against=models[1]).divergence)
    assert divergences == sorted(divergences, reverse=True)  # type: ignore[type-var]
    assert 0 < divergences[-1] < divergences[0] / 10  # type: ignore[operator]


def test_a_model_differs_nothing_from_itself(models: tuple[Path, Path], text: Path) -> None:
    found = evaluate(models[1], text, against=models[1])
    assert found.perplexity == found.reference_perplexity
    assert found.divergence == found.divergence_99 == 0
    assert found.top_agreement == 1
    assert found.context == 64  # what the model takes


def test_the_command_prints_nothing_else(
    models: tuple[Path, Path], text: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result, reference = models
    command = ["evaluate", result, "--against", reference, "--text", text]
    found = json.loads(succeeded(*command, "--json"))
    assert (found["result"], found["reference"]) == (str(result), str(reference))
    printed = succeeded(*command, "--threads", 1)
    assert f"{found['perplexity']:.4f}" in printed
    assert re.search(r"KL divergence 0\.\d+ nats, 99th percentile .*, the same top token", printed)
    assert "KL" not in succeeded("evaluate", result, "--text", text)
    assert capfd.readouterr() == ("", "")


def test_no_more_threads_run_than_processors(models: tuple[Path, Path], text: Path) -> None:
    counts: list[int] = []

    def count(*_: int) -> None:
        tasks = Path("/proc/self/task").iterdir()
        children = " ".join((task / "children").read_text() for task in tasks).split()
        counts.append(max(len(list(Path(f"/proc/{child}/task").iterdir())) for child in children))

    evaluate(models[0], text, context=16, threads=5000, progress=count)
    assert 1 <= max(counts) < len(os.sched_getaffinity(0)) + 8


def test_progress(models: tuple[Path, Path], text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    evaluate(models[0], text, context=16, progress=lambda *step: told.append(step))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == 16 * len(told)
    monkeypatch.setattr("pyarrowquant.cli._progress._SECONDS_BETWEEN_LINES", 0)
    lines = run("evaluate", models[0], "--text", text, "--context", 16).stderr.splitlines()
    assert lines[0].startswith("evaluate: 16 of ")


def test_what_llama_cpp_logs_is_in_errors_alone(
    models: tuple[Path, Path], text: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = models[0].read_bytes()
    models[0].write_bytes(data[: len(data) // 2])
    said = failed("evaluate", models[0], "--text", text)
    assert "noisy.gguf: llama.cpp cannot load it: tensor 'blk." in said
    assert said.count("\n") == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (text_models.TOKENS[:-1], "260 tokens, and 261"),
        ([*text_models.TOKENS[:-1], "un"], "token 260 is 'un', and 'an'"),
    ],
)
def test_vocabularies_that_differ(
    models: tuple[Path, Path], text: Path, tmp_path: Path, tokens: list[str], said: str
) -> None:
    tensors = text_models.weights(vocabulary=len(tokens))
    other = text_models.saved(tmp_path / "other.gguf", tensors, tokens)
    error = failed("evaluate", other, "--against", models[1], "--text", text)
    assert f"other.gguf' and '{models[1]}' differ: {said}." in error


def test_what_cannot_be_evaluated_is_said(
    models: tuple[Path, Path], text: Path, tmp_path: Path
) -> None:
    silent = text_models.saved(tmp_path / "silent.gguf", tokens=None)
    assert "silent.gguf: the model has no tokenizer" in failed("evaluate", silent, "--text", text)
    whole = text_models.saved(tmp_path / "whole.gguf", causal=False)
    assert "whole.gguf: the model reads texts as" in failed("evaluate", whole, "--text", text)
    text.write_text("A few words.")
    said = failed("evaluate", models[0], "--text", text)
    assert re.search(
        r"text.txt: the text has \d+ tokens, and a window 64. Give .*smaller --context", said
    )
    said = failed("evaluate", models[0], "--text", text, "--context", 65, code=2)
    assert "noisy.gguf takes up to 64 tokens" in said


def test_weights_that_are_not_numbers(text: Path, tmp_path: Path) -> None:
    tensors = text_models.weights()
    tensors["output_norm.weight"][0] = np.nan
    path = text_models.saved(tmp_path / "nan.gguf", tensors)
    assert "nan.gguf: predicts NaN for token 1" in failed("evaluate", path, "--text", text)


def test_a_file_that_llama_cpp_aborts_by(
    models: tuple[Path, Path],
    text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    weights = text_models.weights()
    monkeypatch.setattr(text_models, "BLOCKS", 100_000)  # of which llama.cpp has up to 512
    path = text_models.saved(tmp_path / "high.gguf", weights)
    for command in (["evaluate", path], ["evaluate", models[0], "--against", path]):
        said = failed(*command, "--text", text)
        assert said.startswith(f"Error: {path}: llama.cpp ended with SIGABRT, and printed last: ")
        assert ": GGML_ASSERT(" in said
        assert said.count("\n") == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", contradicting_models.KINDS)
def test_models_that_quantize_refuses_are_not_loaded(text: Path, tmp_path: Path, kind: str) -> None:
    path = contradicting_models.saved(tmp_path / "m.gguf", kind)
    assert f"{path}: llama.cpp cannot load it" in failed("evaluate", path, "--text", text)
    succeeded("quantize", path, tmp_path / "x.gguf", "--tensors-only", "--bits", 8)
    said = failed("evaluate", tmp_path / "x.gguf", "--text", text)
    assert "x.gguf: llama.cpp cannot load it" in said


def test_tensors_that_llama_cpp_does_not_map_are_moved_apart(
    models: tuple[Path, Path], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Near(gguf.GGUFWriter):
        def add_tokenizer_model(self, model: str) -> None:
            super().add_tokenizer_model(model)
            self.add_custom_alignment(8)
            self.add_description("x" * 8)  # so that the first tensor begins at no multiple of 32

    monkeypatch.setattr(gguf, "GGUFWriter", Near)
    near = text_models.saved(tmp_path / "near.gguf")
    assert "must be aligned" in failed("evaluate", near, "--text", text)
    for name, source in (("x", near), ("y", models[1])):
        succeeded("quantize", source, tmp_path / f"{name}.gguf", "--bits", 4)
    found = [evaluate(tmp_path / f"{name}.gguf", text).perplexity for name in ("x", "y")]
    assert found[0] == pytest.approx(found[1], rel=1e-4)
