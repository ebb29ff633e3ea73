"""What the figures were measured on."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from timing import Times

PACKAGES = (
    "pyarrowquant",
    "pyarrow",
    "numpy",
    "llama-cpp-python",
    "mlx",
    "onnxruntime",
    "torch",
    "torchao",
    "hqq",
    "bitsandbytes",
    "sinq",
    "llmcompressor",
    "compressed-tensors",
    "gguf",
    "transformers",
)


def describe() -> dict[str, str]:
    """Date, processor, system and versions."""
    found = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "cpu": cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def cpu_model() -> str:
    fields = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return (
        f"{fields.get('model name', platform.processor())} "
        f"(family {fields.get('cpu family')}, model {fields.get('model')})"
    )


def peak_memory() -> dict[str, int]:
    """Peak of one call on a 1 GiB table above its input, in a process of its own."""
    peak: dict[str, int] = alone("""
import json
from workloads import MIB, large_layers
import pyarrow as pa, pyarrowquant

def status(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) << 10

table = large_layers(1024 * MIB, 16)
pyarrowquant.quantize_batch_arrow(pa.table({"layer_name": ["a"], "weights": [[1.0]]}))
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
result = pyarrowquant.quantize_batch_arrow(table)
print(json.dumps({"above": status("VmHWM") - before, "result": result.nbytes}))
""")
    return peak


def empty_call(repetitions: int) -> Times:
    """Seconds of a call on an empty table, in a process that has imported nothing else."""
    seconds: list[float] = alone(f"""
import json, time
import pyarrow as pa, pyarrowquant

table = pa.table({{"layer_name": ["a"], "weights": [[1.0]]}}).slice(0, 0)
seconds = []
for _ in range({repetitions} + 1):
    started = time.perf_counter()
    for _ in range(1000):
        pyarrowquant.quantize_batch_arrow(table)
    seconds.append((time.perf_counter() - started) / 1000)
print(json.dumps(seconds[1:]))
""")
    return Times(tuple(seconds))


def alone(program: str) -> Any:
    """Run a program in a process of its own; it prints JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout)
