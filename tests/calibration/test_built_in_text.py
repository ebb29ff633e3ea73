"""The text that `calibrate` uses without another: each part of it is like the whole."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import pairwise

import pytest

# What tells a kind of text.
KINDS = {
    "English": r"\b(?:the|and|of|is|to)\b",
    "Latin letters of other languages": r"[àâãäçèéêëìíîïñòóôõöøùúûüýąćęłńśźżğışạảấầậếềệ]",
    "other letters": r"[ж-яا-يऀ-ॿぁ-ヿ一-鿿가-힣]",
    "tables": r"(?m)^\|.*\|$",
    "commands and their output": r"(?m)^```",
    "Go": r"(?m)^(?:func|type|\t+(?:if|for|return)) ",
    "Python": r"(?m)^ +(?:def|return|if|for) ",
    "numbers": r"\d",
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_quarter_has_all_kinds(kind: str) -> None:
    text = files("pyarrowquant.calibration").joinpath("text.txt").read_text("utf-8")
    ends = [len(text) * i // 4 for i in range(5)]
    quarters = [text[begin:end] for begin, end in pairwise(ends)]
    counts = [len(re.findall(KINDS[kind], quarter)) for quarter in quarters]
    assert all(counts), counts
