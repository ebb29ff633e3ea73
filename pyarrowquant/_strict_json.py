"""JSON of files, which may be hostile."""

from __future__ import annotations

import json
from typing import Any

from pyarrowquant._tensors import quoted


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
        parsed = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_int=_integer,
            parse_constant=_refuse,
        )
        if "\\" in text:  # half of a surrogate pair, which only an escape brings in, is no text
            json.dumps(parsed, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError(f"{what} is not valid JSON: it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError(f"{what} is not valid JSON: half of a surrogate pair") from None
    except ValueError as error:
        raise ValueError(f"{what} is not valid JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"{what} must be a JSON object, it is {quoted(parsed)}")
    return parsed


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


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")
