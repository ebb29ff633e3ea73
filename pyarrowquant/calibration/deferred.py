"""Weights that are read when they are used, and not when a model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_Function = Callable[..., Any]

# Functions that do the same to each element, so that rows can be taken before them.
_BY_ELEMENT = frozenset({"to", "detach", "requires_grad_"})


class ChangedWeightsError(ValueError):
    """A model changes its weights while it is loaded, when they are not read yet."""


class Deferred(torch.Tensor):  # type: ignore[misc]
    """A tensor without data, which knows how it is made of tensors in files.

    Within `recording`, what is done with it is noted, and gives others of its kind, so that a
    model can be loaded with them. Beside that it is made for each function that gets it.
    """

    _is_recording = False
    _read: Callable[[], torch.Tensor] | None = None
    _name: str | None = None
    _call: tuple[_Function, tuple[Any, ...], dict[str, Any], int | None] | None = None

    @classmethod
    def of(cls, like: torch.Tensor, read: Callable[[], torch.Tensor], name: str) -> Deferred:
        """Return what stands for a tensor of files, by its name there, which is like another."""
        found: Deferred = torch.empty_like(like, device="meta").as_subclass(cls)
        found._read, found._name = read, name
        return found

    @classmethod
    @contextmanager
    def recording(cls) -> Iterator[None]:
        """Note what any thread does with tensors of this kind."""
        cls._is_recording = True
        try:
            yield
        finally:
            cls._is_recording = False

    @property
    def origin(self) -> str | None:
        """The tensor of a file whose elements it has, all and no others; None if there is none."""
        if self._call is None:
            return self._name
        return self._call[1][0].origin if self._is_by_element() else None

    def made(self) -> torch.Tensor:
        """Read and convert it."""
        return self._made(lambda source: source)

    def rows(self, numbers: torch.Tensor) -> torch.Tensor:
        """Read and convert some rows, and no others if it is a tensor of a file."""
        if self._is_by_element():
            return self._made(lambda source: source[numbers])
        return self.made()[numbers]

    def _is_by_element(self) -> bool:
        if self._call is None:
            return True
        function, args, _, _ = self._call
        whole = function.__name__ == "__getitem__" and args[1] is ...
        by_element = whole or function.__name__ in _BY_ELEMENT
        return by_element and bool(args[0]._is_by_element())

    def _made(self, read: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        if self._read is not None:
            return read(self._read())
        assert self._call is not None
        function, args, kwargs, part = self._call
        result = _made_of(function, args, kwargs, lambda each: each._made(read))
        return result if part is None else result[part]

    @classmethod
    def __torch_function__(
        cls,
        func: _Function,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not cls._is_recording and func.__name__ != "__get__":  # what is an attribute
            return _made_of(func, args, kwargs, cls.made)
        if _changes(func):
            raise ChangedWeightsError(f"{func.__name__} changes weights that are not read yet")
        result = super().__torch_function__(func, types, *_without_devices(func, args, kwargs))
        if isinstance(result, cls):
            result._note((func, args, kwargs, None))
        elif isinstance(result, (tuple, list)):
            for part, each in enumerate(result):
                if isinstance(each, cls):
                    each._note((func, args, kwargs, part))
        return result

    def _note(self, call: Any) -> None:
        if self._read is None and self._call is None:  # else it is what was given
            self._call = call


def _changes(function: _Function) -> bool:
    name = function.__name__
    in_place = name.endswith("_") and not name.endswith("__")
    return (in_place and name not in _BY_ELEMENT) or name == "__setitem__"


def _made_of(
    function: _Function, args: Any, kwargs: Any, make: Callable[[Deferred], torch.Tensor]
) -> Any:
    def each(value: Any) -> Any:
        return make(value) if isinstance(value, Deferred) else value

    return function(*_mapped(args, each), **_mapped(kwargs, each))


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function to what is in lists, tuples and dicts."""
    if isinstance(value, dict):
        return {key: _mapped(each, function) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_mapped(each, function) for each in value)
    return function(value)


def _without_devices(function: _Function, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Leave out where a tensor is to go, as there is nothing of it that could."""
    if function.__name__ != "to":
        return args, kwargs
    stays = [each for each in args if not isinstance(each, (str, torch.device))]
    return tuple(stays), {key: each for key, each in kwargs.items() if key != "device"}
