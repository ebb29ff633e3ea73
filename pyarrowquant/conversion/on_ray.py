"""The batches of a source as tasks of Ray."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pyarrowquant._core import arguments
from pyarrowquant._core.quoting import quoted
from pyarrowquant._version import __version__
from pyarrowquant.conversion.progress import Meter
from pyarrowquant.conversion.quantizing import Outcome, Quantize
from pyarrowquant.conversion.source import is_local
from pyarrowquant.conversion.viewing import View, Viewed
from pyarrowquant.conversion.worker import (
    Answer,
    Failure,
    Seen,
    Tasks,
    WorkerError,
    files_everywhere,
    quantize_batch,
    version_problem,
)
from pyarrowquant.errors import QuantizationError, UsageError, users_level

_HEALTH_CHECK = ["-m", "ray.scripts.scripts", "health-check", "--skip-version-check"]
_SECONDS_TO_CONNECT = 5
_SECONDS_TO_ANSWER = 15
_SECONDS_TO_START = 120  # of a worker's process, which imports the package
_RETRIES = 5  # of a task whose worker dies
_TASKS_A_SLOT = 2  # one runs, and one waits


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
    def started(self, view: View, source: Viewed) -> Iterator[Quantize]:
        with _connected(self._address):
            if is_local(source.model):
                view = replace(view, source=os.path.abspath(source.model.location.path))
            seen = Seen(view, files_everywhere(source), __version__)
            self._check_workers(seen)
            yield lambda task, skip, meter: self._outcomes(
                Tasks(seen, replace(task, view=view), self._threads), skip, meter
            )

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
        ask = ray.remote(num_cpus=0)(_question())
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
                    f"Worker {name} of the cluster does not answer: {_first_line(error)}"
                ) from error
            if version != seen.version:
                problem = version_problem(version, seen.version)
            if problem is not None:
                raise WorkerError(f"Worker {name} {problem}")

    def _outcomes(self, tasks: Tasks, skip: int, meter: Meter) -> Generator[Outcome, None, None]:
        """Give the outcomes of batches in their order, as many of which are done as have room."""
        import ray

        quantize = ray.remote(num_cpus=self._threads, max_retries=_RETRIES)(quantize_batch)
        shared = ray.put(tasks)
        running: deque[Any] = deque()
        following = skip
        is_whole = False
        try:
            while not is_whole:
                while len(running) < self._in_flight():
                    running.append((following, quantize.remote(shared, following)))
                    following += 1
                number, reference = running.popleft()
                answer = _taken(reference, number, tasks.seen.view.source)
                del reference  # so that Ray may forget the results, once they are used
                for category, text in answer.warnings:
                    warnings.warn(text, category, stacklevel=users_level())
                is_whole = not any(outcome.batches for outcome in answer.outcomes)
                for outcome in answer.outcomes:
                    yield outcome
                    layers = 0 if outcome.results is None else outcome.results.num_rows
                    meter.take(outcome.read, layers)
                del answer, outcome
        finally:
            for _, reference in running:
                ray.cancel(reference, force=not is_whole)

    def _in_flight(self) -> int:
        import ray

        slots = int(ray.cluster_resources().get("CPU", 0)) // self._threads
        return max(1, slots) * _TASKS_A_SLOT


def _question() -> Callable[[bytes, str], tuple[str | None, str | None]]:
    """Return a function that a worker can run which lacks the package, or has another version.

    Ray takes it along as it is, since it is no function of a module. It returns the version of the
    package, None without one, and, where that is the driver's, what is wrong with the source.
    """

    def ask(said: bytes, wanted: str) -> tuple[str | None, str | None]:
        import pickle

        try:
            from pyarrowquant import __version__ as version
        except ImportError:
            return None, None
        if version == wanted:
            try:
                pickle.loads(said).open()
            except ValueError as error:
                return version, str(error)
        return version, None

    return ask


def _taken(reference: Any, number: int, source: str) -> Answer:
    """Wait for the answer of a task; raise what it has raised, and say where."""
    import ray

    try:
        answer: Answer | Failure = ray.get(reference)
    except ray.exceptions.RayTaskError:
        raise  # a defect, of which its text says all
    except ray.exceptions.RayError as error:
        raise ConnectionError(
            f"Ray could not do batch {number} of '{source}': {_first_line(error)}. resume=True "
            "tries it again"
        ) from error
    if isinstance(answer, Answer):
        return answer
    cause = answer.error
    if isinstance(cause, WorkerError):
        raise WorkerError(f"Worker {answer.worker} {cause}")
    text = f"{cause} (batch {number} of '{source}' on the worker {answer.worker})"
    if isinstance(cause, QuantizationError):
        raise QuantizationError(text, cause.errors)
    kinds = (ValueError, OSError, ImportError, MemoryError)
    raise next(kind for kind in kinds if isinstance(cause, kind))(text) from cause


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Be connected to the cluster, as the process was, or for as long as the context lasts."""
    import ray

    if ray.is_initialized():
        yield
        return
    found = os.environ.get("RAY_ADDRESS") if address is None else address
    if found is not None and found not in ("auto", "local"):
        _check_answer(found)
    with _own_signals():
        try:
            ray.init(address, logging_level="error", log_to_driver=False)
        except ConnectionError as error:
            raise ConnectionError(
                f"There is no cluster of Ray at {quoted(address)}: {_first_line(error)}"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answer(address: str) -> None:
    """Raise where no cluster answers at an address; Ray itself waits for minutes, and exits."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"The address {quoted(address)} must be HOST:PORT, or 'auto'")
    problem = "what answers there is not Ray"
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
    except (OSError, OverflowError) as error:
        problem = str(error)
    except subprocess.TimeoutExpired:
        pass
    raise ConnectionError(f"There is no cluster of Ray at {quoted(address)}: {problem}")


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what the process does at SIGTERM, which Ray changes when it connects."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
