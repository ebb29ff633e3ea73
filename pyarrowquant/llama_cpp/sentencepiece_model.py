"""Files of sentencepiece, tokenizer.model: messages of protocol buffers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # how a field is stored
UNIGRAM, BPE, WORD, CHAR = 1, 2, 3, 4  # kinds of models
MODEL_TYPES = {UNIGRAM: "unigram", BPE: "bpe", WORD: "word", CHAR: "char"}

Value = int | bytes


@dataclass(frozen=True)
class Piece:
    """A token; its kind has the number that ggml has for it too."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True)
class SentencePieceModel:
    """What a file says.

    Attributes
    ----------
    pieces : list of Piece
    model_type : int
    charsmap : bytes
        What becomes of letters before all else; nothing where they stay.
    add_dummy_prefix : bool
        Whether a space comes before a text.
    remove_extra_whitespaces : bool
        Whether several spaces become one, and those at both ends none.
    escape_whitespaces : bool
        Whether a letter takes the place of spaces.
    treat_whitespace_as_suffix : bool
        Whether words end with a space, in place of beginning with one.
    """

    pieces: list[Piece]
    model_type: int
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool
    treat_whitespace_as_suffix: bool


def parse_model(data: bytes) -> SentencePieceModel:
    """Read a file; what is none raises ValueError that says what is wrong."""
    pieces: list[Piece] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    for field, value in _fields(data):
        if field == 1:
            pieces.append(_piece(_message(value)))
        elif field == 2:
            trainer.update(_fields(_message(value)))
        elif field == 3:
            normalizer.update(_fields(_message(value)))
    if not pieces:
        raise ValueError("it has no pieces")
    return SentencePieceModel(
        pieces,
        model_type=_number(trainer.get(3, UNIGRAM)),
        charsmap=_message(normalizer.get(2, b"")),
        add_dummy_prefix=bool(normalizer.get(3, True)),
        remove_extra_whitespaces=bool(normalizer.get(4, True)),
        escape_whitespaces=bool(normalizer.get(5, True)),
        treat_whitespace_as_suffix=bool(trainer.get(24, False)),
    )


def _piece(data: bytes) -> Piece:
    fields = dict(_fields(data))
    (score,) = struct.unpack("<f", _message(fields.get(2, bytes(4))))
    return Piece(_message(fields.get(1, b"")).decode(), score, _number(fields.get(3, 1)))


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Give the numbers and values of a message's fields."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        stored = key & 7
        if stored == _VARINT:
            value, place = _varint(data, place)
            yield key >> 3, value
            continue
        if stored == _BYTES:
            size, place = _varint(data, place)
        elif stored in (_FIXED32, _FIXED64):
            size = 4 if stored == _FIXED32 else 8
        else:
            raise ValueError(f"it has a field of the unknown kind {stored}")
        if size > len(data) - place:
            raise ValueError("it is cut short")
        yield key >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of 7 bits a byte, and the place after it."""
    number = 0
    for shift in range(0, 64, 7):
        if place >= len(data):
            raise ValueError("it is cut short")
        number |= (data[place] & 0x7F) << shift
        place += 1
        if data[place - 1] < 0x80:
            return number, place
    raise ValueError("it has a number of more than 64 bits")


def _message(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("it has a number where bytes belong")
    return value


def _number(value: Value) -> int:
    if not isinstance(value, int):
        raise ValueError("it has bytes where a number belongs")
    return value
