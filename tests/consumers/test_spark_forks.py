"""A daemon of PySpark that has used the package cannot fork workers that use it."""

from __future__ import annotations

import pytest
from fleet import layers
from pyspark.errors import PythonException
from spark_sessions import session

from pyarrowquant.distributed import quantize_batches, spark_schema


def test_a_daemon_that_used_the_package_before_it_forks() -> None:
    """Its workers say what to do; those of Spark's own daemon load the package after the fork."""
    with session("local[1]", spark_python_daemon_module="used_daemon") as spark:
        frame = spark.createDataFrame(layers(1))
        way_out = r"before the fork.* not in spark\.python\.daemon\.module"
        with pytest.raises(PythonException, match=way_out):
            frame.mapInArrow(quantize_batches(), spark_schema()).toArrow()
