"""Small tokenizers of the kinds beside BPE of bytes, and what is put around their texts."""

from __future__ import annotations

import io
from typing import Any

import hf_folders
import sentencepiece
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from pyarrowquant.llama_cpp.sentencepiece_model import parse_model

LETTER = "\u2581"  # which takes the place of spaces
BYTES_AND_PIECES = {
    "model_type": "bpe",
    "vocab_size": 320,
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
}
UNIGRAM = {"model_type": "unigram", "vocab_size": 60}


def framed(tokenizer: Tokenizer, template: str, *tokens: str) -> Tokenizer:
    numbers = [(token, tokenizer.token_to_id(token)) for token in tokens]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, pair=None, special_tokens=numbers
    )
    return tokenizer


def pieces(rows: int, scheme: str | None = None, split: bool = False) -> Tokenizer:
    """Pieces whose spaces Prepend treats, or Metaspace of a scheme."""
    tokenizer = hf_folders.pieces(rows, prepend=True)
    if scheme is not None:
        tokenizer.normalizer = None
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    return framed(tokenizer, "<s> $A", "<s>")


def unigram(
    *, merges: bool, scheme: str = "always", words: bool = False, strip: bool = True
) -> Tokenizer:
    """Pieces with scores, whose first tokens are those of XLM-RoBERTa."""
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = sorted({letter for text in hf_folders.TEXT for letter in text.replace(" ", LETTER)})
    scored = [(text, 0.0) for text in first]
    scored += [(text, -8.0 - n / 99) for n, text in enumerate(letters)]
    scored += [(f"{LETTER}The", -3.0), ("ick", -4.0), (f"{LETTER}fox", -3.5), ("e\u0301", -9.0)]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=3))
    steps: list[Any] = [normalizers.Precompiled(parse_model(trained(vocab_size=60)).charsmap)]
    if merges and not words:
        steps += [normalizers.Replace(Regex(" {2,}"), " ")]
        steps += [normalizers.Strip(left=False, right=True)] if strip else []
    tokenizer.normalizer = normalizers.Sequence(steps)
    spaces: Any = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    if words:
        spaces = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaces])
    tokenizer.pre_tokenizer = spaces
    tokenizer.add_special_tokens(first)
    return framed(tokenizer, "<s> $A </s>", "<s>", "</s>")


def words(**normalizer: Any) -> Tokenizer:
    """WordPiece, with the normalizer of BERT."""
    texts = "[PAD] [UNK] [CLS] [SEP] fox ##es the The a ##b \u00e9 e ##t ##\u00e9 ##e ! ' , . 1 ##2"
    listed = [*texts.split(), "\u6211", "\u60f3", "\u5728", "##\u60f3", "caf", "resum", "\u00e9t"]
    tokenizer = Tokenizer(
        models.WordPiece({text: n for n, text in enumerate(listed)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    return framed(tokenizer, "[CLS] $A [SEP]", "[CLS]", "[SEP]")


def trained(**options: Any) -> bytes:
    """A tokenizer.model that sentencepiece trains; by default it is unigram with nmt_nfkc."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(hf_folders.TEXT * 9),
        model_writer=model,
        minloglevel=2,
        hard_vocab_limit=False,
        **options,
    )
    return model.getvalue()
