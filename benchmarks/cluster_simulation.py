"""How long a mixture of experts of 1.3 TB takes on 1 to 256 workers, and what bounds it.

    python benchmarks/cluster_simulation.py [--store MB/S] [--network MB/S] [--disk MB/S]

Four things go in: the model's plan, which `pyarrowquant.plan` makes of headers with their true
sizes, in a process of its own whose time and memory are printed; the processor time that a layer
takes to be read, quantized, handed over and written, measured here on some layers of the same kind;
the rates of the store, the network and the driver's disk, which are arguments; and how the driver
of a cluster works, which is what is simulated: twice as many tasks as workers are under way, and
results are taken in the order of the source.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import pickle
import resource
import shutil
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
from pyarrowquant.conversion.viewing import View
from pyarrowquant.formats import write_compressed_tensors
from pyarrowquant.formats.registry import FORMATS

HIDDEN, INTERMEDIATE, LAYERS, EXPERTS, SHARDS, BLOCK = 8192, 5504, 60, 160, 160, 128
TASKS_A_WORKER = 2  # as pyarrowquant.conversion.cluster has it
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
Shape = tuple[int, int]


@dataclass(frozen=True)
class Rates:
    """Seconds that a task, a byte or a weight takes.

    Attributes
    ----------
    find : float
        Of a worker's processor, for a task to find its batch among those of the model; seconds.
    read : float
        The same, for a weight of FP8 to be decoded.
    quantize : float
        The same, for it to be quantized.
    hand_over : float
        Of the driver's processor, for a byte of results to be taken.
    write : float
        Of the driver's processor, for a byte of results to be laid out and written.
    store : float
        For a byte to come from the store to a worker.
    network : float
        For a byte of results to come to the driver.
    disk : float
        For a byte to be on the driver's disk.
    """

    find: float
    read: float
    quantize: float
    hand_over: float
    write: float
    store: float
    network: float
    disk: float


@dataclass(frozen=True)
class Part:
    """A batch of the source, which is a task: a layer of FP8."""

    weights: int
    source_bytes: int
    result_bytes: int


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


def write_model(folder: Path, matrices: dict[str, Shape], shards: int, fill: bool) -> None:
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


def make_plan(folder: str) -> None:
    """Plan the conversion of a folder, and print the seconds, the peak of memory and the parts."""
    # There is no room for the output here, and nothing is written.
    room = shutil.disk_usage("/")._replace(free=10**13)
    shutil.disk_usage = lambda _: room  # type: ignore[assignment]
    started = time.process_time()
    done = pyarrowquant.plan(folder, Path(folder).parent / "planned", to="compressed-tensors")
    seconds = time.process_time() - started
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    layers = [math.prod(layer.shape) for layer in done.layers if layer.settings is not None]
    view = View(folder, FORMATS["compressed-tensors"], "off", None)
    model = view.of(view.open()).model
    (find,) = processor_seconds([lambda: model.reader(skip=len(layers) // 2)])
    print(json.dumps({"seconds": seconds, "memory": memory, "layers": layers, "find": find}))


def processor_seconds(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Time of the processor that calls take, in turn: the least of 5, as other work adds to it."""
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(5):
        for call, seconds in zip(calls, found, strict=True):
            started = time.process_time()
            call()
            seconds.append(time.process_time() - started)
    return [min(seconds) for seconds in found]


def measured(folder: Path, matrices: dict[str, Shape]) -> tuple[float, float, float, float, float]:
    """Return the seconds of a weight to read and quantize, of a byte to hand over and write.

    Also return the bytes that a weight has as a result.
    """
    source, out = folder / "some", folder / "some-out"
    write_model(source, matrices, 1, fill=True)
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
    packed = pickle.dumps(results)

    def write() -> None:
        write_compressed_tensors(results, out, model=source, overwrite=True)

    seconds = processor_seconds([read, quantize, lambda: pickle.loads(packed), write])
    reading, quantizing, taking, writing = seconds
    shutil.rmtree(source)
    shutil.rmtree(out)
    weights = sum(map(math.prod, matrices.values()))
    size = len(packed)
    return (
        reading / weights,
        (quantizing - reading) / weights,
        taking / size,
        writing / size,
        size / weights,
    )


