"""Checks of the types of arguments, and of bounds that only Python knows."""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.errors import ArgumentTypeError, UsageError

Progress = bool | Callable[[str, float], None] | None


def wrong_type(wanted: str, value: object) -> ArgumentTypeError:
    """Make the error of a value that has not the type that is wanted: "NAME must be ..."."""
    return ArgumentTypeError(f"{wanted}, got {type(value).__name__}: {quoted(value)}")


def integer(name: str, value: object) -> int:
    """Return an int for any integer type but bool."""
    if not isinstance(value, bool):
        try:
            number = operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
        else:
            if abs(number) >= 2**63:
                raise UsageError(f"{name} {quoted(number)} is beyond 64 bits")
            return number
    raise wrong_type(f"{name} must be an int", value)


def at_least(least: int, name: str, value: object) -> int:
    """Return an int that has a lower bound, where Go does not look at it."""
    number = integer(name, value)
    if number < least:
        raise UsageError(f"Invalid {name}: {number}. Must be {least} or more")
    return number


def boolean(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise wrong_type(f"{name} must be True or False", value)


def text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    raise wrong_type(f"{name} must be a str", value)


def several(wanted: str, value: object) -> Iterator[Any]:
    """Iterate over a value that has several others, and is no text or mapping of them."""
    if not isinstance(value, (str, bytes, Mapping)):
        try:
            return iter(value)  # type: ignore[call-overload, no-any-return]
        except TypeError:
            pass
    raise wrong_type(wanted, value)


def shape(name: str, value: object) -> tuple[int, ...]:
    """Return a shape, or whatever gives its integers."""
    return tuple(
        integer(name, each) for each in several(f"{name} must be a sequence of int", value)
    )


def quality_floor(value: object) -> dict[str, float] | None:
    """Return bounds on the errors of a layer; a number is a bound on the cosine."""
    if value is None:
        return None
    bounds = value if isinstance(value, Mapping) else {"cosine": value}
    if not bounds:
        raise UsageError("quality_floor must have a bound named 'cosine' or 'relative_error'")
    highest = {"cosine": 1.0, "relative_error": math.inf}
    checked = {}
    for name, bound in bounds.items():
        if name not in highest:
            raise UsageError(
                f"Invalid quality_floor: {quoted(name)}. Must be 'cosine' or 'relative_error'"
            )
        if isinstance(bound, bool) or not isinstance(bound, numbers.Real):
            raise wrong_type("quality_floor must be a number", bound)
        checked[name] = float(bound)
        if not 0 < checked[name] <= highest[name]:
            raise UsageError(
                f"Invalid quality_floor: {name} {bound}. Must be above 0"
                + (" and at most 1" if name == "cosine" else "")
            )
    return checked


def bits_per_weight(value: object) -> float:
    """Return a budget, which is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise wrong_type("bits_per_weight must be a number", value)
    if not 0 < float(value) < math.inf:
        raise UsageError(f"Invalid bits_per_weight: {value}. Must be a finite number above 0")
    return float(value)


def thread_count(threads: object) -> int:
    """Return the number of workers: by default, the CPUs that this process may use."""
    return _processors() if threads is None else integer("threads", threads)


def threads_to_start(threads: object) -> int:
    """Return how many threads to ask a package for that starts all of them: one a CPU at most."""
    return min(at_least(1, "threads", thread_count(threads)), _processors())


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def kernel() -> str:
    """Return the name of the kernel that tests force; "" for the fastest."""
    return os.environ.get("PYARROWQUANT_KERNEL", "")


def check_callback(name: str, wanted: str, value: object) -> None:
    """Raise where something is neither None nor a function of what is wanted."""
    if value is not None and not callable(value):
        raise wrong_type(f"{name} must be None or a function of {wanted}", value)


def check_progress(progress: object) -> None:
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise wrong_type(
            "progress must be True, None or a function of (layer_name, fraction)", progress
        )
