"""How long a mixture of experts of 1.3 TB takes on 1 to 256 workers, and what bounds it.

    python benchmarks/cluster_simulation.py [--store MB/S] [--upload MB/S] [--disk MB/S] [--batches]

Four things go in: the model's plan, which `pyarrowquant.plan` makes of headers with their true
sizes, in a process of its own whose time and memory are printed; the processor time that a layer
takes to be read, quantized and written, measured here on some layers of the same kind, and that a
worker takes to begin; the rates of the store and of a worker's disk, which are arguments; and how
a cluster works, which is what is simulated: a task is a file of the output, which the worker puts
into the store; twice as many tasks as workers are under way; and the driver notes files in their
order. Of workers that write into a shared folder nothing is uploaded: `--upload inf`, and `--disk`
is what its file system takes from each. With `--batches` they write batches to their places in
files there, as they do of an output of one file: a task is a layer, as layers of this size are
batches of their own, and the driver's time for each is measured here, with the disk's.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import pyarrowquant
from pyarrowquant.conversion import convert, engines
from pyarrowquant.conversion.job import Job
from pyarrowquant.conversion.making_files import MakingFiles
from pyarrowquant.conversion.taking import Taking
from pyarrowquant.formats import write_compressed_tensors

HIDDEN, INTERMEDIATE, LAYERS, EXPERTS, SHARDS, BLOCK = 8192, 5504, 60, 160, 160, 128
NOTES = 100  # batches
TASKS_A_WORKER = 2  # as pyarrowquant.conversion.clusters.cluster has it
BUSY = 0.9  # fraction of the time below which workers wait
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
Shape = tuple[int, int]


@dataclass(frozen=True)
class Rates:
    """Seconds that a worker, a byte or a weight takes.

    Attributes
    ----------
    begin : float
        Of a worker's processor, to open the model and find what lies in which file; seconds.
    read : float
        The same, for a weight of FP8 to be decoded.
    quantize : float
        The same, for it to be quantized.
    write : float
        The same, for a byte of results to be laid out and written.
    store : float
        For a byte to come from the store to a worker.
    disk : float
        For a byte to be on a worker's disk.
    upload : float
        For a byte to go from there to the store.
    """

    begin: float
    read: float
    quantize: float
    write: float
    store: float
    disk: float
    upload: float


@dataclass(frozen=True)
class Task:
    """A file of the output, with the layers of a shard, or a batch; weights are FP8 before."""

    weights: int
    bytes: int

    def parts(self, rates: Rates) -> dict[str, float]:
        """Name what a worker does for it, with the seconds that takes."""
        return {
            "reading the store": self.weights * rates.store,
            "decoding FP8": self.weights * rates.read,
            "quantizing": self.weights * rates.quantize,
            "writing": self.bytes * (rates.write + rates.disk),
            "uploading": self.bytes * rates.upload,
        }


@dataclass(frozen=True)
class Simulated:
    """A run on so many workers.

    Attributes
    ----------
    workers : int
    seconds : float
    workers_busy, driver_busy : float
        Fraction of the time.
    """

    workers: int
    seconds: float
    workers_busy: float
    driver_busy: float


def shapes() -> dict[str, Shape]:
    """Name the matrices of the model, in the order of its shards."""
    found: dict[str, Shape] = {}
    for i in range(LAYERS):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            rows = HIDDEN if name in ("q_proj", "o_proj") else 1024
            found[f"model.layers.{i}.self_attn.{name}"] = (rows, HIDDEN)
        for expert in range(EXPERTS):
            at = f"model.layers.{i}.mlp.experts.{expert}"
            found[f"{at}.gate_proj"] = found[f"{at}.up_proj"] = (INTERMEDIATE, HIDDEN)
            found[f"{at}.down_proj"] = (HIDDEN, INTERMEDIATE)
    return found


def write_model(folder: Path, matrices: dict[str, Shape], shards: int, fill: bool = True) -> None:
    """Write a folder of FP8 with scales of blocks; without `fill` its bytes are holes."""
    folder.mkdir()
    names = list(matrices)
    weight_map: dict[str, str] = {}
    rng = np.random.default_rng(0)
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        header: dict[str, Any] = {}
        end = 0
        some = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        for name in some:
            rows, columns = matrices[name]
            blocks = [-(-rows // BLOCK), -(-columns // BLOCK)]
            for key, dtype, shape, size in (
                (f"{name}.weight", "F8_E4M3", [rows, columns], rows * columns),
                (f"{name}.weight_scale_inv", "F32", blocks, 4 * math.prod(blocks)),
            ):
                header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
                end += size
                weight_map[key] = file
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for entry in header.values() if fill else ():
                count = entry["data_offsets"][1] - entry["data_offsets"][0]
                if entry["dtype"] == "F32":
                    out.write(np.full(count // 4, 1e-3, np.float32).data)
                else:  # all finite numbers alike
                    codes = rng.integers(0, 127, count, np.uint8)
                    out.write((codes | rng.integers(0, 2, count, np.uint8) << 7).data)
            out.truncate(8 + len(text) + end)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "architectures": ["DeepseekV3ForCausalLM"],
        "dtype": "bfloat16",
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]},
    }
    (folder / "config.json").write_text(json.dumps(config))


class EveryDepot:
    """Stands for a store that a worker reaches."""

    def is_reached(self) -> bool:
        return True


def make_plan(folder: str) -> None:
    """Plan the conversion of a folder, and print the seconds, the peak of memory and the parts."""
    # There is no room for the output here, and nothing is written.
    room = shutil.disk_usage("/")._replace(free=10**13)
    shutil.disk_usage = lambda _: room  # type: ignore[assignment]
    jobs: list[Job] = []
    prepare = convert.prepare

    def watched(*arguments: Any) -> Job:
        jobs.append(prepare(*arguments))
        return jobs[-1]

    convert.prepare = watched
    started = time.process_time()
    done = pyarrowquant.plan(folder, Path(folder).parent / "planned", to="compressed-tensors")
    seconds = time.process_time() - started
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    layers = [math.prod(layer.shape) for layer in done.layers if layer.settings is not None]
    (job,) = jobs
    making = MakingFiles(job._quantizing(job.recipe), job.origin, EveryDepot(), ())
    (begin,) = processor_seconds([lambda: making.on(job.view.of(job.view.open()))])
    print(json.dumps({"seconds": seconds, "memory": memory, "layers": layers, "begin": begin}))


def processor_seconds(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Time of the processor that calls take, in turn: the least of 5, as other work adds to it."""
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(5):
        for call, seconds in zip(calls, found, strict=True):
            started = time.process_time()
            call()
            seconds.append(time.process_time() - started)
    return [min(seconds) for seconds in found]


