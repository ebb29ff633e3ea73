"""The batches of a source as tasks of Spark, each of which is a job of its own.

So results come as tasks end, and Spark's bound on what a job collects is one on a batch.
"""

from __future__ import annotations

import os
import pickle
import re
import secrets
import signal
import socket
import struct
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from pyarrowquant._core import arguments
from pyarrowquant._core.quoting import quoted
from pyarrowquant.conversion.clusters.cluster import (
    TASKS_A_SLOT,
    ClusterRun,
    check_worker,
    lost,
    question,
    seen_here,
)
from pyarrowquant.conversion.clusters.worker import Answer, Failure, Seen, Tasks
from pyarrowquant.conversion.signals import handled_as_before
from pyarrowquant.conversion.stage import Run
from pyarrowquant.conversion.viewing import View, Viewed
from pyarrowquant.errors import UsageError, users_level

_MASTERS = r"local(\[.+\])?|local-cluster\[.+\]|yarn|(spark|k8s)://.+"
_STREAM_REQUEST = 6  # a type of message
_SECONDS_TO_CONNECT = 5
_SECONDS_TO_ANSWER = 10
_SECONDS_TO_START = 120  # of executors, which their cluster may have to find room for
_SECONDS_TO_CANCEL = 0.2  # after which jobs are cancelled again, as one may have begun since


class SparkEngine:
    """Does batches as tasks of Spark.

    Parameters
    ----------
    address : str or None
        The master of the cluster; None for the one that this process has a session with, or else
        that of Spark's configuration.
    threads : int or None
        Those of a task, which takes so many CPUs; None for spark.task.cpus.
    """

    def __init__(self, address: str | None, threads: int | None) -> None:
        try:
            from pyspark import SparkContext
        except ImportError:
            raise ImportError(
                "engine='spark' needs PySpark: pip install 'pyarrowquant[spark]'"
            ) from None
        if address is not None and not re.fullmatch(_MASTERS, address):
            raise UsageError(
                f"{quoted(address)} is no master of Spark that runs tasks. Give one such as "
                "'spark://10.0.0.1:7077', 'yarn' or 'local[4]'"
            )
        if address is not None and SparkContext._active_spark_context is not None:
            raise UsageError("There is a session of Spark already: leave out address=")
        self._address = address
        self._threads = None if threads is None else arguments.thread_count(threads)

    @contextmanager
    def started(self, view: View, source: Viewed) -> Iterator[Run]:
        with _connected(self._address, self._threads) as context:
            threads = int(context.getConf().get("spark.task.cpus", "1"))
            if self._threads not in (None, threads):
                raise UsageError(
                    f"threads={self._threads} differs from the CPUs of a task, spark.task.cpus, of "
                    f"which the session has {threads}. Leave out threads="
                )
            seen = seen_here(view, source)
            _check_workers(context, seen, threads)
            yield ClusterRun(seen, threads, _slots(context, threads), partial(_Started, context))


