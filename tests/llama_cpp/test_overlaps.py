"""Which added tokens are found otherwise by llama.cpp, where they overlap."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken as Added
from tokenizers import Tokenizer, models

from pyarrowquant.llama_cpp.overlaps import told_apart_otherwise
from pyarrowquant.llama_cpp.tokenizer_files import AddedToken


def added(*texts: str, normalized: bool = False) -> list[AddedToken]:
    return [
        AddedToken(number, text, True, normalized, False, False, "")
        for number, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    "texts",
    [
        (),
        ("<a>", "<a><b>"),
        tuple("\n" * size for size in range(1, 32)),
        ("ab<", "<c>"),  # both take the first of two that are as long
        ("aa", "aaa"),
        tuple(f"<unused{number}>" for number in range(500)),
    ],
)
def test_tokens_that_both_find(texts: tuple[str, ...]) -> None:
    assert told_apart_otherwise(added(*texts)) == {}


@pytest.mark.parametrize(
    ("texts", "text"),
    [
        (("<x>", ">abc"), "<x>abc"),
        (("ab", "bcd", "cdef"), "abcd"),
        (("abc", "c\u00e9\u00e9"), "abc\u00e9\u00e9"),  # longer in bytes alone
    ],
)
def test_tokens_that_llama_cpp_finds_otherwise(texts: tuple[str, ...], text: str) -> None:
    found = told_apart_otherwise(added(*texts))
    assert found[text] == texts[:2]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.add_tokens([Added(each, normalized=False) for each in texts])
    assert tokenizer.encode(text).tokens[0] == texts[0]


def test_normalized_tokens_come_last() -> None:
    """Those that are not are found first, whatever the others are."""
    late = added("abc", normalized=True)
    assert told_apart_otherwise([*late, *added("cd")]) == {"abcd": ("abc", "cd")}
