"""Tables of weights on Spark: what one machine makes, byte for byte.

Spark is large and needs Java, so `make test-fleet` runs these in an environment of their own.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fleet
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark
import pytest
from fleet import BAD, ROWS, kill_in_the_middle, layers, take_part, with_bad_layer
from pyspark.errors import PythonException
from pyspark.sql import SparkSession
from spark_sessions import session

from pyarrowquant import compare, dequantize_batch_arrow, quantize_batch_arrow
from pyarrowquant.distributed import (
    compare_batches,
    dequantize_batches,
    quantize_batches,
    spark_schema,
)
from pyarrowquant.distributed.task import cpus_of_task

pyspark.cloudpickle.register_pickle_by_value(fleet)  # workers do not find it


@pytest.fixture(scope="module")
def two_executors() -> Iterator[SparkSession]:
    """Two executors, which are processes of their own, of two CPUs; a task has both."""
    with session("local-cluster[2,2,1024]", spark_task_cpus=2) as spark:
        yield spark


@pytest.mark.parametrize(
    ("settings", "large"),
    [
        ({"method": "mse", "metrics": True}, False),
        ({"recipe": {"rules": [{"match": "*[02468]", "encoding": "q4_k"}]}}, True),
    ],
    ids=str,
)
def test_results_are_those_of_one_machine(
    two_executors: SparkSession, settings: dict[str, Any], large: bool
) -> None:
    two_executors.conf.set("spark.sql.execution.arrow.useLargeVarTypes", large)
    table = layers()
    wanted = quantize_batch_arrow(table, **settings)
    frame = two_executors.createDataFrame(table).repartition(4)
    results = frame.mapInArrow(quantize_batches(**settings), spark_schema(**settings)).cache()
    found = results.toArrow().sort_by("layer_name")
    assert pa.types.is_large_binary(found.schema.field("quantized_data").type) == large
    assert found.cast(wanted.schema).equals(wanted)

    dequantize = dequantize_batches()
    weights = results.mapInArrow(dequantize, dequantize.spark_schema).toArrow()
    decoded = dequantize_batch_arrow(wanted)
    assert weights.sort_by("layer_name").cast(decoded.schema).equals(decoded)

    joined = frame.drop("shape").join(results, "layer_name")
    measure = compare_batches()
    errors = joined.mapInArrow(measure, measure.spark_schema).toArrow().sort_by("layer_name")
    wanted_errors = compare(table, wanted)
    assert errors.cast(wanted_errors.schema).equals(wanted_errors)


def test_what_spark_writes_is_a_result(two_executors: SparkSession, tmp_path: Path) -> None:
    path = str(tmp_path / "results.parquet")
    frame = two_executors.createDataFrame(layers())
    frame.mapInArrow(quantize_batches(), spark_schema()).write.parquet(path)
    wanted = dequantize_batch_arrow(quantize_batch_arrow(layers()))
    assert dequantize_batch_arrow(pq.read_table(path).sort_by("layer_name")).equals(wanted)


def test_a_task_has_the_threads_that_spark_gave_it(two_executors: SparkSession) -> None:
    def cpus(_: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pydict({"cpus": pa.array([cpus_of_task()], pa.int64())})

    found = two_executors.range(1).mapInArrow(cpus, "cpus bigint").toArrow()
    assert set(found["cpus"].to_pylist()) == {2}
    assert cpus_of_task() is None  # the driver has what the process has


def test_a_failing_layer_is_named_or_left_out(two_executors: SparkSession) -> None:
    frame = two_executors.createDataFrame(with_bad_layer())
    failing = frame.mapInArrow(quantize_batches(), spark_schema())
    with pytest.raises(PythonException, match=f"QuantizationError: Layer '{BAD}' contains NaN"):
        failing.toArrow()
    function = quantize_batches(continue_on_error=True)
    found = frame.mapInArrow(function, function.spark_schema).toArrow().sort_by("layer_name")
    wanted = quantize_batch_arrow(layers())
    kept = [row for row in range(ROWS) if wanted["layer_name"][row].as_py() != BAD]
    assert found.cast(wanted.schema).equals(wanted.take(kept))


def test_an_executor_is_killed_in_the_middle(two_executors: SparkSession, tmp_path: Path) -> None:
    """What it was about to do, others do again."""
    quantize = quantize_batches(method="mse")

    def with_a_death(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # PySpark's daemon is the parent, and the executor that of the daemon.
        take_part(tmp_path, str(psutil.Process(os.getppid()).ppid()))
        yield from quantize(batches)

    def kill(executor: str) -> None:
        process = psutil.Process(int(executor))
        assert process.name() == "java"
        assert os.getpid() in {parent.pid for parent in process.parents()}
        process.send_signal(signal.SIGKILL)

    killer = kill_in_the_middle(tmp_path, kill)
    frame = two_executors.createDataFrame(layers()).repartition(8)
    found = frame.mapInArrow(with_a_death, spark_schema()).toArrow().sort_by("layer_name")
    killer.join()
    assert not psutil.pid_exists(int((tmp_path / "victim").read_text()))
    wanted = quantize_batch_arrow(layers(), method="mse")
    assert found.cast(wanted.schema).equals(wanted)
