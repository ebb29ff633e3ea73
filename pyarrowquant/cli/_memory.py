"""How much of a model is read at a time, so that a run stays within a size of memory."""

from __future__ import annotations

import re

import click

_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_BINARY_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

_ITSELF = 128 * 2**20  # Python, its packages and the Go runtime take up to this
_LEAST_BATCH = 2**20


def memory_size(_context: click.Context, _parameter: click.Parameter, text: str) -> int:
    """Parse "600M", "2GB" (powers of 1000) or "512MiB" (of 1024) to bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if match is None or (match[3] and not match[2]):
        raise click.BadParameter(f"{text!r} is no size such as 600M, 2GB or 512MiB")
    units = _BINARY_UNITS if match[3] else _UNITS
    size = int(float(match[1]) * units[match[2].upper()])
    least = _ITSELF + 2 * _LEAST_BATCH
    if size < least:
        raise click.BadParameter(f"{text} is too little; the least is {-(-least // 2**20)}MiB")
    return size


def batch_bytes(memory: int) -> int:
    """Bound on a batch of weights: it can be in memory itself, with as many bytes of results."""
    return (memory - _ITSELF) // 2
