"""Producers that get something wrong: an error that says so, or a right result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import pyarrow as pa
from attempts import Attempts
from c_arrays import ArrayExporter, Column, StreamExporter
from columns import encoded, results, sound, wrong_numbers

import pyarrowquant
from pyarrowquant import QuantizationError, formats

WEIGHTS = pa.table({"layer_name": ["first"], "weights": [[1.0] * 8]})
RECIPE = pyarrowquant.Recipe([pyarrowquant.Rule("z*", skip=True)])
RESULT = pyarrowquant.quantize_batch_arrow(
    pa.table({"layer_name": ["x.weight"], "weights": [[1.0] * 32], "shape": [[1, 32]]}),
    group_size=32,
    scale_dtype="float16",
)

# What takes weights, and what takes results.
USES: dict[str, Callable[[Any], object]] = {
    "quantize": lambda data: pyarrowquant.quantize_batch_arrow(data, group_size=8),
    "recipe": lambda data: pyarrowquant.quantize_batch_arrow(data, recipe=RECIPE, group_size=8),
    "stream": lambda data: pyarrowquant.quantize_stream(data, group_size=8).read_all(),
    "compare": lambda data: pyarrowquant.compare(data, WEIGHTS),
    "kept": lambda data: formats.write_mlx(RESULT, "kept", unquantized=data, overwrite=True),
}
RESULT_USES: dict[str, Callable[[Any], object]] = {
    "dequantize": pyarrowquant.dequantize_batch_arrow,
    "compare result": lambda data: pyarrowquant.compare(WEIGHTS, data),
    "write": lambda data: formats.write_gguf(data, "result.gguf", overwrite=True),
}


def wrong_tables(tables: dict[str, Column]) -> Iterator[tuple[str, Column]]:
    """Each table as it is, and with one number or pointer that is wrong."""
    for what, table in tables.items():
        yield what, table
        for path, node in table.nodes().items():
            for wrong, change in wrong_numbers(node):
                changed = deepcopy(table)
                change(changed.nodes()[path])
                yield f"{what}: {path} {wrong}", changed


def attempts(use: str, step: int) -> Attempts:
    """Every few of the wrong tables, as an array and as a stream in turn."""
    call = USES[use] if use in USES else RESULT_USES[use]
    tables = sound() if use in USES else {"result": results(), "encoded": encoded()}
    for number, (what, table) in enumerate(wrong_tables(tables)):
        if number % step == 0:
            as_stream = number // step % 2 == 1
            data: Any = StreamExporter(table, [table]) if as_stream else ArrayExporter(table)
            yield what, partial(_attempt, call, data, what in tables)


def _attempt(use: Callable[[Any], object], data: object, is_sound: bool) -> str | None:
    try:
        use(data)
    except (ValueError, TypeError, OSError) as error:
        return repr(error) if is_sound and not isinstance(error, QuantizationError) else None
    except BaseException as error:
        return repr(error)
    return None
