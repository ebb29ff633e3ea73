"""Tables of weights on Ray: what one machine makes, byte for byte.

Ray is large, so `make test-fleet` runs these in an environment of their own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fleet
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from fleet import BAD, ROWS, kill_in_the_middle, layers, take_part, with_bad_layer
from ray.cluster_utils import Cluster

from pyarrowquant import compare, dequantize_batch_arrow, quantize_batch_arrow
from pyarrowquant.distributed import (
    compare_batches,
    dequantize_batches,
    quantize_batches,
)
from pyarrowquant.distributed.task import cpus_of_task

ray.cloudpickle.register_pickle_by_value(fleet)  # workers do not find it
STORE = 200_000_000  # bytes for blocks in shared memory


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=STORE, logging_level="error")
    quiet()
    yield
    ray.shutdown()


def quiet() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def blocks(table: pa.Table, rows: int = 4) -> Any:
    return ray.data.from_arrow([table.slice(at, rows) for at in range(0, table.num_rows, rows)])


def mapped(dataset: Any, function: Any, **options: Any) -> Any:
    return dataset.map_batches(function, batch_format="pyarrow", batch_size=None, **options)


def collected(dataset: Any) -> pa.Table:
    return pa.concat_tables(ray.get(dataset.to_arrow_refs())).sort_by("layer_name")


@pytest.mark.usefixtures("two_workers")
@pytest.mark.parametrize(
    "settings",
    [
        {"method": "mse", "metrics": True},
        {"recipe": {"rules": [{"match": "*[02468]", "encoding": "q4_k"}]}},
    ],
    ids=str,
)
def test_results_are_those_of_one_machine(settings: dict[str, Any]) -> None:
    table = layers()
    wanted = quantize_batch_arrow(table, **settings)
    function = quantize_batches(**settings)
    results = mapped(blocks(table), function).materialize()
    found = collected(results)
    assert found.schema.equals(function.schema)
    assert found.cast(wanted.schema).equals(wanted)

    weights = collected(mapped(results, dequantize_batches()))
    decoded = dequantize_batch_arrow(wanted)
    assert weights.cast(decoded.schema).equals(decoded)

    named = blocks(table.drop_columns("shape"))
    joined = named.join(results, "inner", num_partitions=2, on=("layer_name",))
    assert collected(mapped(joined, compare_batches())).equals(compare(table, wanted))


@pytest.mark.usefixtures("two_workers")
def test_batches_of_parquet_files(tmp_path: Path) -> None:
    """Ray joins blocks into batches of its own size, and writes what another reads."""
    blocks(layers()).write_parquet(str(tmp_path / "weights"))
    dataset = ray.data.read_parquet(str(tmp_path / "weights"))
    results = dataset.map_batches(quantize_batches(), batch_format="pyarrow", batch_size=7)
    results.write_parquet(str(tmp_path / "results"))
    back = pq.read_table(tmp_path / "results").sort_by("layer_name")
    wanted = quantize_batch_arrow(layers())
    assert back.cast(wanted.schema).equals(wanted)
    assert dequantize_batch_arrow(back).equals(dequantize_batch_arrow(wanted))


@pytest.mark.usefixtures("two_workers")
def test_a_task_has_the_threads_that_ray_gave_it() -> None:
    class Actor:
        def __call__(self, table: pa.Table) -> pa.Table:
            return cpus(table)

    def cpus(_: pa.Table) -> pa.Table:
        return pa.table({"cpus": [cpus_of_task()]})

    one = blocks(layers(1))
    for given, threads in [(0.5, 1), (1, 1), (2, 2)]:
        assert mapped(one, cpus, num_cpus=given).take_all() == [{"cpus": threads}]
    alone = ray.data.ActorPoolStrategy(size=1)
    assert mapped(one, Actor, num_cpus=2, compute=alone).take_all() == [{"cpus": 2}]
    assert cpus_of_task() is None  # the driver has what the process has


@pytest.mark.usefixtures("two_workers")
def test_a_failing_layer_is_named_or_left_out() -> None:
    dataset = blocks(with_bad_layer())
    with pytest.raises(ray.exceptions.RayTaskError, match=f"Layer '{BAD}' contains NaN") as caught:
        mapped(dataset, quantize_batches()).materialize()
    assert "QuantizationError" in str(caught.value)
    found = collected(mapped(dataset, quantize_batches(continue_on_error=True)))
    wanted = quantize_batch_arrow(layers())
    kept = [row for row in range(ROWS) if wanted["layer_name"][row].as_py() != BAD]
    assert found.cast(wanted.schema).equals(wanted.take(kept))


def test_a_node_is_killed_in_the_middle(tmp_path: Path) -> None:
    """What it had done, and what it was about to do, others do again."""
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **node()})
    nodes = {each.node_id: each for each in (cluster.add_node(num_cpus=1, **node()) for _ in "ab")}
    cluster.connect()
    try:
        quiet()
        quantize = quantize_batches(method="mse")

        def with_a_death(table: pa.Table) -> pa.Table:
            take_part(tmp_path, ray.get_runtime_context().get_node_id())
            return quantize(table)

        def kill(node_id: str) -> None:
            cluster.remove_node(nodes[node_id], allow_graceful=False)

        killer = kill_in_the_middle(tmp_path, kill)
        found = collected(mapped(blocks(layers(), 2), with_a_death))
        killer.join()
        assert sum(each["Alive"] for each in ray.nodes()) == 2  # the head is one
        wanted = quantize_batch_arrow(layers(), method="mse")
        assert found.cast(wanted.schema).equals(wanted)
    finally:
        ray.shutdown()
        cluster.shutdown()


def node() -> dict[str, Any]:
    return {"object_store_memory": STORE, "include_dashboard": False}
