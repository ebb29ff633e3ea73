"""Sums of the squares of what parameters are multiplied with, taken while torch works."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from pyarrowquant.calibration.squares import Squares

# Functions that multiply inputs by a parameter: where these two are among the arguments, and
# which dimension of the parameter, from the end, has the columns.
_PRODUCTS = {"linear": (0, 1, 1), "matmul": (0, 1, 2), "mm": (0, 1, 2), "addmm": (1, 2, 2)}


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
        self.output: torch.Tensor | None = None
        self._begins: list[int] = []
        self._parameters: dict[int, tuple[str, torch.Tensor]] = {}

    def add(self, name: str, parameter: torch.Tensor) -> None:
        """Look at a parameter from now on."""
        begin = parameter.data_ptr()
        if parameter.dim() > 1 and begin not in self._parameters:
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
        product = _PRODUCTS.get(getattr(func, "__name__", ""))
        if product is not None and len(args) > product[1]:
            inputs, weights, columns = product
            self._add(args[inputs], args[weights], columns)
            if args[weights] is self.output and func.__name__ == "linear":
                shape = (*args[inputs].shape[:-1], len(args[weights]))
                return args[inputs].new_zeros(1).expand(shape)
        return func(*args, **(kwargs or {}))

    def _add(self, inputs: Any, weights: Any, columns: int) -> None:
        if not isinstance(inputs, torch.Tensor) or not isinstance(weights, torch.Tensor):
            return
        if weights.dim() != 2:
            return
        place = bisect_right(self._begins, weights.data_ptr()) - 1
        if place < 0:
            return
        name, parameter = self._parameters[self._begins[place]]
        if columns > 1 and parameter.dim() == 2:  # whose columns have no inputs, but its rows
            return
        size = parameter.element_size() * weights.numel()
        matrix, rest = divmod(weights.data_ptr() - self._begins[place], size)
        matrices = parameter.numel() // weights.numel()
        if rest or matrix >= matrices:  # another tensor, behind it in memory
            return
        rows = inputs.reshape(-1, weights.shape[-columns])
        squares = self.found.get(name)
        if squares is None:
            squares = self.found[name] = Squares.zeros(matrices, rows.shape[1])
        squares.sums[matrix] += rows.double().square().sum(0).numpy()
        squares.counts[matrix] += len(rows)