class _Jobs:
    """Runs jobs in threads, and can cancel them all."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._tag = f"pyarrowquant-{secrets.token_hex(8)}"
        self._threads = ThreadPoolExecutor(sys.maxsize)  # starts no more than have something to do

    def start(self, rows: Sequence[int], task: Callable[[int], Iterable[Any]]) -> Future[list[Any]]:
        """Start a job that has a task for each row, and give all that these give."""

        def collected() -> list[Any]:
            self._context.addJobTag(self._tag)
            found: list[Any] = self._context.parallelize(rows, len(rows)).flatMap(task).collect()
            return found

        return self._threads.submit(collected)

    def cancel(self, jobs: Sequence[Future[list[Any]]]) -> None:
        """Cancel all jobs, of which these may not have ended."""
        left = {job for job in jobs if not job.cancel()}
        while left:
            with suppress(*_spark_errors()):  # of a session that has stopped, and has no jobs left
                self._context.cancelJobsWithTag(self._tag)
            left = wait(left, _SECONDS_TO_CANCEL).not_done
        self._threads.shutdown()


def _check_workers(context: Any, seen: Seen, threads: int) -> None:
    """Raise where executors that there are cannot do tasks; later ones are asked with each task."""
    ask, said, version = question(), pickle.dumps(seen), seen.version

    def asked(_: int) -> list[tuple[str, str | None, str | None]]:
        import socket

        return [(socket.gethostname(), *ask(said, version))]

    jobs = _Jobs(context)
    job = jobs.start(range(_slots(context, threads)), asked)
    try:
        if not wait([job], _SECONDS_TO_START).done:
            raise ConnectionError(
                f"No executor of Spark has done a task in {_SECONDS_TO_START} s. See that the "
                f"cluster has executors of {threads} CPUs"
            )
        answers = job.result()
    except _spark_errors() as error:
        raise ConnectionError(f"Executors of Spark cannot do tasks: {_said(error)}") from error
    finally:
        jobs.cancel([job])
    for name, found, problem in answers:
        check_worker(name, found, problem, version)


class _Started:
    """Tasks of Spark."""

    def __init__(self, context: Any, tasks: Tasks) -> None:
        self._context = context
        self._tasks = tasks
        self._jobs = _Jobs(context)
        self._shared = context.broadcast(pickle.dumps(tasks))
        heap = context._jvm.java.lang.Runtime.getRuntime().maxMemory()
        # Spark has the results of tasks that have ended, received and once more to hand them over.
        self._most = max(1, int(heap) // (2 * tasks.stage.result_bytes))
        if self._most < (slots := _slots(context, tasks.threads)):
            warnings.warn(
                f"No more than {self._most} of {slots} tasks run at a time, whose results "
                f"Spark has memory for here: {heap // 10**6} MB. Give it more by "
                "spark.driver.memory, or batches less by max_memory",
                UserWarning,
                stacklevel=users_level(),
            )

    def room(self) -> int:
        return min(_slots(self._context, self._tasks.threads) * TASKS_A_SLOT, self._most)

    def start(self, number: int) -> Future[list[bytes]]:
        return self._jobs.start([number], _task(self._shared, self._tasks.seen.version))

    def take(self, handle: Future[list[bytes]], number: int) -> Answer | Failure:
        try:
            found = pickle.loads(b"".join(handle.result()))
        except _spark_errors() as error:
            raise lost("Spark", number, self._tasks, _said(error)) from error
        if isinstance(found, tuple):
            worker, version = found
            check_worker(worker, version, None, self._tasks.seen.version)
        answer: Answer | Failure = found
        return answer

    def cancel(self, handles: Sequence[Future[list[bytes]]]) -> None:
        self._jobs.cancel(handles)
        with suppress(*_spark_errors()):
            self._shared.destroy()


def _task(shared: Any, wanted: str) -> Callable[[int], Iterable[bytes]]:
    """Return what executors do with a number, also those that lack the package.

    It gives the answer as pickle has it, in pieces; or (name, version) of a worker that has another
    version.
    """

    def do(number: int) -> Iterable[bytes]:
        import pickle
        import socket

        try:
            import pyarrowquant
        except ImportError:
            return [pickle.dumps((socket.gethostname(), None))]
        if pyarrowquant.__version__ != wanted:
            return [pickle.dumps((socket.gethostname(), pyarrowquant.__version__))]
        from pyarrowquant.conversion.clusters.worker import do_batch, in_pieces

        return in_pieces(do_batch(shared.value, number))

    return do


def _slots(context: Any, threads: int) -> int:
    """Return how many tasks executors have room for."""
    return max(1, int(context.defaultParallelism) // threads)


@contextmanager
def _connected(address: str | None, threads: int | None) -> Iterator[Any]:
    """Give the context of the session that there is, or of one for as long as this one lasts."""
    from pyspark import SparkConf, SparkContext

    if SparkContext._active_spark_context is not None:
        yield SparkContext._active_spark_context
        return
    _check_answer(address)
    settings = SparkConf()
    settings.setIfMissing("spark.log.level", "OFF")  # errors say what is wrong
    settings.setIfMissing("spark.ui.showConsoleProgress", "false")
    settings.setIfMissing("spark.driver.maxResultSize", "0")  # as so few results come at a time
    if threads is not None:
        settings.set("spark.task.cpus", str(threads))
    with handled_as_before(signal.SIGINT), _python_of_workers():
        try:
            context = SparkContext(address, "pyarrowquant", conf=settings)
        except _spark_errors() as error:
            raise ConnectionError(f"Spark does not start: {_said(error)}") from error
    try:
        yield context
    finally:
        context.stop()


@contextmanager
def _python_of_workers() -> Iterator[None]:
    """Have workers run the Python that PYSPARK_PYTHON names, or else this one."""
    name = "PYSPARK_PYTHON"
    if name in os.environ:
        yield
        return
    os.environ[name] = sys.executable
    try:
        yield
    finally:
        del os.environ[name]


def _check_answer(address: str | None) -> None:
    """Raise where none of the masters that an address has answers; Spark waits for a minute.

    Each is asked for a stream that there is not, as Spark's own processes ask each other.
    """
    masters = _masters_in(address)
    name = b"/files/none"
    body = struct.pack(">bi", _STREAM_REQUEST, len(name)) + name
    asked = struct.pack(">q", 8 + len(body)) + body
    problems = []
    for host, port in masters:
        try:
            with socket.create_connection((host, port), _SECONDS_TO_CONNECT) as connection:
                connection.settimeout(_SECONDS_TO_ANSWER)
                connection.sendall(asked)
                connection.recv(1)
        except TimeoutError:
            problems.append(f"{host}:{port} does not answer")
        except (OSError, OverflowError) as error:
            problems.append(str(error))
        else:
            return
    if problems:
        raise ConnectionError(f"There is no Spark at {quoted(address)}: {'; '.join(problems)}")


def _masters_in(address: str | None) -> list[tuple[str, int]]:
    """Return the hosts and ports of masters that an address has."""
    _, scheme, said = (address or "").partition("spark://")
    found = []
    for each in said.split(",") if scheme else ():
        host, _, port = each.rpartition(":")
        if not host or not port.isdecimal():
            raise UsageError(f"The address {quoted(address)} must be spark://HOST:PORT")
        found.append((host.strip("[]"), int(port)))
    return found


def _spark_errors() -> tuple[type[Exception], ...]:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    return Py4JError, PySparkException


def _said(error: Exception) -> str:
    """Return what Spark says of an error, without the calls that led to it.

    Of an exception of Python, which it gives with its traceback, that is the last line.
    """
    from py4j.protocol import Py4JJavaError

    if isinstance(error, Py4JJavaError):
        lines = str(error.java_exception.getMessage()).splitlines()
    else:
        lines = str(error).splitlines()
    calls = [i for i, line in enumerate(lines) if line.startswith("\tat ")]
    before = [line for line in lines[: calls[0] if calls else None] if line.strip()]
    before = before or [type(error).__name__]
    return " ".join(dict.fromkeys((before[0], before[-1])))
