"""The importance of columns from a file, for the layers that a run quantizes."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from pyarrowquant._core.encodings import ENCODINGS, SUPER_SIZE
from pyarrowquant._core.group_sizes import in_row
from pyarrowquant._core.quoting import first_names, quoted
from pyarrowquant._core.settings import SettingOverrides, Settings
from pyarrowquant._core.shapes import product
from pyarrowquant.conversion.importance_names import under_names_of_layers
from pyarrowquant.conversion.viewing import Viewed
from pyarrowquant.errors import UsageError, users_level
from pyarrowquant.llama_cpp.original_names import originals_among
from pyarrowquant.reading.gguf import GgufModel
from pyarrowquant.reading.importance import Importance, open_importance
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.tensors import CodedTensor
from pyarrowquant.recipes.planned import PlannedLayer, plan_layer
from pyarrowquant.recipes.recipe import Recipe
from pyarrowquant.rescaling.view import RescaledModel

_COLUMN = "importance"
_EXPERT = re.compile(r"\.experts\.(\d+)\.")
_LISTS = pa.list_(pa.float32())
_TURNED_STACKS = ("experts.gate_up_proj", "experts.down_proj")  # of floats of gpt-oss
# llama.cpp, too, does without it where the sizes differ.
_EMBEDDINGS = "token_embd.weight"
# What llama.cpp makes of DeepSeek's kv_b_proj, a matrix for each head. Those of keys have its rows
# as columns, of which its importance says nothing.
_TURNED = re.compile(r"blk\.\d+\.attn_k_b\.weight")
_OF_HEADS = re.compile(r"blk\.\d+\.attn_v_b\.weight")


def importance_in(
    path: str | os.PathLike[str] | None, model: Model, said: SettingOverrides
) -> Importance | None:
    """Read a file of importance, which the run must be able to use."""
    if path is None:
        return None
    method = said.get("method", "mse")
    if method != "mse":
        raise UsageError(
            f"importance= weighs the errors that method='mse' looks at: leave out method={method!r}"
        )
    if _COLUMN in model.schema.names:
        raise UsageError(
            f"'{model.location}' has a column {_COLUMN} of its own: leave out importance="
        )
    return open_importance(path)


def reader_with_importance(
    path: str | os.PathLike[str] | None, model: Model, recipe: Recipe | None
) -> pa.RecordBatchReader:
    """Give all weights of a model, with the importance that a file has of what is not skipped."""
    importance = importance_in(path, model, {})
    if importance is None:
        return model.reader()
    layers = [
        plan_layer(tensor.name, tensor.shape, Settings(method="mse"), recipe)
        for tensor in model.all_tensors
        if model.can_quantize(tensor)
    ]
    return with_importance(model.reader(), of_layers(importance, layers, model).values)


def of_layers(importance: Importance, layers: Sequence[PlannedLayer], model: Model) -> Importance:
    """Return what there is of the layers to quantize; say which have none.

    Raises
    ------
    ValueError
        There is nothing of any of them, or of another number of columns than a layer has.
    """
    wanted = [layer for layer in layers if layer.settings is not None and layer.name is not None]
    originals, known = _originals(importance, model)
    renamed, of_llama_cpp = under_names_of_layers(importance, wanted, model)
    found, lacking = {}, []
    for layer in wanted:
        name = str(layer.name)
        values = _values_of(layer, originals.get(name, ()), renamed)
        if (
            values is None
            or _is_of_rows(layer, values, model)
            or not _fits(layer, values.shape, importance)
        ):
            lacking.append(name)
        else:
            found[name] = values.reshape(-1)
    known.update(of_llama_cpp, (tensor.name for tensor in model.all_tensors))
    others = [name for name in importance.values if name not in known]
    if wanted and not found:
        count = len(importance.values)
        is_other = len(others) == count
        raise ValueError(
            f"'{importance.name}' has the importance of {count} layer{'s'[: count != 1]}, such as "
            f"{quoted(next(iter(importance.values)))}, and of none that "
            + (
                f"'{model.location}' has. It is of another model"
                if is_other
                else f"is quantized of '{model.location}'. Leave it out"
            )
        )
    if lacking:
        _warn(
            f"Without importance in '{importance.name}', so quantized as without a file: "
            f"{first_names(lacking)}"
        )
    if others:
        _warn(
            f"Not used of '{importance.name}', as '{model.location}' has no such layers: "
            f"{first_names(others)}"
        )
    return replace(importance, values=found)


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=users_level())


def _originals(
    importance: Importance, model: Model
) -> tuple[Mapping[str, Sequence[str]], set[str]]:
    """Return by which other names a file may have what layers are made of, and all such names."""
    if isinstance(model, GgufModel):
        return originals_among(importance.values, model)
    originals = {tensor.name: model.also_called(tensor) for tensor in model.all_tensors}
    return originals, set().union(*originals.values())


def _values_of(layer: PlannedLayer, originals: Sequence[str], importance: Importance) -> Any:
    """Return the importance of a layer by its name, or by those that the folder has for it.

    A stack that is made of several has those of one after the other, and an expert that is a part
    of a stack its part of that.
    """
    name = str(layer.name)
    if name in importance.values or not originals:
        return importance.values.get(name)
    if _TURNED.fullmatch(name) or any(original not in importance.values for original in originals):
        return None
    each = [importance.values[original] for original in originals]
    values = each[0] if len(each) == 1 else np.concatenate([one.reshape(-1) for one in each])
    if _OF_HEADS.fullmatch(name) and values.size == layer.shape[-1]:
        return np.tile(values, product(layer.shape[:-2]))
    expert = _EXPERT.search(name)
    if expert and len(originals) == 1 and len(layer.shape) == 2:
        matrices, rest = divmod(values.size, layer.columns)
        if rest == 0 and int(expert[1]) < matrices:
            return values.reshape(matrices, -1)[int(expert[1])]
    return values


def _is_of_rows(layer: PlannedLayer, values: Any, model: Model) -> bool:
    """Whether values are of the rows of a stack, which are the inputs in floats of gpt-oss."""
    if len(layer.shape) != 3 or values.size != layer.shape[0] * layer.shape[1]:
        return False
    if layer.shape[1] != layer.shape[2]:
        return True
    if (model.config or {}).get("model_type") != "gpt_oss":
        return False
    stack = next((each for each in model.all_tensors if each.name == layer.name), None)
    return str(layer.name).endswith(_TURNED_STACKS) and not isinstance(stack, CodedTensor)


def _fits(layer: PlannedLayer, shape: Sequence[int], importance: Importance) -> bool:
    """Whether there are as many values as a layer needs; raise where it needs others.

    Parameters
    ----------
    layer : PlannedLayer
    shape : sequence of int
        How many values there are, or how many for each of how many matrices.
    importance : Importance
    """
    matrices = product(layer.shape[:-2])
    columns = layer.shape[-1] if len(layer.shape) > 1 else layer.columns
    count = product(shape)
    if tuple(shape) in ((matrices * columns,), (matrices, columns)):
        return len(layer.shape) < 3 or _is_stack(layer, count)
    if layer.name == _EMBEDDINGS:
        return False
    stack = f"{matrices} matrices of " if matrices > 1 else ""
    values = " x ".join(map(str, shape))
    raise ValueError(
        f"'{importance.name}' has {values} values for layer {quoted(layer.name)}, which has "
        f"{stack}{columns} columns. It is of another model"
    )


def _is_stack(layer: PlannedLayer, count: int) -> bool:
    """Whether these values are taken for those of each matrix, of which none ends in a group.

    As many as the columns of a layer are taken for these.
    """
    assert layer.settings is not None
    encoding = ENCODINGS.get(layer.settings.encoding)
    has_supers = encoding is not None and encoding.factors is not None
    together = max(in_row(layer.settings.group_size), SUPER_SIZE if has_supers else 0)
    return count != layer.columns and together > 0 and layer.shape[-1] % together == 0


def weighted(
    reader: pa.RecordBatchReader, importance: Importance | None, source: Viewed
) -> pa.RecordBatchReader:
    """Give weights with the importance of their columns, where that is known."""
    if importance is None:
        return reader
    if source.rescaled is not None:
        importance = with_factors(importance, source.model, source.rescaled)
    return with_importance(reader, importance.values)


def with_factors(importance: Importance, model: Model, moved: RescaledModel) -> Importance:
    """Return the importance of columns that are divided, and so are multiplied with more.

    Parameters
    ----------
    model : Model
        Whose names the importance has.
    moved : RescaledModel
        What the model is made of.
    """
    originals = {tensor.name: model.also_called(tensor) for tensor in model.all_tensors}
    return replace(importance, values=_Multiplied(importance.values, originals, moved))


class _Multiplied(Mapping[str, Any]):
    """Values that are made when they are asked for, as factors are measured then."""

    def __init__(
        self,
        values: Mapping[str, Any],
        originals: Mapping[str, Sequence[str]],
        moved: RescaledModel,
    ) -> None:
        self._values, self._originals, self._moved = values, originals, moved

    def __getitem__(self, name: str) -> Any:
        values = self._values[name]
        originals = self._originals.get(name) or (name,)
        factors = [self._moved.column_factors(original) for original in originals]
        found = [each for each in factors if each is not None]
        if len(found) < len(factors) or _TURNED.fullmatch(name):  # whose columns stay
            return values
        joined = np.concatenate(found)
        return values * np.square(np.tile(joined, values.size // joined.size))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def with_importance(
    reader: pa.RecordBatchReader, values: Mapping[str, Any]
) -> pa.RecordBatchReader:
    """Give batches of weights with the importance of their columns."""
    schema = reader.schema.append(pa.field(_COLUMN, _LISTS))

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            names = batch["layer_name"].to_pylist()
            column = pa.array([values.get(name) for name in names], _LISTS)
            yield pa.RecordBatch.from_arrays([*batch.columns, column], schema=schema)
            del batch  # before the next one is read

    return pa.RecordBatchReader.from_batches(schema, batches())
