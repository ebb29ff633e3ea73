"""What the extras of engines bring is enough: nothing else that is installed here is found."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from child import HANG, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BEGIN = """
import numpy as np
import pyarrow.parquet as pq
import pyarrowquant
from pyarrowquant.distributed import quantize_batches, spark_schema

rng = np.random.default_rng(0)
weights = {f"layer.{i}": rng.standard_normal((8, 64), dtype=np.float32) for i in range(4)}
table = pyarrowquant.numpy_to_arrow_table(weights)
pq.write_table(table, "weights.parquet")
wanted = pyarrowquant.quantize_batch_arrow(table)
"""
END = """
found = pq.read_table("results").sort_by("layer_name")
assert found.cast(wanted.schema).equals(wanted)
pyarrowquant.convert("weights.parquet", "here.parquet")
pyarrowquant.convert("weights.parquet", "there.parquet", engine=ENGINE)
assert pq.read_table("here.parquet").equals(pq.read_table("there.parquet"))
"""
EXAMPLES = {
    "ray": """
import ray

ray.init("local", num_cpus=1, include_dashboard=False)
read = ray.data.read_parquet("weights.parquet")
results = read.map_batches(quantize_batches(), batch_format="pyarrow", batch_size=None)
results.write_parquet("results")
""",
    "spark": """
from pyspark.sql import SparkSession

spark = SparkSession.builder.master("local[1]").getOrCreate()
frame = spark.read.parquet("weights.parquet")
frame.mapInArrow(quantize_batches(), spark_schema()).write.parquet("results")
""",
}
HIDING = """
import sys
import sysconfig
from importlib.machinery import PathFinder

INSTALLED = sysconfig.get_path("purelib")

class NotHidden(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in HIDDEN:  # but there may be one that an engine has in a folder of its own
            path = [each for each in sys.path if each != INSTALLED]
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = NotHidden
"""


def brought_by(extra: str) -> set[str]:
    """Name all distributions that pip installs for the package with an extra."""
    found: set[str] = set()
    left = [Requirement(f"pyarrowquant[{extra}]")]
    seen: set[str] = set()
    while left:
        wanted = left.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        name = canonicalize_name(wanted.name)
        try:
            needed = map(Requirement, requires(name) or ())
        except PackageNotFoundError:  # for another system
            continue
        found.add(name)
        for each in needed:
            extras = ["", *wanted.extras]
            if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in extras):
                left.append(each)
    return found


@pytest.mark.parametrize("engine", EXAMPLES)
def test_an_extra_brings_what_its_engine_needs(engine: str, tmp_path: Path) -> None:
    brought = brought_by(engine)
    hidden = {
        module
        for module, owners in packages_distributions().items()
        if not brought & set(map(canonicalize_name, owners))
    }
    assert {"daft", "gguf", "pytest"} <= hidden
    (tmp_path / "sitecustomize.py").write_text(f"HIDDEN = {sorted(hidden)!r}\n{HIDING}")
    program = f"ENGINE = {engine!r}\n{BEGIN}{EXAMPLES[engine]}{END}"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),  # of workers, too
        "PYSPARK_PYTHON": sys.executable,
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
