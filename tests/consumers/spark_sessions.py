"""Sessions of Spark whose workers import the package from this tree."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import pyspark
import pytest
from child import ROOT
from pyspark.sql import SparkSession

ENVIRONMENT = {
    "PYSPARK_PYTHON": sys.executable,
    "PYTHONPATH": os.pathsep.join(map(str, [ROOT, Path(__file__).parent])),
    "SPARK_HOME": str(Path(pyspark.__file__).parent),
    "SPARK_LOCAL_HOSTNAME": "localhost",
    "SPARK_SCALA_VERSION": "2.13",  # else executors do not start
}


@contextmanager
def session(
    master: str, environment: Mapping[str, str] = MappingProxyType({}), **settings: object
) -> Iterator[SparkSession]:
    """Run Spark; a setting's name has underscores for dots.

    Java may run already, with the environment of then, so executors are told theirs.
    """
    builder = SparkSession.builder.master(master)
    said = {
        "spark_driver_host": "127.0.0.1",
        "spark_driver_bindAddress": "127.0.0.1",
        "spark_ui_enabled": "false",
        "spark_ui_showConsoleProgress": "false",
        "spark_sql_execution_arrow_maxRecordsPerBatch": 3,
        **settings,
    }
    for name, value in said.items():
        builder.config(name.replace("_", "."), str(value))
    for name, value in {**ENVIRONMENT, **environment}.items():
        builder.config(f"spark.executorEnv.{name}", value)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        started = builder.getOrCreate()
        started.sparkContext.setLogLevel("OFF")
        try:
            yield started
        finally:
            started.stop()
