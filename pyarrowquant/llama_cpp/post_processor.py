"""The tokens that a tokenizer puts before and after each text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyarrowquant.llama_cpp.tokenizer_files import TokenizerFiles

_KEY = "post_processor"


@dataclass(frozen=True)
class Frame:
    """Numbers of tokens around a text.

    Attributes
    ----------
    before, after : tuple of int
    between : tuple of int
        Those between two texts that belong together.
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    between: tuple[int, ...] = ()

    def around(self, inner: Frame) -> Frame:
        """Return what two processors put, of which this one is the last."""
        return Frame(
            self.before + inner.before, inner.after + self.after, inner.between + self.between
        )


def frame_of(files: TokenizerFiles) -> Frame | None:
    """Return what a tokenizer.json puts around texts; None where it does not say."""
    steps = files.steps(_KEY)
    if not steps:
        return None
    frame = Frame()
    for step in steps:
        frame = _frame(files, step).around(frame)
    return frame


def _frame(files: TokenizerFiles, step: Mapping[str, Any]) -> Frame:
    kind = step["type"]
    if kind == "ByteLevel":
        return Frame()  # which changes offsets alone
    if kind in ("RobertaProcessing", "BertProcessing"):
        first, last = (_number(files, step, key) for key in ("cls", "sep"))
        twice = kind == "RobertaProcessing"
        return Frame((first,), (last,), (last, last) if twice else (last,))
    if kind != "TemplateProcessing":
        raise files.wrong(_KEY, "of a type that tokenizers has", step)
    before, after, _ = _parts(files, step, "single", ["A"])
    between = _parts(files, step, "pair", ["A", "B"])[2] if step.get("pair") else ()
    return Frame(before, after, between)


def _number(files: TokenizerFiles, step: Mapping[str, Any], key: str) -> int:
    found = step.get(key)
    if not isinstance(found, list) or len(found) != 2 or type(found[1]) is not int:
        raise files.wrong(f"{_KEY}.{key}", "a text and a number", found)
    return found[1]


def _parts(
    files: TokenizerFiles, step: Mapping[str, Any], key: str, texts: list[str]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return what a template has before, after and between texts."""
    template = step.get(key)
    known = step.get("special_tokens")
    found: list[str] = []
    groups: list[list[int]] = [[]]
    for part in template if isinstance(template, list) else []:
        token, text = (
            part[kind].get("id")
            if isinstance(part, dict) and isinstance(part.get(kind), dict)
            else None
            for kind in ("SpecialToken", "Sequence")
        )
        if text is not None:
            found.append(text)
            groups.append([])
            continue
        numbers = known.get(token, {}).get("ids") if isinstance(known, dict) else None
        if not isinstance(numbers, list) or any(type(number) is not int for number in numbers):
            raise files.wrong(f"{_KEY}.{key}", "a template of tokens with their numbers", part)
        groups[-1] += numbers
    if found != texts:
        raise files.wrong(f"{_KEY}.{key}", f"a template of {' and '.join(texts)}", template)
    return tuple(groups[0]), tuple(groups[-1]), tuple(groups[1])