def measured(folder: Path, matrices: dict[str, Shape]) -> tuple[float, float, float, float]:
    """Return the seconds of a weight to read and quantize, and of a byte to write.

    Also return the bytes that a weight has as a result.
    """
    source, out = folder / "some", folder / "some-out"
    write_model(source, matrices, 1)
    settings: dict[str, Any] = {
        "method": "mse",
        "zero_point": "symmetric",
        "scale_dtype": "bfloat16",
        "metrics": True,
        "threads": 1,
    }

    def read() -> None:
        for batch in pyarrowquant.read_weights(source):
            del batch

    def quantize() -> pa.Table:
        weights = pyarrowquant.read_weights(source)
        return pyarrowquant.quantize_stream(weights, **settings).read_all()

    results = quantize()

    def write() -> None:
        write_compressed_tensors(results, out, model=source, overwrite=True)

    reading, quantizing, writing = processor_seconds([read, quantize, write])
    size = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    shutil.rmtree(source)
    shutil.rmtree(out)
    weights = sum(map(math.prod, matrices.values()))
    return (
        reading / weights,
        (quantizing - reading) / weights,
        writing / size,
        size / weights,
    )


def seconds_to_note(folder: Path) -> float:
    """Return what the driver takes to check and note a batch of a layer, with what its disk does.

    This process stands for the workers, which write at the same time.
    """
    model = folder / "noted"
    write_model(model, {f"model.layers.{i}.up_proj": (BLOCK, BLOCK) for i in range(NOTES)}, NOTES)
    found: list[float] = []
    add = Taking._add_placed

    def added(*arguments: Any) -> None:
        started = time.perf_counter()
        add(*arguments)
        found.append(time.perf_counter() - started)

    Taking._add_placed = added  # type: ignore[method-assign]
    engines._LocalRun.fewest_files = NOTES + 1  # type: ignore[method-assign, assignment]
    pyarrowquant.convert(model, folder / "noted-out", to="mlx")
    assert len(found) == NOTES
    return statistics.median(found)


