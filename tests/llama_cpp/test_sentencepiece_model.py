"""Files of sentencepiece, read as sentencepiece's own messages are."""

from __future__ import annotations

from typing import Any

import pytest
from sentencepiece import sentencepiece_model_pb2
from tokenizer_models import BYTES_AND_PIECES, UNIGRAM, trained

from pyarrowquant.llama_cpp.sentencepiece_model import parse_model


@pytest.mark.parametrize(
    "options",
    [
        UNIGRAM,
        BYTES_AND_PIECES,
        {**UNIGRAM, "add_dummy_prefix": False, "remove_extra_whitespaces": False},
        {**UNIGRAM, "treat_whitespace_as_suffix": True, "user_defined_symbols": ["<tool>"]},
    ],
)
def test_what_a_file_says(options: dict[str, Any]) -> None:
    data = trained(**options)
    wanted = sentencepiece_model_pb2.ModelProto.FromString(data)
    found = parse_model(data)
    assert [(piece.text, piece.score, piece.kind) for piece in found.pieces] == [
        (piece.piece, piece.score, piece.type) for piece in wanted.pieces
    ]
    trainer, normalizer = wanted.trainer_spec, wanted.normalizer_spec
    assert found.model_type == trainer.model_type
    assert found.treat_whitespace_as_suffix == trainer.treat_whitespace_as_suffix
    assert found.charsmap == normalizer.precompiled_charsmap
    assert found.add_dummy_prefix == normalizer.add_dummy_prefix
    assert found.remove_extra_whitespaces == normalizer.remove_extra_whitespaces
    assert found.escape_whitespaces == normalizer.escape_whitespaces
