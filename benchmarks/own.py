"""The methods of this package, as quantizers to measure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from quantizer import THREADS, Prepared, Quantizer, UnavailableError, Weights

import pyarrowquant
from pyarrowquant._core.encodings import ENCODINGS
from pyarrowquant._core.settings import Settings
from pyarrowquant.recipes.bits import stored_bits as encoded_bits

METHODS = ("rtn", "mse", "hqq")
WIDTHS = (2, 3, 4, 5, 6, 8)
_RANGE_BITS = 3  # of E4M3, the codes of 8 bits that are no evenly spaced ones
FLOAT_BITS = {"float32": 32, "float16": 16, "bfloat16": 16}


def own_quantizers() -> Iterator[Quantizer]:
    """The settings that are measured of each method.

    All widths with the zero-point of least error; the other zero-points where widths are small
    enough for them to differ; smaller groups, and float32 scales, at the usual width.
    """
    for method in METHODS:
        for bits in WIDTHS:
            yield own(method, bits, "float")
        for zero_point in ("integer", "symmetric") if method != "hqq" else ("integer",):
            for bits in (2, 3, 4):
                yield own(method, bits, zero_point)
        for group_size in (32, 64):
            yield own(method, 4, "float", group_size)
    yield own("rtn", 4, "float", scale_dtype="float32")
    for bits_per_weight in (2.5, 3.15, 3.5, 4.15, 5.0):
        yield fitted(bits_per_weight)
    for method in ("rtn", "mse"):
        for encoding in ENCODINGS:
            yield encoded(encoding, method)


def fitted(bits_per_weight: float) -> Quantizer:
    """A recipe for a budget, of widths with integer zero-points; the time is that of its use."""
    candidates = [{"bit_width": bits, "scale_dtype": "float16"} for bits in WIDTHS]

    def prepare(weights: Weights) -> Prepared:
        if len(weights) == 1:
            raise UnavailableError("there is nothing to divide bits among in one matrix")
        table = pyarrowquant.numpy_to_arrow_table(weights)
        recipe = pyarrowquant.Recipe.fit(table, bits_per_weight, candidates, threads=THREADS)
        return Prepared(
            lambda: pyarrowquant.quantize_batch_arrow(table, recipe=recipe, threads=THREADS),
            lambda result: decode(result, np.dtype("float16")),
            lambda result: sum(
                8 * len(row["quantized_data"]) + len(row["scales"]) * (16 + row["bit_width"])
                for row in result.to_pylist()
            ),
        )

    return Quantizer("pyarrowquant fit", f"pyarrowquant fit to {bits_per_weight} bits", prepare)


def table_of(weights: Weights, importance: Weights | None) -> pa.Table:
    """A table of layers, with the importance of their columns if it is known."""
    table = pyarrowquant.numpy_to_arrow_table(weights)
    if importance is None:
        return table
    rows = pa.array([importance[name] for name in weights], pa.list_(pa.float32()))
    return table.append_column("importance", rows)


def encoded(encoding: str, method: str, importance: Weights | None = None) -> Quantizer:
    """A quantizer of an encoding; bits are counted as it stores them."""

    def prepare(weights: Weights) -> Prepared:
        table = table_of(weights, importance)
        settings = Settings().with_overrides({"encoding": encoding})
        return Prepared(
            lambda: pyarrowquant.quantize_batch_arrow(
                table, encoding=encoding, method=method, threads=THREADS
            ),
            decoded_layers,
            lambda result: sum(
                encoded_bits(shape, settings) for shape in result["shape"].to_pylist()
            ),
            range_bits=_RANGE_BITS if ENCODINGS[encoding].bit_width == 8 else 0,
        )

    return Quantizer(f"pyarrowquant {method}", f"pyarrowquant {method} {encoding}", prepare)


def own(
    method: str,
    bits: int,
    zero_point: str,
    group_size: int = 128,
    scale_dtype: str = "float16",
    importance: Weights | None = None,
) -> Quantizer:
    """A quantizer; scales and zero-points are counted and decoded in the type of the scales."""
    name = f"{method} {bits} bits, {zero_point}, g {group_size}"
    if scale_dtype != "float16":
        name += f", {scale_dtype}"

    def prepare(weights: Weights) -> Prepared:
        def quantize(table: pa.Table) -> pa.Table:
            return pyarrowquant.quantize_batch_arrow(
                table,
                bits,
                group_size=group_size,
                method=method,
                zero_point=zero_point,
                scale_dtype=scale_dtype,
                threads=THREADS,
            )

        try:
            quantize(pa.table({"layer_name": ["a"], "weights": [[1.0]]}))
        except ValueError as refused:
            raise UnavailableError(str(refused)) from refused
        zero_bits = {"integer": bits, "float": FLOAT_BITS[scale_dtype], "symmetric": 0}[zero_point]
        table = table_of(weights, importance)
        return Prepared(
            lambda: quantize(table),
            lambda result: decode(result, np.dtype(scale_dtype)),
            lambda result: stored_bits(result, FLOAT_BITS[scale_dtype] + zero_bits),
        )

    return Quantizer(f"pyarrowquant {method}", f"pyarrowquant {name}", prepare)


def stored_bits(result: pa.Table, bits_a_group: int) -> int:
    packed = sum(len(value.as_buffer()) for value in result["quantized_data"])
    groups = sum(len(value) for value in result["scales"])
    return 8 * packed + groups * bits_a_group


def decode(result: pa.Table, dtype: np.dtype) -> Weights:
    """Decoded weights by name, after rounding the zero-points to the type that is counted."""
    chunks = [
        pa.ListArray.from_arrays(
            chunk.offsets, chunk.values.to_numpy().astype(dtype).astype(np.float32)
        )
        for chunk in result["zero_points"].chunks
    ]
    column = result.schema.get_field_index("zero_points")
    return decoded_layers(result.set_column(column, "zero_points", pa.chunked_array(chunks)))


def decoded_layers(result: pa.Table) -> Weights:
    """Decoded weights by name."""
    decoded = pyarrowquant.dequantize_batch_arrow(result, threads=THREADS)
    shapes = decoded["shape"].to_pylist()
    return {
        name: decoded["weights"][row].values.to_numpy().reshape(shapes[row])
        for row, name in enumerate(decoded["layer_name"].to_pylist())
    }
