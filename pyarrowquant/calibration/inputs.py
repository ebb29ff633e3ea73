"""Sums of the squares of what parameters are multiplied with, taken while torch works."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from pyarrowquant.calibration.squares import Squares


class InputSquares(TorchFunctionMode):  # type: ignore[misc]
    """Adds up, in its context, the squares of all inputs of some parameters.

    A parameter of three dimensions is a stack of matrices, whose inputs are added up apart.
    Matrices that are stored transposed, as of Conv1D, are left out.

    Parameters
    ----------
    found : dict of str to Squares
        What there is already, by the names of parameters; gets what is found.

    Attributes
    ----------
    found : dict of str to Squares
    output : torch.Tensor or None
        A parameter that gives logits, which nobody looks at: they are zeros.
    """

    def __init__(self, found: dict[str, Squares]) -> None:
        super().__init__()
        self.found = found
        self.output: Any = None
        self._begins: list[int] = []
        self._parameters: dict[int, tuple[str, torch.Tensor]] = {}

    def add(self, name: str, parameter: torch.Tensor) -> None:
        """Look at a parameter from now on."""
        begin = parameter.data_ptr()
        if parameter.dim() > 1 and parameter.numel() and begin not in self._parameters:
            insort(self._begins, begin)
            self._parameters[begin] = name, parameter

    def forget(self, parameter: torch.Tensor) -> None:
        """Look no more at a parameter, whose memory may become that of another one."""
        begin = parameter.data_ptr()
        if self._parameters.pop(begin, None) is not None:
            self._begins.remove(begin)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        for inputs, weights, is_turned in _products(name, args, kwargs or {}):
            self._add(inputs, weights, is_turned)
            if weights is self.output and name == "linear":
                shape = (*inputs.shape[:-1], len(weights))
                return inputs.new_zeros(1).expand(shape)
        return func(*args, **(kwargs or {}))

    def _add(self, inputs: torch.Tensor, weights: torch.Tensor, is_turned: bool) -> None:
        """Add inputs of a matrix, which has a column for each, or a row if it is turned."""
        place = bisect_right(self._begins, weights.data_ptr()) - 1
        if place < 0:
            return
        begin = self._begins[place]
        name, parameter = self._parameters[begin]
        if weights.stride(0) < weights.stride(1):  # a view, which turns it
            is_turned = not is_turned
        if is_turned and parameter.dim() == 2:  # whose columns have no inputs, but its rows
            return
        columns = parameter.shape[-2 if is_turned else -1]
        matrices = parameter.shape[:-2].numel()
        matrix = (weights.data_ptr() - begin) * matrices // parameter.nbytes
        if matrix >= matrices or inputs.shape[-1] != columns:
            return  # another tensor, behind it in memory, or some of its columns
        rows = inputs.reshape(-1, columns)
        squares = self.found.get(name)
        if squares is None:
            squares = self.found[name] = Squares.zeros(matrices, columns)
        squares.sums[matrix] += rows.double().square().sum(0).numpy()
        squares.counts[matrix] += len(rows)


def _products(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[torch.Tensor, torch.Tensor, bool]]:
    """Return inputs and weights of a function that multiplies them, and whether these are turned.

    Which of two matrices has the weights is not known here.
    """
    found: list[tuple[Any, Any, bool]] = []
    if name == "linear":
        given = [*args, *(kwargs[each] for each in ("input", "weight") if each in kwargs)]
        found = [(given[0], given[1], False)] if len(given) > 1 else []
    elif name in ("matmul", "mm") and len(args) > 1:
        found = [(args[0], args[1], True)]
        if isinstance(args[1], torch.Tensor) and args[1].dim() > 1:
            found.append((args[1].transpose(-1, -2), args[0], False))
    elif name == "addmm" and len(args) > 2:
        found = [(args[1], args[2], True)]
    return [each for each in found if all(map(_is_tensor, each[:2])) and each[1].dim() == 2]


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)
