"""Recipes for a budget of bits: every candidate measured on every layer, the best choice of all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pyarrowquant import _arguments, _lib
from pyarrowquant._arguments import Progress
from pyarrowquant._plan import SKIP, layers, measure
from pyarrowquant._progress import Reporter
from pyarrowquant._source import INPUT_COLUMNS, Source, weights_bytes
from pyarrowquant.errors import QuantizationError
from pyarrowquant.expected import Expected
from pyarrowquant.rule import BIT_WIDTHS, SETTINGS, check_fields, check_known, one_of

OBJECTIVES = ("squared_error", "relative_error")

# As exports store them: a float zero-point takes as much as a scale, an integer one the bits of a
# code, a symmetric one nothing.
_SCALE_BITS = {"float32": 32, "float16": 16, "bfloat16": 16}


def stored_bits(shape: Sequence[int], settings: Mapping[str, Any]) -> int:
    """Return the bits that a layer takes: codes, scales and zero-points.

    Rows of codes are padded to bytes. Scales count 32 bits, or 16 with a scale_dtype of 16;
    zero-points the same if they are float, bit_width if integer, nothing if symmetric.
    """
    elements = math.prod(shape)
    if elements == 0:
        return 0
    rows = shape[0] if len(shape) > 1 else 1
    columns = elements // rows
    width, group_size = settings["bit_width"], settings["group_size"]
    groups = 1 if group_size == -1 else -(-columns // group_size)
    scale = _SCALE_BITS[settings["scale_dtype"]]
    zero_point = {"integer": width, "float": scale, "symmetric": 0}[settings["zero_point"]]
    row_bits: int = -(-columns * width // 8) * 8 + groups * (scale + zero_point)
    return rows * row_bits


def candidate_settings(candidates: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Return whole settings; by default every width, by the search for the least error."""
    usual = {field: _arguments.quantize_options()[field] for field in SETTINGS}
    usual["method"] = "mse"
    if candidates is None:
        return [{**usual, "bit_width": width} for width in BIT_WIDTHS]
    complete = []
    for number, said in enumerate(candidates, 1):
        where = f"Candidate {number}"
        check_known(where, said, SETTINGS)
        complete.append({**usual, **check_fields(where, said)})
    if not complete:
        raise ValueError("candidates must not be empty")
    return complete


@dataclass
class _Layer:
    name: str
    shape: list[int]
    row: int
    weight: float
    bits: list[int]
    squared_errors: list[float]
    norm: float  # sum of squared weights


def fit(
    table: Any,
    bits_per_weight: float,
    candidates: Sequence[Mapping[str, Any]] | None,
    recipe: Any,
    objective: str,
    weight_column: str | None,
    threads: int | None,
    progress: Progress,
) -> tuple[list[tuple[list[str], dict[str, Any]]], Expected]:
    """Return the layers' names with the settings chosen for them; see `Recipe.fit`."""
    one_of("objective", objective, OBJECTIVES)
    choices = candidate_settings(candidates)
    columns = INPUT_COLUMNS if weight_column is None else INPUT_COLUMNS | {weight_column}
    source = Source(table, columns)
    data = source.read_all()
    options = {**_arguments.quantize_options(threads=threads), "type_names": source.type_names}
    _lib.validate(source.schema, _lib.encode({**options, "choices": choices}))
    found = _wanted(data, recipe, weight_column)
    with Reporter(progress, weights_bytes(data) * len(choices)) as reporter:
        for position in range(len(choices)):
            if reporter is not None:
                reporter.start(weights_bytes(data))
            _measure(data, options, choices, position, found, reporter)
    picked = _allocate(found, bits_per_weight, objective)
    rules = [
        ([layer.name for layer, k in zip(found, picked, strict=True) if k == position], settings)
        for position, settings in enumerate(choices)
    ]
    return [rule for rule in rules if rule[0]], _expected(found, picked)


def _wanted(data: pa.Table, recipe: Any, weight_column: str | None) -> list[_Layer]:
    """Return the layers that a recipe does not skip."""
    found: list[_Layer] = []
    names: set[str] = set()
    weights = _weights(data, weight_column)
    for row, (name, shape) in enumerate(layers(data)):
        if name is not None and recipe is not None and recipe.settings_of(name, shape) is None:
            continue
        if name in names:
            raise ValueError(f"Layer '{name}' is there twice; a recipe goes by names")
        names.add(name or "")
        found.append(_Layer(name or "", shape, row, weights[row], [], [], 0.0))
    if not found:
        raise ValueError("There is no layer to fit: the table is empty, or the recipe skips all")
    return found


def _weights(data: pa.Table, column: str | None) -> list[float]:
    if column is None:
        return [1.0] * data.num_rows
    if column not in data.column_names:
        raise ValueError(f"Missing column '{column}', which weight_column names")
    weights = data[column].to_pylist()
    for row, weight in enumerate(weights):
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not 0 <= weight < math.inf:
            raise ValueError(
                f"Column '{column}' has {weight!r} in row {row}. Weights of layers must be "
                "finite and not negative"
            )
    return [float(weight) for weight in weights]


def _measure(
    data: pa.Table,
    options: dict[str, Any],
    choices: list[dict[str, Any]],
    position: int,
    found: list[_Layer],
    reporter: Reporter | None,
) -> None:
    """Add what one candidate takes and leaves to every layer."""
    rows = [SKIP] * data.num_rows
    for layer in found:
        rows[layer.row] = position
    wanted = [layer.row for layer in found]
    measured, failed = measure(data, options, choices, rows, wanted, reporter)
    if failed:
        message = "\n".join(error.message for error in failed)
        raise QuantizationError(message, failed)
    for layer in found:
        errors = measured[layer.row]
        squared_error = errors["mse"] * math.prod(layer.shape)
        layer.bits.append(stored_bits(layer.shape, choices[position]))
        layer.squared_errors.append(squared_error)
        if errors["relative_error"] > 0:
            layer.norm = squared_error / errors["relative_error"] ** 2


def _allocate(found: list[_Layer], bits_per_weight: float, objective: str) -> list[int]:
    elements = sum(math.prod(layer.shape) for layer in found)
    least = sum(min(layer.bits) for layer in found)
    if not least <= bits_per_weight * elements < math.inf:
        raise ValueError(
            f"Invalid bits_per_weight: {bits_per_weight}. The smallest candidates take "
            f"{least / max(elements, 1):.4f}"
        )
    costs = []
    for layer in found:
        weight = layer.weight
        if objective == "relative_error":
            weight = layer.weight / layer.norm if layer.norm else 0.0
        pairs = zip(layer.bits, layer.squared_errors, strict=True)
        costs.append([{"bits": bits, "error": weight * error} for bits, error in pairs])
    return _lib.allocate(costs, math.floor(bits_per_weight * elements))


def _expected(found: list[_Layer], picked: list[int]) -> Expected:
    pairs = list(zip(found, picked, strict=True))
    elements = sum(math.prod(layer.shape) for layer in found)
    squared_error = math.fsum(layer.squared_errors[k] for layer, k in pairs)
    norm = math.fsum(layer.norm for layer in found)
    return Expected(
        bits_per_weight=sum(layer.bits[k] for layer, k in pairs) / max(elements, 1),
        squared_error=squared_error,
        relative_error=math.sqrt(squared_error / norm) if norm else 0.0,
    )
