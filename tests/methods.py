"""What the tests of several methods share: layers to decoded weights, and all kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pytest
from reference import Array, layer_table

from pyarrowquant import dequantize_batch_arrow, quantize_batch_arrow


def quantized(layers: Mapping[str, Array], **options: Any) -> pa.Table:
    """The result for some layers, in their order."""
    return quantize_batch_arrow(layer_table(layers), sort=False, **options)


def decode(result: pa.Table) -> dict[str, Array]:
    """Each layer's weights as the package decodes them."""
    table = dequantize_batch_arrow(result)
    return {
        row["layer_name"].as_py(): row["weights"].values.to_numpy().reshape(row["shape"].as_py())
        for row in (dict(zip(table.column_names, cells, strict=True)) for cells in rows(table))
    }


def rows(table: pa.Table) -> Iterator[tuple[pa.Scalar, ...]]:
    return zip(*(column for column in table.columns), strict=True)


def decoded(layers: Mapping[str, Array], **options: Any) -> dict[str, Array]:
    """Layers quantized and decoded again."""
    return decode(quantized(layers, **options))


def kernels() -> list[str]:
    """The names that PYARROWQUANT_KERNEL may have on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYARROWQUANT_KERNEL", "none of them")
        with pytest.raises(ValueError, match="Invalid kernel") as caught:
            quantize_batch_arrow(layer_table({}))
    names = str(caught.value).split("Must be ")[1].replace("'", "").split(", ")
    assert "scalar" in names
    return names


def by_kernel(table: pa.Table, **options: Any) -> Iterator[pa.Table]:
    """What each kernel of this machine makes of a table."""
    assert "PYARROWQUANT_KERNEL" not in os.environ
    for name in kernels():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYARROWQUANT_KERNEL", name)
            yield quantize_batch_arrow(table, **options)
