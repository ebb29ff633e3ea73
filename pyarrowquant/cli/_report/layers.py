"""What the report says of each layer, read batch by batch or layer by layer."""

from __future__ import annotations

import heapq
import json
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pyarrowquant._core.decoding import decode_matrix, unpacked
from pyarrowquant._core.encodings import ENCODING_NAMES, INTEGER
from pyarrowquant._core.group_sizes import WHOLE_ROW, GroupSize, in_row
from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.results import Packed
from pyarrowquant.cli._originals import Originals, as_llama_cpp
from pyarrowquant.conversion.result_files import METRICS, check_rows, naming, open_results, watched
from pyarrowquant.formats._layers import Results
from pyarrowquant.reading.models import open_source
from pyarrowquant.reading.tensors import CodedTensor


@dataclass(frozen=True)
class Layer:
    """A quantized layer, without its codes. `norm` is that of the original weights.

    Attributes
    ----------
    coding : str or None
        What a model has it as, such as "Q4_K", or the encoding of a row of results; None for "int".
    group_size : int, str or None
        As of `Layout`; None where the coding says it.
    """

    layer_name: str
    shape: tuple[int, ...]
    bit_width: int
    group_size: GroupSize | None
    coding: str | None
    weights: int
    code_bytes: int
    scale_bytes: int
    zero_point_bytes: int
    mse: float
    relative_error: float
    cosine: float
    max_abs_error: float
    norm: float

    @property
    def bytes(self) -> int:
        """Codes, and all that they are decoded with."""
        return self.code_bytes + self.scale_bytes + self.zero_point_bytes

    @property
    def coded_in(self) -> str:
        bits = f"{self.bit_width} bits"
        return bits if self.coding is None else f"{bits} of {self.coding}"

    @property
    def group_or_code(self) -> str:
        group = "row" if self.group_size == WHOLE_ROW else self.group_size or ""
        return f"{group} {self.coding or ''}".strip()

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes / max(self.weights, 1)

    @property
    def squared_error(self) -> float:
        return self.mse * self.weights

    @property
    def signal_to_noise_db(self) -> float:
        if self.relative_error == 0:
            return math.inf
        return -20 * math.log10(self.relative_error)  # -inf where it is infinite


@dataclass(frozen=True)
class Read:
    """What a result has.

    Attributes
    ----------
    layers : list of Layer
        In the order of the file.
    worst : list of (Layer, Packed)
        Those of largest error with their codes, the worst first.
    settings : dict
        What it says of how it was made.
    left_out : list of str
        Layers of the original that it lacks.
    """

    layers: list[Layer]
    worst: list[tuple[Layer, Packed]]
    settings: dict[str, Any]
    left_out: list[str]


def read_layers(path: Path, originals: Originals | None, threads: int | None, worst: int) -> Read:
    """Read a file of results; errors are its own, or those against the original weights.

    Parameters
    ----------
    path : Path
        A file of results.
    originals : Originals or None
        The original weights; None for the errors that the file has.
    threads : int or None
        Workers; None for the CPUs of this process.
    worst : int
        Of how many layers to keep the codes.

    Raises
    ------
    ValueError
        There are no errors of the layers, a row is corrupt, or the original lacks a layer.
    """
    reader = open_results(path)
    names = reader.schema.names
    if originals is None and any(names.count(metric) != 1 for metric in METRICS):
        raise ValueError(
            f"'{path}' has no errors of its layers (columns {', '.join(METRICS)}). Give the "
            "original weights with --original"
        )
    check_rows(path)
    raw: deque[pa.RecordBatch] = deque()  # with the errors, which are read once rows are checked
    noted = watched(reader, raw.append)
    layers: list[Layer] = []
    kept: list[tuple[float, int, Packed]] = []
    with naming(path):
        for _, rows in Results(noted, "A report", lambda _: None, "", ENCODING_NAMES).batches():
            read = raw.pop()  # those before it were empty
            raw.clear()
            for packed, errors in zip(rows, _errors(read, originals, threads), strict=True):
                layer = _layer(packed, errors)
                layers.append(layer)
                if layer.weights:
                    heapq.heappush(kept, (layer.relative_error, 1 - len(layers), packed))
                if len(kept) > worst:
                    heapq.heappop(kept)
    found = [(layers[-row], packed) for _, row, packed in sorted(kept, key=lambda one: one[:2])]
    return Read(layers, found[::-1], _settings(reader.schema), _left_out(originals, layers))


def read_model(path: Path, original: str | None, threads: int | None, llama_cpp: bool) -> Read:
    """Measure the quantized layers of a model against the original weights.

    Parameters
    ----------
    path : Path
    original : str or None
        What has the original weights.
    threads : int or None
        Workers; None for the CPUs of this process.
    llama_cpp : bool
        Whether layers are to have llama.cpp's names and rows, as those beside which they stand.

    Raises
    ------
    ValueError
        There is no original, the original lacks a layer, or none is quantized.
    """
    model = open_source(path)
    if not any(isinstance(tensor, CodedTensor) for tensor in model.tensors or ()):
        raise ValueError(f"'{path}' has nothing that is quantized")
    if original is None:
        raise ValueError(
            f"'{path}' has no errors of its layers, as only tables of results do. Give the "
            "original weights with --original"
        )
    originals = Originals(original, as_llama_cpp(model) if llama_cpp else model)
    model = originals.result or model
    coded = {t.name: t for t in model.tensors or () if isinstance(t, CodedTensor)}
    layers = []
    with naming(path):
        for name, read in model.layer_readers():
            if name in coded:
                (errors,) = originals.errors(read(), threads)
                layers.append(_coded_layer(coded[name], errors))
    return Read(layers, [], {}, _left_out(originals, layers))


