"""Keywords that a function lacks, as errors that name those that are meant."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from pyarrowquant._core.quoting import meant
from pyarrowquant.errors import ArgumentTypeError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_OTHER_NAMES = {"bits": "bit_width"}  # as the command line and recipes have it


def with_meant(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have errors of a keyword that a function lacks say which one is meant."""
    known = tuple(inspect.signature(function).parameters)

    @wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        for name in kwargs:
            if name not in known:
                other = _OTHER_NAMES.get(name)
                hint = meant(name, known) if other is None else f" Did you mean {other!r}?"
                raise ArgumentTypeError(f"{function.__name__}() has no argument {name!r}.{hint}")
        return function(*args, **kwargs)

    return checked
