"""What an evaluation is asked for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes
    ----------
    paths : list of str
        Of the model, and of the one to compare it with.
    text : bytes
    text_path : str
        What errors call it.
    context : int or None
        Tokens of a window; None for what is usual.
    threads : int
    """

    paths: list[str]
    text: bytes
    text_path: str
    context: int | None
    threads: int