def _left_out(originals: Originals | None, layers: Iterable[Layer]) -> list[str]:
    return [] if originals is None else originals.left_out(one.layer_name for one in layers)


def _coded_layer(tensor: CodedTensor, errors: dict[str, Any]) -> Layer:
    weights = math.prod(tensor.shape)
    code_bytes = min(-(-weights * tensor.bits // 8), tensor.stored_bytes)
    return Layer(
        layer_name=tensor.name,
        shape=tensor.shape,
        bit_width=tensor.bits,
        group_size=None,
        coding=tensor.coding,
        weights=weights,
        code_bytes=code_bytes,
        scale_bytes=tensor.stored_bytes - code_bytes,
        zero_point_bytes=0,
        norm=errors["norm"],
        **{metric: errors[metric] for metric in METRICS},
    )


def _errors(
    batch: pa.RecordBatch, originals: Originals | None, threads: int | None
) -> Iterable[dict[str, Any]]:
    if originals is None:
        rows: list[dict[str, Any]] = batch.select(METRICS).to_pylist()
        return rows
    return originals.errors(batch, threads)


def _layer(packed: Packed, errors: dict[str, Any]) -> Layer:
    for metric in METRICS:
        if not _possible(metric, errors[metric]):
            raise ValueError(
                f"Layer {quoted(packed.name)}: {metric} is {errors[metric]!r}. Give the original "
                "weights with --original"
            )
    weights = math.prod(packed.shape)
    norm = errors.get("norm")
    if norm is None and errors["relative_error"] > 0:
        norm = math.sqrt(errors["mse"] * weights) / errors["relative_error"]
    elif norm is None:  # exact: the weights are what it decodes to
        norm = math.sqrt(sum(float(np.square(d, dtype=np.float64).sum()) for d in decoded(packed)))
    return Layer(
        layer_name=packed.name,
        shape=packed.shape,
        bit_width=packed.bits,
        group_size=packed.group_size,
        coding=None if packed.encoding == INTEGER else packed.encoding,
        weights=weights,
        code_bytes=packed.codes.size,
        scale_bytes=packed.scale_bytes,
        zero_point_bytes=packed.zero_point_bytes,
        norm=norm,
        **{metric: errors[metric] for metric in METRICS},
    )


def _possible(metric: str, value: object) -> bool:
    """Whether a file of others may say this."""
    if not isinstance(value, float) or math.isnan(value):
        return False
    if metric == "cosine":
        return abs(value) < 1.000001
    return value >= 0 and (value < math.inf or metric == "relative_error")


def total_relative_error(layers: Iterable[Layer]) -> float:
    """||w - w'|| / ||w|| of all these weights together."""
    layers = list(layers)
    norm = math.hypot(*(layer.norm for layer in layers))
    error = math.sqrt(math.fsum(layer.squared_error for layer in layers))
    if norm == 0:
        return math.inf if error else 0.0
    return error / norm


def _settings(schema: pa.Schema) -> dict[str, Any]:
    """Read what the results say of how they were made; files of others may say anything."""
    said = (schema.metadata or {}).get(b"pyarrowquant", b"{}")
    try:
        settings = json.loads(said)
    except (ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}


def decoded(packed: Packed) -> Iterator[Any]:
    """Decode some rows of a layer at a time."""
    for rows in pieces(packed):
        if packed.encoding == INTEGER:
            yield decode_matrix(
                packed.name,
                packed.codes[rows],
                packed.scales[rows],
                packed.zero_points[rows],
                packed.columns,
                packed.bits,
                in_row(packed.group_size),
            )
        else:
            of_columns = np.arange(packed.columns) // packed.group
            levels = levels_of(packed)[codes(packed, rows)]
            zero_points, scales = packed.zero_points[rows], packed.scales[rows]
            yield (levels - zero_points[:, of_columns]) * scales[:, of_columns]


def levels_of(packed: Packed) -> Any:
    """Return what codes stand for."""
    levels = packed.decoding.levels
    return levels if levels.size else np.arange(2**packed.bits, dtype=np.float32)


def codes(packed: Packed, rows: slice) -> Any:
    """Unpack the codes of some rows."""
    return unpacked(packed.codes[rows], packed.columns, packed.bits).astype(np.uint8)


def pieces(packed: Packed, weights: int = 1 << 20) -> Iterator[slice]:
    """Rows of about so many weights at a time."""
    step = max(1, weights // max(packed.columns, 1))
    for start in range(0, len(packed.codes), step):
        yield slice(start, start + step)
