"""Two workers of a cluster with a thread each, beside this process with two threads.

    python benchmarks/cluster.py [--engine ray] [--repetitions N] [--json FILE]

The whole conversion of a model of 1.1 GB to compressed-tensors is timed, in turn. The cluster
has started, and its workers have imported the package: the first run of each is not counted. For
`--engine spark` Java and the environment of docs/clusters.md are needed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from checkpoint import make_checkpoint
from machine import describe
from timing import measure_in_turn

import pyarrowquant

BLOCKS = 10  # 1.1 GB
WORKERS = 2


@contextmanager
def started(engine: str) -> Iterator[None]:
    """Have a cluster of two workers on this machine."""
    if engine == "ray":
        import ray

        ray.init("local", num_cpus=WORKERS, include_dashboard=False)
        try:
            yield
        finally:
            ray.shutdown()
        return
    from pyspark import SparkConf, SparkContext

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    conf = SparkConf().set("spark.driver.memory", "2g").set("spark.driver.maxResultSize", "0")
    with SparkContext(f"local[{WORKERS}]", "benchmark", conf=conf):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=["ray", "spark"], default="ray")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, started(arguments.engine):
        folder = Path(place)
        size = make_checkpoint(folder / "model", BLOCKS)

        def converted(**options: object) -> pyarrowquant.Conversion:
            return pyarrowquant.convert(
                folder / "model",
                folder / "out",
                to="compressed-tensors",
                overwrite=True,
                **options,  # type: ignore[arg-type]
            )

        there = arguments.engine
        times = measure_in_turn(
            {
                "local": lambda: converted(threads=WORKERS),
                there: lambda: converted(engine=there, threads=1),
            },
            arguments.repetitions,
        )
    ratio = times["local"].over(times[there])
    for name, each in times.items():
        print(f"{name}: {each.median:.2f} s ({min(each.seconds):.2f} to {max(each.seconds):.2f})")
    print(f"{there} is {ratio:.2f} times as fast as local, with {size / 1e9:.1f} GB of weights")
    if arguments.json:
        said = {name: asdict(each) for name, each in times.items()}
        arguments.json.write_text(json.dumps({"machine": describe(), "ratio": ratio, **said}))


if __name__ == "__main__":
    main()
