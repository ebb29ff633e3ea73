"""What engines call, on any worker, with batches of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from pyarrowquant._version import __version__
from pyarrowquant.distributed.schemas import for_spark, large, spark_batches, spark_ddl
from pyarrowquant.distributed.task import cpus_of_task
from pyarrowquant.errors import ArgumentTypeError


class BatchFunction:
    """A function over the batches of a table, which can be pickled.

    It takes a pyarrow Table and returns one, as ``map_batches(..., batch_format="pyarrow")`` of Ray
    wants it; or it takes an iterator of record batches and returns such an iterator, as
    ``mapInArrow`` of Spark wants it. `quantize_batches`, `dequantize_batches` and `compare_batches`
    make it.

    Attributes
    ----------
    schema : pyarrow.Schema
        Of each table that it returns, whatever is in the batch: columns that grow with the weights
        have offsets of 64 bits.
    """

    def __init__(
        self, run: Callable[..., pa.Table], example: pa.Table, threads: int | None
    ) -> None:
        made = run(example, threads=threads).schema  # checks what `run` was given
        self._run = run
        self._threads = threads
        self._version = __version__
        self._for_spark = for_spark(made)
        self.schema = large(made)

    @property
    def spark_schema(self) -> str:
        """The columns of the batches that it gives to Spark, as ``mapInArrow`` takes them."""
        return spark_ddl(self._for_spark)

    def __call__(self, batches: Any) -> Any:
        if self._version != __version__:
            raise RuntimeError(
                f"This worker has pyarrowquant {__version__}, and the program that made the "
                f"function {self._version}. Install pyarrowquant {self._version} on the workers"
            )
        if isinstance(batches, pa.Table):
            return self._of_table(batches)
        if isinstance(batches, Iterator):
            return self._of_batches(batches)
        raise ArgumentTypeError(
            "Expected a pyarrow Table, as map_batches(..., batch_format='pyarrow') of Ray gives "
            "it, or an iterator of record batches, as mapInArrow of Spark does, got "
            f"{type(batches).__module__}.{type(batches).__qualname__}"
        )

    def _of_table(self, table: pa.Table) -> pa.Table:
        if table.num_rows == 0:  # an engine may have lost its columns
            return self.schema.empty_table()
        return self._result(table).cast(self.schema)

    def _of_batches(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                result = self._result(pa.Table.from_batches([batch]))
                yield from spark_batches(result, self._for_spark)

    def _result(self, table: pa.Table) -> pa.Table:
        threads = cpus_of_task() if self._threads is None else self._threads
        return self._run(table, threads=threads)
