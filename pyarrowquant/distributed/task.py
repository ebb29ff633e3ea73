"""What the engine gave the task that this process runs."""

from __future__ import annotations

import sys


def cpus_of_task() -> int | None:
    """Return the CPUs that Spark or Ray gave this task; None outside of them.

    An engine that runs the task has been imported by its worker.
    """
    cpus = _spark_cpus()
    return _ray_cpus() if cpus is None else cpus


def _spark_cpus() -> int | None:
    module = sys.modules.get("pyspark.taskcontext")
    context = None if module is None else module.TaskContext.get()
    return None if context is None else int(context.cpus())


def _ray_cpus() -> int | None:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return None  # the driver, which has no task
    # A task may have a part of a CPU, or none.
    return max(1, int(context.get_assigned_resources().get("CPU", 1)))
