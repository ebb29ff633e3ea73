"""Keys of GGUF models that contradict their tensors, so that llama.cpp does not load them.

Only what is certain is told: llama.cpp has the same shapes and blocks for all architectures that
are known here, and others are not judged.
"""

from __future__ import annotations

from pyarrowquant._core.quoting import quoted
from pyarrowquant.llama_cpp.known import ARCHITECTURES
from pyarrowquant.llama_cpp.names import layer_of
from pyarrowquant.reading.gguf import GgufModel
from pyarrowquant.reading.gguf_header import Header

_EMBEDDINGS = "token_embd.weight"
_TOKENS = "tokenizer.ggml.tokens"
_NO_TOKENIZER = ("no_vocab", "none")


def contradiction(model: GgufModel) -> str | None:
    """Say which key contradicts which tensors, or None."""
    header = model.header
    architecture = header.value("general.architecture")
    if architecture not in [kind.name for kind in ARCHITECTURES]:  # which may be anything
        return None
    shapes = {one.tensor.name: one.tensor.shape for one in model.stored}
    blocks = 1 + max(map(layer_of, shapes), default=-1)
    key = f"{architecture}.block_count"
    said = _number(header, key)
    # Those that predict more tokens may have been left out.
    least = (said or 0) - (_number(header, f"{architecture}.nextn_predict_layers") or 0)
    if said is not None and blocks and not least <= blocks <= said:
        return f"its {key} is {said}, and its last block is blk.{blocks - 1}"
    embeddings = shapes.get(_EMBEDDINGS, ())
    if len(embeddings) != 2:
        return None
    rows, columns = embeddings
    key = f"{architecture}.embedding_length"
    said = _number(header, key)
    if said is not None and said != columns:
        return f"its {key} is {said}, and {quoted(_EMBEDDINGS)} has {columns} columns"
    tokens = header.values.get(_TOKENS)
    has_tokens = header.value("tokenizer.ggml.model") not in _NO_TOKENIZER
    if has_tokens and tokens is not None and tokens.count not in (None, rows):
        return f"its {_TOKENS} are {tokens.count}, and {quoted(_EMBEDDINGS)} has {rows} rows"
    return None


def _number(header: Header, key: str) -> int | None:
    said = header.value(key)
    return said if isinstance(said, int) and not isinstance(said, bool) else None
