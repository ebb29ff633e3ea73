"""From how many files on workers make whole files, rather than batches that the driver writes."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pyarrowquant.conversion.clusters.cluster import ClusterRun


@pytest.mark.parametrize(
    ("slots", "threads", "fewest"),
    [(1, 1, 1), (4, 1, 4), (16, 1, 16), (256, 1, 16), (256, 4, 4), (2, 4, 2), (8, 64, 1)],
)
def test_as_many_as_run_at_a_time_or_the_driver_keeps_up_with(
    slots: int, threads: int, fewest: int
) -> None:
    assert ClusterRun(cast(Any, None), threads, slots, cast(Any, None)).fewest_files == fewest
