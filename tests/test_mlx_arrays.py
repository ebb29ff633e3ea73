"""Arrays of MLX, which not every system has."""

from __future__ import annotations

import ml_dtypes
import mlx.core as mx
import numpy as np
import pytest
from dlpack_tensor import Tensor

from pyarrowquant import numpy_to_arrow_table, quantize_batch

pytestmark = pytest.mark.usefixtures("nothing_leaked")

VALUES = np.arange(24).reshape(2, 12)


def test_bfloat16() -> None:
    values = mx.array(VALUES).astype(mx.bfloat16)
    mx.eval(values)
    expected = quantize_batch({"a": VALUES.astype(ml_dtypes.bfloat16)})
    for tensor in (values, Tensor(values)):
        found = quantize_batch({"a": tensor})
        assert found["a"]["quantized_data"] == expected["a"]["quantized_data"]
        assert found["a"]["shape"] == [2, 12]
    table = numpy_to_arrow_table({"a": Tensor(values)})
    again = numpy_to_arrow_table({"a": values})
    memory, same = (each["weights"].chunk(0).buffers()[2].address for each in (table, again))
    assert memory == same
