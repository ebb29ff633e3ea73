"""JSON of files, which may be hostile."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

from pyarrowquant._core.quoting import quoted, shortened

# Headers have a depth of three, configurations of about ten.
DEEPEST = 128

_BYTE_ORDER_MARK = "\ufeff"
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_NO_MARKS = bytes(set(range(256)) - set(b'"[]{}'))
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")] = 1
_STEPS[list(b"]}")] = -1


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object in UTF-8 whose objects have no key twice.

    Parameters
    ----------
    data : bytes
    what : str
        The file and its part; errors begin with it.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} is not UTF-8: {error}") from None
    try:
        check_nesting(data)
        parsed = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_int=_integer if "-0" in text else None,
            parse_constant=_refuse,
            parse_float=_finite,
        )
        if "\\" in text:  # half of a surrogate pair, which only an escape brings in, is no text
            json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} is not valid JSON: half of a surrogate pair") from None
    except ValueError as error:
        raise ValueError(f"{what} is not valid JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"{what} must be a JSON object, it is {quoted(parsed)}")
    return parsed


def parse_any(text: str | bytes) -> Any:
    """Parse JSON that need not be as strict as a header.

    Real configs have Infinity, and begin with a mark of byte order, as editors of Windows write it.

    Raises
    ------
    ValueError
        It is no JSON, not UTF-8, or nested so deeply that Python's parser would give up.
    """
    check_nesting(text.encode(errors="surrogatepass") if isinstance(text, str) else text)
    text = text if isinstance(text, str) else text.decode()
    return json.loads(text.removeprefix(_BYTE_ORDER_MARK))


def check_nesting(data: bytes) -> None:
    """Refuse what is nested so deeply that functions that call themselves fail on it."""
    if b"\\" in data:
        data = _ESCAPED.sub(b"", data)
    marks = np.frombuffer(data.translate(None, _NO_MARKS), np.uint8)
    steps = _STEPS[marks]
    steps[np.logical_xor.accumulate(marks == ord('"'))] = 0  # what is within a string
    if steps.cumsum(dtype=np.int32).max(initial=0) > DEEPEST:
        raise ValueError("it is nested too deeply")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {quoted(key)} is there twice")
            seen.add(key)
    return unique


def _integer(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{shortened(text)} is beyond the numbers of float64")
    return number


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
