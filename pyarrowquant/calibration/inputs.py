"""Sums of the squares of what parameters are multiplied with, taken while torch works."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# Functions that multiply inputs by a parameter: where these two are among the arguments, and
# which dimension of the parameter, from the end, has the columns.
_PRODUCTS = {"linear": (0, 1, 1), "matmul": (0, 1, 2), "mm": (0, 1, 2), "addmm": (1, 2, 2)}


@dataclass
class Squares:
    """What is known of a parameter's inputs.

    Attributes
    ----------
    sums : torch.Tensor
        float64, a row for each of its matrices and a column for each input.
    counts : torch.Tensor
        int64, how many inputs each matrix had.
    """

    sums: torch.Tensor
    counts: torch.Tensor


class InputSquares(TorchFunctionMode):  # type: ignore[misc]
    """Adds up, in its context, the squares of all inputs of some parameters.

    A parameter of three dimensions is a stack of matrices, whose inputs are added up apart.
    Matrices that are stored transposed, as of Conv1D, are left out.

    Parameters
    ----------
    parameters : iterable of (str, torch.Tensor)
        With their names.
    """

    def __init__(self, parameters: Iterable[tuple[str, torch.Tensor]]) -> None:
        super().__init__()
        places = sorted(
            (tensor.data_ptr(), name, tensor) for name, tensor in parameters if tensor.dim() > 1
        )
        self._begins = [begin for begin, _, _ in places]
        self._parameters = [(name, tensor) for _, name, tensor in places]
        self._found: dict[str, Squares] = {}

    @property
    def found(self) -> Mapping[str, Squares]:
        """What there is by the names of parameters."""
        return self._found

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
        return func(*args, **(kwargs or {}))

    def _add(self, inputs: Any, weights: Any, columns: int) -> None:
        if not isinstance(inputs, torch.Tensor) or not isinstance(weights, torch.Tensor):
            return
        if weights.dim() != 2:
            return
        place = bisect_right(self._begins, weights.data_ptr()) - 1
        if place < 0:
            return
        name, parameter = self._parameters[place]
        if columns > 1 and parameter.dim() == 2:  # whose columns have no inputs, but its rows
            return
        size = parameter.element_size() * weights.numel()
        matrix, rest = divmod(weights.data_ptr() - self._begins[place], size)
        matrices = parameter.numel() // weights.numel()
        if rest or matrix >= matrices:  # another tensor, behind it in memory
            return
        rows = inputs.reshape(-1, weights.shape[-columns])
        squares = self._found.get(name)
        if squares is None:
            squares = self._found[name] = Squares(
                torch.zeros(matrices, rows.shape[1], dtype=torch.float64),
                torch.zeros(matrices, dtype=torch.int64),
            )
        squares.sums[matrix] += rows.double().square().sum(0)
        squares.counts[matrix] += len(rows)
