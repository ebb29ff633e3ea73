"""The batches of a source as tasks of Ray."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pyarrowquant._core import arguments
from pyarrowquant._core.quoting import quoted
from pyarrowquant.conversion.clusters.cluster import (
    TASKS_A_SLOT,
    ClusterRun,
    check_worker,
    first_line,
    lost,
    question,
    seen_here,
)
from pyarrowquant.conversion.clusters.worker import Answer, Failure, Seen, Tasks, do_batch
from pyarrowquant.conversion.signals import handled_as_before
from pyarrowquant.conversion.stage import Run
from pyarrowquant.conversion.viewing import View, Viewed
from pyarrowquant.errors import UsageError

_HEALTH_CHECK = ["-m", "ray.scripts.scripts", "health-check", "--skip-version-check"]
_SECONDS_TO_CONNECT = 5
_SECONDS_TO_ANSWER = 15
_SECONDS_TO_START = 120  # of a worker's process, which imports the package
_SECONDS_TO_CANCEL = 10  # after which tasks are held to be on machines that are lost
_RETRIES = 5  # of a task whose worker dies


class RayEngine:
    """Quantizes batches as tasks of Ray.

    Parameters
    ----------
    address : str or None
        Of the cluster; None for the one that this process is connected to, or that Ray finds, or
        else for one of this machine that ends with the run.
    threads : int or None
        Those of a task, which takes so many CPUs; None for one.
    """

    def __init__(self, address: str | None, threads: int | None) -> None:
        try:
            import ray
        except ImportError:
            raise ImportError("engine='ray' needs Ray: pip install 'pyarrowquant[ray]'") from None
        if address is not None and "://" in address:
            raise UsageError(
                f"{quoted(address)} is the address of a proxy. Give the address of the cluster, "
                "such as '10.0.0.1:6379', on one of its machines"
            )
        if address is not None and ray.is_initialized():
            raise UsageError("Ray is connected to a cluster already: leave out address=")
        self._address = address
        self._threads = arguments.thread_count(1 if threads is None else threads)

    @contextmanager
    def started(self, view: View, source: Viewed) -> Iterator[Run]:
        with _connected(self._address) as ends:
            seen = seen_here(view, source)
            self._check_workers(seen)
            tasks = _EndingWithTheRun if ends else _Started
            yield ClusterRun(seen, self._threads, _slots(self._threads), tasks)

    def _check_workers(self, seen: Seen) -> None:
        """Raise where a machine of the cluster cannot do tasks, which each of them is asked."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        nodes = [node for node in ray.nodes() if node["Alive"]]
        fitting = [node for node in nodes if node["Resources"].get("CPU", 0) >= self._threads]
        if not fitting:
            most = max((node["Resources"].get("CPU", 0) for node in nodes), default=0)
            raise UsageError(
                f"threads={self._threads} is more than any worker of the cluster has: the most is "
                f"{most:g}"
            )
        ask = ray.remote(num_cpus=0)(question())
        said = pickle.dumps(seen)  # which a worker without the package does not open
        asked = [
            (
                node["NodeManagerAddress"],
                ask.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote(
                    said, seen.version
                ),
            )
            for node in fitting
        ]
        for name, answer in asked:
            try:
                version, problem = ray.get(answer, timeout=_SECONDS_TO_START)
            except ray.exceptions.RayError as error:
                raise ConnectionError(
                    f"Worker {name} of the cluster does not answer: {first_line(error)}"
                ) from error
            check_worker(name, version, problem, seen.version)


class _Started:
    """Tasks of Ray."""

    def __init__(self, tasks: Tasks) -> None:
        import ray

        self._tasks = tasks
        self._shared = ray.put(pickle.dumps(tasks))
        self._do = ray.remote(num_cpus=tasks.threads, max_retries=_RETRIES)(do_batch)

    def room(self) -> int:
        return _slots(self._tasks.threads) * TASKS_A_SLOT

    def start(self, number: int) -> Any:
        return self._do.remote(self._shared, number)

    def take(self, handle: Any, number: int) -> Answer | Failure:
        import ray

        try:
            answer: Answer | Failure = ray.get(handle)
        except ray.exceptions.RayTaskError:
            raise  # a defect, of which its text says all
        except ray.exceptions.RayError as error:
            raise lost("Ray", number, self._tasks, first_line(error)) from error
        return answer

    def cancel(self, handles: Sequence[Any]) -> None:
        import ray

        for handle in handles:  # not by force, with which Ray aborts still more often
            ray.cancel(handle)
        if handles:  # so that none puts something into a store when the run has ended
            ray.wait(
                list(handles),
                num_returns=len(handles),
                timeout=_SECONDS_TO_CANCEL,
                fetch_local=False,
            )


class _EndingWithTheRun(_Started):
    """Tasks of a connection that ends with the run, with which the cluster kills its workers."""

    def cancel(self, handles: Sequence[Any]) -> None:
        """Leave it to that: Ray aborts the process if a task ends just as it is cancelled."""


def _slots(threads: int) -> int:
    """Return how many tasks the cluster has room for."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 0)) // threads)


@contextmanager
def _connected(address: str | None) -> Iterator[bool]:
    """Be connected to the cluster, as the process was, or for as long as the context lasts.

    It gives whether the connection ends with the context.
    """
    import ray

    if ray.is_initialized():
        yield False
        return
    found = os.environ.get("RAY_ADDRESS") if address is None else address
    if found is not None and found not in ("auto", "local"):
        _check_answer(found)
    with handled_as_before(signal.SIGTERM):
        try:
            ray.init(address, logging_level="error", log_to_driver=False)
        except (ConnectionError, ray.exceptions.RayError) as error:
            where = "" if found is None else f" at {quoted(found)}"
            raise ConnectionError(
                f"There is no cluster of Ray{where}: {first_line(error)}"
            ) from error
    try:
        yield True
    finally:
        ray.shutdown()


def _check_answer(address: str) -> None:
    """Raise where no cluster answers at an address; Ray itself waits for minutes, and exits."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"The address {quoted(address)} must be HOST:PORT, or 'auto'")
    problem = f"There is no cluster of Ray at {quoted(address)}: "
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_CONNECT).close()
        asked = subprocess.run(
            [sys.executable, *_HEALTH_CHECK, "--address", address],
            capture_output=True,
            timeout=_SECONDS_TO_ANSWER,
            check=False,
        )
        if asked.returncode == 0:
            return
        if b"AuthenticationError" in asked.stderr:
            problem = (
                f"The cluster of Ray at {quoted(address)} asks for its token. Set "
                "RAY_AUTH_MODE=token; and RAY_AUTH_TOKEN, unless ~/.ray/auth_token has it"
            )
        else:
            problem += "what answers there is not Ray"
    except (OSError, OverflowError) as error:
        problem += str(error)
    except subprocess.TimeoutExpired:
        problem += "what answers there is not Ray"
    raise ConnectionError(problem)