def simulate(parts: Sequence[Part], rates: Rates, workers: int, overhead: float) -> Simulated:
    """Run the parts: a worker takes the next one when it is free, the driver takes them in order.

    Parameters
    ----------
    overhead : float
        Seconds of the driver for each task.
    """
    free = [0.0] * workers
    taken: list[float] = []  # when the driver is done with each part
    working = driving = 0.0
    window = TASKS_A_WORKER * workers
    for number, part in enumerate(parts):
        started = taken[number - window] if number >= window else 0.0
        task = rates.find + part.source_bytes * rates.store
        task += part.weights * (rates.read + rates.quantize)
        ended = max(heapq.heappop(free), started) + task
        heapq.heappush(free, ended)
        a_byte = rates.network + rates.hand_over + rates.write + rates.disk
        driver = overhead + part.result_bytes * a_byte
        taken.append(max(taken[-1] if taken else 0.0, ended) + driver)
        working += task
        driving += driver
    seconds = taken[-1]
    return Simulated(workers, seconds, working / (workers * seconds), driving / seconds)


def bound_of(run: Simulated, rates: Rates, part: Part) -> str:
    """Say what takes most of the time of those that are busier, the workers or the driver."""
    if run.driver_busy > run.workers_busy:
        of_driver = {
            "the driver's network": rates.network,
            "the driver's processor": rates.hand_over + rates.write,
            "the driver's disk": rates.disk,
        }
        return max(of_driver, key=of_driver.__getitem__)
    of_worker = {
        "the store": part.source_bytes * rates.store,
        "decoding FP8": part.weights * rates.read,
        "quantizing": part.weights * rates.quantize,
    }
    return max(of_worker, key=of_worker.__getitem__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=float, default=200, help="MB/s that a worker reads")
    parser.add_argument("--network", type=float, default=1250, help="MB/s to the driver")
    parser.add_argument("--disk", type=float, default=1000, help="MB/s of the driver's disk")
    parser.add_argument("--overhead", type=float, default=5, help="ms of the driver for a task")
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
        read, quantize, hand_over, write, result = measured(folder, some)
    rates = Rates(
        plan["find"],
        read,
        quantize,
        hand_over,
        write,
        *(1e-6 / each for each in (arguments.store, arguments.network, arguments.disk)),
    )
    parts = [Part(weights, weights, round(weights * result)) for weights in plan["layers"]]
    size = sum(part.source_bytes for part in parts)
    print(f"{len(parts):,} layers, {size / 1e12:.2f} TB in {SHARDS} shards")
    print(
        f"Plan: {plan['seconds']:.1f} s of the processor, {plan['memory'] / 2**20:.0f} MiB; a task "
        f"finds its batch in {plan['find'] * 1e3:.0f} ms"
    )
    print(
        f"A thread decodes {1e-6 / read:.0f} and quantizes {1e-6 / quantize:.0f} million weights a "
        f"second; the driver takes {1e-6 / hand_over:.0f} and writes {1e-6 / write:.0f} MB/s"
    )
    print("| workers | hours | worker hours | cost | workers busy | driver busy | bound by |")
    print("|---|---|---|---|---|---|---|")
    for workers in WORKERS:
        run = simulate(parts, rates, workers, arguments.overhead / 1e3)
        hours = run.seconds / 3600
        print(
            f"| {workers} | {hours:.2f} | {hours * workers:.1f} | "
            f"{hours * workers * arguments.price:.2f} | {run.workers_busy:.0%} | "
            f"{run.driver_busy:.0%} | {bound_of(run, rates, parts[-1])} |"
        )


if __name__ == "__main__":
    main()
