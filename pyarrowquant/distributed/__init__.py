"""Functions that Ray, Spark and other engines run over tables of layers, on any machine.

Neither engine is imported here: they import this, and call what it gives with Arrow data.
"""

from pyarrowquant.distributed.batch_function import BatchFunction
from pyarrowquant.distributed.batches import (
    compare_batches,
    dequantize_batches,
    quantize_batches,
    spark_schema,
)

__all__ = [
    "BatchFunction",
    "compare_batches",
    "dequantize_batches",
    "quantize_batches",
    "spark_schema",
]
