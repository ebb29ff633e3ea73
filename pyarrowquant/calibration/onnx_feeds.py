"""What an ONNX model of text is fed with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pyarrowquant._core.quoting import first_few
from pyarrowquant.reading.location import Location

_PAST = "past_key_values."
_DTYPES = {1: np.float32, 6: np.int32, 7: np.int64, 10: np.float16, 11: np.float64}
_VALUES: dict[str, Callable[[Sequence[int]], Any]] = {
    "input_ids": np.array,
    "attention_mask": np.ones_like,
    "token_type_ids": np.zeros_like,
    "position_ids": lambda window: np.arange(len(window)),
}


class Feeds:
    """Makes the inputs of a graph from tokens.

    Parameters
    ----------
    graph : onnx.GraphProto
    location : Location
        What errors call the model.

    Raises
    ------
    ValueError
        It has other inputs than models of text have.
    """

    def __init__(self, graph: Any, location: Location) -> None:
        constants = {tensor.name for tensor in graph.initializer}
        self._inputs = [value for value in graph.input if value.name not in constants]
        others = [value.name for value in self._inputs if not _is_known(value)]
        if others or all(value.name != "input_ids" for value in self._inputs):
            inputs = [value.name for value in self._inputs]
            raise ValueError(
                f"{location} is no model of text that can be run: it has the inputs "
                f"{first_few(others or inputs)}. Known are input_ids, which must be there, "
                "attention_mask, token_type_ids, position_ids, and past_key_values of a decoder, "
                "of whole or floating-point numbers"
            )

    def of(self, window: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
        """Return the inputs for some tokens, before which there are none."""
        return {value.name: _made(value, window) for value in self._inputs}


def _is_known(value: Any) -> bool:
    known = value.name in _VALUES or value.name.startswith(_PAST)
    return known and value.type.tensor_type.elem_type in _DTYPES


def _made(value: Any, window: Sequence[int]) -> npt.NDArray[Any]:
    tensor = value.type.tensor_type
    dtype = _DTYPES[tensor.elem_type]
    if value.name in _VALUES:
        return np.array(_VALUES[value.name](window), dtype)[None]
    # Its sizes but the batch and the length, which is 0, are said.
    sizes = [size.dim_value if size.HasField("dim_value") else 0 for size in tensor.shape.dim]
    return np.empty([1, *sizes[1:]], dtype)
