"""Tokenizers of the package tokenizers."""

from __future__ import annotations

from typing import Any


def read_tokenizer(tokenizers: Any, data: bytes, path: str) -> Any:
    """Return what the text of a tokenizer.json says, as the package `tokenizers` has it.

    Raises
    ------
    ValueError
        It is damaged. What the package raises is nothing narrower than Exception, and where it
        panics, not even that.
    """
    try:
        return tokenizers.Tokenizer.from_str(data.decode())
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise ValueError(f"'{path}' is none that tokenizers reads: {error}") from None
