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
_T = TypeVar("_T")
_OTHER_NAMES = {"bits": "bit_width"}  # as the command line and recipes have it


def class_with_meant(made: type[_T]) -> type[_T]:
    """Have errors of a keyword that a class lacks say which one is meant."""
    setattr(made, "__init__", with_meant(made.__init__, made.__name__))  # noqa: B010
    return made


def with_meant(function: Callable[_P, _R], called: str | None = None) -> Callable[_P, _R]:
    """Have errors of a keyword that a function lacks say which one is meant.

    Parameters
    ----------
    function : callable
    called : str, optional
        What errors call it, if not by its name.
    """
    known = tuple(inspect.signature(function).parameters)
    shown = called or function.__name__

    @wraps(function)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        for name in kwargs:
            if name not in known:
                other = _OTHER_NAMES.get(name)
                hint = meant(name, known) if other is None else f" Did you mean {other!r}?"
                raise ArgumentTypeError(f"{shown}() has no argument {name!r}.{hint}")
        return function(*args, **kwargs)

    return checked