def simulate(tasks: Sequence[Task], rates: Rates, workers: int, overhead: float) -> Simulated:
    """Do tasks: a worker takes the next one when it is free, the driver notes them in order.

    Parameters
    ----------
    overhead : float
        Seconds of the driver for each, of which it makes a note.
    """
    free = [rates.begin] * workers
    noted: list[float] = []  # when the driver is done with each
    working = workers * rates.begin
    window = TASKS_A_WORKER * workers
    for number, task in enumerate(tasks):
        started = noted[number - window] if number >= window else 0.0
        seconds = sum(task.parts(rates).values())
        ended = max(heapq.heappop(free), started) + seconds
        heapq.heappush(free, ended)
        noted.append(max(noted[-1] if noted else 0.0, ended) + overhead)
        working += seconds
    seconds = noted[-1]
    return Simulated(
        workers, seconds, working / (workers * seconds), len(tasks) * overhead / seconds
    )


def bound_of(run: Simulated, rates: Rates, tasks: Sequence[Task]) -> str:
    """Say what takes most of the time of those that are busier, the workers or the driver."""
    if run.driver_busy > run.workers_busy:
        return "the driver"
    if run.workers_busy < BUSY:
        return f"{len(tasks)} tasks"
    parts = tasks[0].parts(rates)
    return max(parts, key=parts.__getitem__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=float, default=200, help="MB/s that a worker reads")
    parser.add_argument("--upload", type=float, default=100, help="MB/s that a worker uploads")
    parser.add_argument("--disk", type=float, default=500, help="MB/s of a worker's disk")
    parser.add_argument("--overhead", type=float, default=200, help="ms of the driver for a file")
    parser.add_argument("--batches", action="store_true", help="that workers write to their places")
    parser.add_argument("--price", type=float, default=0.05, help="of an hour of a worker")
    parser.add_argument("--plan", help=argparse.SUPPRESS)  # what its own process does
    arguments = parser.parse_args()
    if arguments.plan:
        make_plan(arguments.plan)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_model(folder / "model", shapes(), SHARDS, fill=False)
        command = [sys.executable, __file__, "--plan", str(folder / "model")]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        plan = json.loads(said)
        some = {f"model.layers.0.mlp.experts.{i}.up_proj": (INTERMEDIATE, HIDDEN) for i in range(3)}
        read, quantize, write, result = measured(folder, some)
        overhead = seconds_to_note(folder) if arguments.batches else arguments.overhead / 1e3
    rates = Rates(
        plan["begin"],
        read,
        quantize,
        write,
        *(1e-6 / each for each in (arguments.store, arguments.disk, arguments.upload)),
    )
    layers = plan["layers"]
    ends = [shard * len(layers) // SHARDS for shard in range(SHARDS + 1)]
    weights = [sum(layers[start:end]) for start, end in itertools.pairwise(ends)]
    counts = layers if arguments.batches else weights
    tasks = [Task(count, round(count * result)) for count in counts]
    print(f"{len(layers):,} layers, {sum(weights) / 1e12:.2f} TB in {SHARDS} shards")
    print(
        f"Plan: {plan['seconds']:.1f} s of the processor, {plan['memory'] / 2**20:.0f} MiB; a "
        f"worker begins in {plan['begin']:.1f} s"
    )
    print(
        f"A thread decodes {1e-6 / read:.0f} and quantizes {1e-6 / quantize:.0f} million weights a "
        f"second, and writes {1e-6 / write:.0f} MB/s"
    )
    print(f"{len(tasks):,} tasks, for each of which the driver takes {1e3 * overhead:.1f} ms")
    print("| workers | hours | worker hours | cost | workers busy | driver busy | bound by |")
    print("|---|---|---|---|---|---|---|")
    for workers in WORKERS:
        run = simulate(tasks, rates, workers, overhead)
        hours = run.seconds / 3600
        print(
            f"| {workers} | {hours:.2f} | {hours * workers:.1f} | "
            f"{hours * workers * arguments.price:.2f} | {run.workers_busy:.0%} | "
            f"{run.driver_busy:.0%} | {bound_of(run, rates, tasks)} |"
        )


if __name__ == "__main__":
    main()
