"""The Go library: loaded at the first call, and the one place that calls it."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pyarrowquant._core.underflow import Underflow
from pyarrowquant.errors import InternalError, LayerError, QuantizationError, UsageError

_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
LIBRARY = Path(__file__).parents[1] / f"_pyarrowquant{_SUFFIX}"

# How long one call into Go may keep a signal such as Ctrl-C waiting.
_WAIT_MILLISECONDS = 20

_load_lock = threading.Lock()
_library: ctypes.CDLL | None = None
_loaded_in: int | None = None

Told = Callable[[str | None, int, int], None]


class _ArrowArrayStream(ctypes.Structure):
    """The C stream struct; only its address and its size matter here."""

    _fields_ = [
        ("get_schema", ctypes.c_void_p),
        ("get_next", ctypes.c_void_p),
        ("get_last_error", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private_data", ctypes.c_void_p),
    ]


class _Outcome(ctypes.Structure):
    """A job, or with job 0 its result; skipped and underflows are texts to free."""

    _fields_ = [
        ("job", ctypes.c_size_t),
        ("result", _ArrowArrayStream),
        ("skipped", ctypes.c_void_p),
        ("underflows", ctypes.c_void_p),
    ]


@dataclass(frozen=True)
class Result:
    """What a job gives.

    Attributes
    ----------
    table : pyarrow.Table
    skipped : list of LayerError
        The layers left out.
    underflows : list of Underflow
    """

    table: pa.Table
    skipped: list[LayerError]
    underflows: list[Underflow]


class _Layer(ctypes.Structure):
    """C's struct paq_layer."""

    _fields_ = [
        ("rows", ctypes.c_int64),
        ("groups", ctypes.c_int64),
        ("row_bytes", ctypes.c_int64),
        ("bit_width", ctypes.c_int64),
        ("codes", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("zero_points", ctypes.c_void_p),
        ("super_groups", ctypes.c_int64),
        ("super_scales", ctypes.c_void_p),
        ("super_minimums", ctypes.c_void_p),
    ]


def _signatures(library: ctypes.CDLL) -> None:
    text = ctypes.c_char_p
    report = ctypes.c_void_p  # a text to free, or NULL
    job = ctypes.c_size_t
    address = ctypes.c_void_p
    outcome = ctypes.POINTER(_Outcome)
    signatures: dict[str, list[Any]] = {
        "paq_quantize": [address, text, ctypes.c_int, outcome],
        "paq_dequantize": [address, text, ctypes.c_int, outcome],
        "paq_compare": [address, address, text, outcome],
        "paq_validate": [address, text],
        "paq_allocate": [text, ctypes.POINTER(ctypes.c_void_p)],
        "paq_lay_out": [ctypes.POINTER(_Layer), text, address, ctypes.c_int64],
        "paq_job_wait": [
            job,
            ctypes.c_int64,
            ctypes.POINTER(ctypes.c_int),
            ctypes.POINTER(ctypes.c_void_p),
        ],
        "paq_job_result": [job, outcome],
        "paq_job_free": [job],
        "paq_allocated_bytes": [ctypes.POINTER(ctypes.c_int64)],
        "paq_release_memory": [],
    }
    for name, argument_types in signatures.items():
        function = getattr(library, name)
        function.argtypes = argument_types
        function.restype = report
    library.paq_free.argtypes = [ctypes.c_void_p]
    library.paq_free.restype = None


def _opened() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        raise OSError(
            f"'{LIBRARY}' cannot be loaded: it is missing, damaged or for another system than "
            f"{sys.platform} on {platform.machine()}. Install the package anew: pip install "
            f"--force-reinstall --no-deps pyarrowquant, or in its sources pip install . ({error})"
        ) from error


def _load() -> ctypes.CDLL:
    global _library, _loaded_in
    with _load_lock:
        if _library is None:
            library = _opened()
            _signatures(library)
            _library, _loaded_in = library, os.getpid()
        elif _loaded_in != os.getpid():
            raise RuntimeError(
                "pyarrowquant was used in this process's parent before the fork, and Go does not "
                "survive a fork. Use the 'spawn' start method "
                "(multiprocessing.get_context('spawn')), or call pyarrowquant only after the fork: "
                "on Spark in what mapInArrow calls, and not in spark.python.daemon.module"
            )
        return _library


def _after_fork() -> None:
    global _load_lock
    _load_lock = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _take_text(library: ctypes.CDLL, address: int | None) -> str | None:
    """Copy a text that Go gave, and free it."""
    if not address:
        return None
    try:
        return ctypes.string_at(address).decode()
    finally:
        library.paq_free(address)


def _check(library: ctypes.CDLL, address: int | None) -> None:
    text = _take_text(library, address)
    if text is not None:
        raise _exception(json.loads(text))


def _exception(report: dict[str, Any]) -> Exception:
    """Make the exception for a report; its status chooses the class."""
    message = report["message"]
    if report["status"] == "layers":
        return QuantizationError(message, [LayerError(**e) for e in report["errors"]])
    classes: dict[str, type[Exception]] = {
        "argument": UsageError,
        "schema": ValueError,
        "source": ValueError,
        "memory": MemoryError,
        "unreadable": OSError,
    }
    return classes.get(report["status"], InternalError)(message)


# A prototype of our own, since attributes of ctypes.pythonapi are everybody's.
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _pointer(capsule: object, name: bytes) -> int:
    """Address in a PyCapsule of the Arrow PyCapsule interface."""
    address: int = _capsule_pointer(capsule, name)
    return address


def allocated_bytes() -> int:
    """Bytes of results that Go has allocated and that are still alive."""
    library = _load()
    count = ctypes.c_int64()
    _check(library, library.paq_allocated_bytes(ctypes.byref(count)))
    return count.value


def release_memory() -> None:
    """Give memory that is kept for the next call back to the system.

    The memory of large results that were dropped is kept for the next results, since pages
    that the system has to clear cost as much as the work itself. No more is kept than the
    largest recent call took, for 10 seconds after the last result was dropped, and on Linux the
    system may take it back at any time when memory is short.

    Examples
    --------
    >>> import pyarrowquant
    >>> pyarrowquant.release_memory()
    """
    library = _load()
    _check(library, library.paq_release_memory())


def encode(options: dict[str, Any]) -> bytes:
    """Return options as Go reads them."""
    return json.dumps(options).encode()


def validate(schema: pa.Schema, options: bytes) -> None:
    """Check encoded options, and the schema of a table of weights."""
    library = _load()
    capsule = schema.__arrow_c_schema__()
    _check(library, library.paq_validate(_pointer(capsule, b"arrow_schema"), options))


def allocate(layers: list[list[dict[str, float]]], budget: int) -> list[int]:
    """Choose one of each layer's costs: the least error that a budget of bits allows."""
    library = _load()
    choices = ctypes.c_void_p()
    problem = encode({"layers": layers, "budget": budget})
    _check(library, library.paq_allocate(problem, ctypes.byref(choices)))
    chosen: list[int] = json.loads(_take_text(library, choices.value) or "[]")
    return chosen


def lay_out(
    bit_width: int,
    codes: npt.NDArray[np.uint8],
    scales: npt.NDArray[np.float32],
    zero_points: npt.NDArray[np.float32],
    super_scales: npt.NDArray[np.float32] | None,
    super_minimums: npt.NDArray[np.float32] | None,
    options: bytes,
    out: npt.NDArray[np.uint8],
) -> None:
    """Write a part of a layer, whose arrays are contiguous matrices, into `out`."""
    library = _load()
    rows, row_bytes = codes.shape
    layer = _Layer(
        rows,
        scales.shape[1],
        row_bytes,
        bit_width,
        codes.ctypes.data,
        scales.ctypes.data,
        zero_points.ctypes.data,
        0 if super_scales is None else super_scales.shape[1],
        None if super_scales is None else super_scales.ctypes.data,
        None if super_minimums is None else super_minimums.ctypes.data,
    )
    _check(library, library.paq_lay_out(ctypes.byref(layer), options, out.ctypes.data, out.size))


def quantize(table: pa.Table, options: bytes, told: Told | None) -> Result:
    """Quantize a table.

    Parameters
    ----------
    table : pyarrow.Table
    options : bytes
        The fields of Go's quant.Options, encoded.
    told : callable or None
        Called with the name of a layer that has finished, or None for a part of one, bytes done
        and bytes in all.
    """
    library = _load()
    arguments = options, told is not None
    return _run(library, library.paq_quantize, [table], arguments, told)


def dequantize(table: pa.Table, options: bytes) -> pa.Table:
    """Decode a result; options are the fields of Go's quant.DequantizeOptions, encoded."""
    library = _load()
    return _run(library, library.paq_dequantize, [table], (options, False)).table


def compare(original: pa.Table, result: pa.Table, options: bytes) -> pa.Table:
    """Find the errors of a result; options are the fields of Go's quant.CompareOptions, encoded."""
    library = _load()
    return _run(library, library.paq_compare, [original, result], (options,)).table


def _run(
    library: ctypes.CDLL,
    start: Callable[..., int | None],
    tables: Sequence[pa.Table],
    arguments: tuple[object, ...],
    told: Told | None = None,
) -> Result:
    """Run a job with the GIL free, and take its result. An exception ends the job."""
    outcome = _Outcome()
    # To be kept until Go has moved the streams.
    capsules = [table.__arrow_c_stream__() for table in tables]
    streams = [_pointer(capsule, b"arrow_array_stream") for capsule in capsules]
    try:
        _check(library, start(*streams, *arguments, ctypes.byref(outcome)))
        if outcome.job:
            while not _wait(library, outcome.job, told):
                pass
            _check(library, library.paq_job_result(outcome.job, ctypes.byref(outcome)))
        address = ctypes.addressof(outcome) + _Outcome.result.offset
        table = pa.RecordBatchReader._import_from_c(address).read_all()
        return Result(
            table,
            [LayerError(**each) for each in _listed(outcome.skipped)],
            [Underflow(**each) for each in _listed(outcome.underflows)],
        )
    finally:  # an interrupt may have come before start had returned, or PyArrow took the stream
        if outcome.result.release:
            release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(outcome.result.release)
            release(ctypes.addressof(outcome) + _Outcome.result.offset)
        for text in (outcome.skipped, outcome.underflows):
            if text:
                library.paq_free(text)
        if outcome.job:
            _check(library, library.paq_job_free(outcome.job))


def _listed(address: int | None) -> list[dict[str, Any]]:
    """Parse a list that Go gave, which stays; none is an empty one."""
    found: list[dict[str, Any]] = json.loads(ctypes.string_at(address)) if address else []
    return found


def _wait(library: ctypes.CDLL, job: int, told: Told | None) -> bool:
    finished = ctypes.c_int()
    events = ctypes.c_void_p()
    _check(
        library,
        library.paq_job_wait(job, _WAIT_MILLISECONDS, ctypes.byref(finished), ctypes.byref(events)),
    )
    text = _take_text(library, events.value)
    if text is not None and told is not None:
        for layer_name, done, total in json.loads(text):
            told(layer_name, done, total)
    return bool(finished.value)
