"""Sizes of memory as people write them."""

from __future__ import annotations

import re

import click

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_BINARY_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def memory_size(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> int | None:
    """Parse "600M", "2GB" (powers of 1000) or "512MiB" (of 1024) to bytes."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if match is None or (match[3] and not match[2]):
        raise click.BadParameter(f"{text!r} is no size such as 600M, 2GB or 512MiB")
    units = _BINARY_UNITS if match[3] else _UNITS
    return int(float(match[1]) * units[match[2].upper()])
