"""Tokenizers of GGUF files for transformers, which reads those of SentencePiece otherwise.

It takes BPE for a unigram model, and forgets which token begins a text.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from pyarrowquant.evaluation.llama_cpp import Log, Vocabulary, import_llama_cpp

CONTROL, USER_DEFINED = 3, 4


def tokenizer_of(path: Path, text: str) -> Any:
    """Give the tokenizer of a GGUF file; AssertionError if llama.cpp has other tokens for a text.

    Those of a text begin with the token that begins a text, where the model has one.
    """
    import gguf
    from transformers import AutoTokenizer

    fields = gguf.GGUFReader(path).fields
    if fields["tokenizer.ggml.model"].contents() != "llama":
        return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer = sentencepiece(
        *(
            fields[f"tokenizer.ggml.{name}"].contents()
            for name in ("tokens", "scores", "token_type")
        )
    )
    assert tokenizer(text)["input_ids"] == tokens_of_llama_cpp(path, text)
    return tokenizer


def sentencepiece(tokens: list[str], scores: list[float], types: list[int]) -> Any:
    """Give Gemma's tokenizer: the pair is merged first whose piece has the best score."""
    from tokenizers import AddedToken
    from transformers import GemmaTokenizer
    from transformers.convert_slow_tokenizer import generate_merges

    kinds = dict(zip(tokens, types, strict=True))
    merges = generate_merges(
        {token: i for i, token in enumerate(tokens)},
        dict(zip(tokens, scores, strict=True)),
        [token for token, kind in kinds.items() if kind in (CONTROL, USER_DEFINED)],
    )
    tokenizer = GemmaTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=merges, add_bos_token=True
    )
    whole = [token for token, kind in kinds.items() if kind == USER_DEFINED]
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in whole])
    return tokenizer


def tokens_of_llama_cpp(path: Path, text: str) -> list[int]:
    llama_cpp = import_llama_cpp()
    with Log(llama_cpp) as log, closing(Vocabulary(llama_cpp, str(path), log)) as vocabulary:
        return [int(token) for token in vocabulary.tokenized(text.encode())]
