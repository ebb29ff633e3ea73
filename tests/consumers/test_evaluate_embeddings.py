"""Embeddings of folders by transformers, beside those of its tokens in numpy.

`make test-transformers` runs these, in an environment that has torch.
"""

from __future__ import annotations

from pathlib import Path

import hf_folders
import numpy as np
import pytest
import torch
import transformers
from calibrated_models import saved
from commands import failed, succeeded
from safetensors.numpy import load_file, save_file
from tokenizers import processors

from pyarrowquant import evaluate

CONTEXT = 32
WORDS = "The quick brown fox jumps over 12 lazy dogs; it's a well-known pangram. "
PARAGRAPHS = [WORDS * 2, "A fox.", "Another dog jumps.\nIt is lazy.", WORDS * 9]


def with_specials() -> transformers.PreTrainedTokenizerFast:
    """A tokenizer that begins and ends texts with special tokens."""
    made = hf_folders.bpe()
    begin, end = hf_folders.SPECIAL
    made.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        special_tokens=[(each, made.token_to_id(each)) for each in hf_folders.SPECIAL],
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made)


def bert(folder: Path, kind: str = "BertModel", width: int = 64) -> Path:
    """Save a small random model with its tokenizer."""
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=hf_folders.ROWS,
        hidden_size=width,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    model = getattr(transformers, kind)(config)
    for parameter in model.parameters():  # so that errors of weights change what becomes of tokens
        if parameter.dim() == 2:
            parameter.data *= 6
    model.save_pretrained(folder)
    with_specials().save_pretrained(folder)
    return folder


@pytest.fixture(params=["BertForMaskedLM", "BertModel"])
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return bert(tmp_path / "model", request.param)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(PARAGRAPHS) + "\n \n\n")
    return path


def passages() -> list[list[int]]:
    tokenizer = with_specials()
    begin, end = tokenizer.convert_tokens_to_ids(list(hf_folders.SPECIAL))
    found = []
    for paragraph in PARAGRAPHS:
        ids = tokenizer(paragraph.strip(), add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids), CONTEXT - 2):
            found.append([begin, *ids[start : start + CONTEXT - 2], end])
    return found


def embeddings(folder: Path) -> np.ndarray:
    """Means of the tokens of passages, which are run together, by the attention mask."""
    loaded = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    rows = passages()
    ids = np.zeros((len(rows), CONTEXT), np.int64)
    mask = np.zeros((len(rows), CONTEXT), np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    with torch.no_grad():
        found = loaded(torch.from_numpy(ids), torch.from_numpy(mask)).last_hidden_state.numpy()
    means = (found * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))


@pytest.mark.parametrize("to", ["compressed-tensors", "bitsandbytes"])
def test_cosines_are_those_of_the_means(model: Path, text: Path, tmp_path: Path, to: str) -> None:
    out, plain = tmp_path / "out", tmp_path / "plain"
    succeeded("quantize", model, out, "--to", to)
    succeeded("dequantize", out, plain)
    cosines = (embeddings(plain) * embeddings(model)).sum(axis=1)
    found = evaluate(out, text, against=model, context=CONTEXT, threads=1)
    assert (found.passages, found.context) == (len(cosines), CONTEXT)
    assert found.tokens == sum(map(len, passages()))
    assert found.cosine == pytest.approx(cosines.mean(), abs=1e-5)
    assert found.least_cosine == pytest.approx(cosines.min(), abs=1e-5)
    assert found.least_cosine < found.cosine < 0.9999
    shown = succeeded("evaluate", out, "--against", model, "--text", text, "--context", CONTEXT)
    assert shown.startswith(f"{len(cosines)} passages of up to {CONTEXT} tokens: cosine 0.")
    assert "perplexity" not in shown


def test_what_cannot_be_compared_is_said(model: Path, text: Path, tmp_path: Path) -> None:
    llama, damaged = tmp_path / "llama", tmp_path / "damaged"
    saved(llama, "LlamaForCausalLM")
    with_specials().save_pretrained(llama)
    error = failed("evaluate", model, "--against", llama, "--text", text)
    assert f"'{llama}' predicts the next token, and '{model}' gives embeddings" in error
    assert "made from by --against" in failed("evaluate", model, "--text", text, code=2)
    bert(damaged, width=32)
    error = failed("evaluate", damaged, "--against", model, "--text", text)
    assert f"Embeddings of '{damaged}' have 32 numbers, those of '{model}' 64." in error
    tensors = load_file(damaged / "model.safetensors")
    tensors["embeddings.LayerNorm.weight"][0] = np.nan
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    error = failed("evaluate", damaged, "--against", damaged, "--text", text)
    assert "damaged: the embedding of passage 1 is NaN or Inf" in error
