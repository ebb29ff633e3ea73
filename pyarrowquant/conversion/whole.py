"""Whether a source is a whole model, as files for an engine want it."""

from __future__ import annotations

import json
import warnings

from pyarrowquant._core.quoting import quoted
from pyarrowquant.errors import UsageError, users_level
from pyarrowquant.formats._format import Format
from pyarrowquant.reading.config import CONFIG, read_config
from pyarrowquant.reading.gguf import GgufModel
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.safetensors import INDEX_SUFFIX, files_by_name

_ADAPTER, _ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"


def check_whole(model: Model, target: Format) -> None:
    """Refuse a part of a model where the format is for engines; else warn of it.

    Raises
    ------
    ValueError
        The source is one of several files, or an adapter, which engines do not run alone.
    """
    name, count = model.location.name, files_by_name(model.location.name)
    if count > len(model.files):
        way_out = f"give its folder, '{model.location.parent}'"
        if isinstance(model, GgufModel):  # else it says itself that it is a part
            way_out = "write it as one file, as the program that split it can"
        what = (
            f"'{model.location}' is one of {count} files of a model. For the whole model {way_out}"
        )
    elif any(file.name == _ADAPTER for file in model.files):
        what = _of_adapter(model, model.location.parent if name == _ADAPTER else model.location)
    else:
        return
    if target.is_of_models:
        raise ValueError(f"{what}. A part alone goes to parquet or arrow")
    warnings.warn(what, UserWarning, stacklevel=users_level())


def check_loads(model: Model, target: Format, tensors_only: bool) -> None:
    """Refuse a model of which only tensors would be written, unless that is wanted.

    Parameters
    ----------
    model : Model
        With the names and rows of the format.
    target : Format
    tensors_only : bool

    Raises
    ------
    UsageError
        An engine would not load what is written of the model as one.
    """
    problem = target.loading_problem(model)
    if tensors_only or problem is None or not _is_meant_whole(model):
        return
    raise UsageError(
        f"'{model.location}' would become tensors by themselves, which no engine loads as a model: "
        f"{problem}, or use tensors_only=True if only tensors are wanted"
    )


def _is_meant_whole(model: Model) -> bool:
    """Whether a source is a model, its folder or a file of that, and no file by itself."""
    if isinstance(model, GgufModel):
        return model.has_tokenizer
    if not all(file.name.endswith(".safetensors") for file in model.files):
        return False
    is_one = model.location.is_file() and not model.location.name.endswith(INDEX_SUFFIX)
    return not is_one or model.location.beside(CONFIG).exists()


def _of_adapter(model: Model, folder: Location) -> str:
    path = folder.within(_ADAPTER_CONFIG)
    base = read_config(path).get("base_model_name_or_path") if path.exists() else None
    of = f" of {quoted(base)}" if isinstance(base, str) else ""
    place = folder.path.rstrip("/")
    merged = f"{place}-merged"
    return (
        f"'{model.location}' is an adapter{of}, and not a model. Merge them in Python with peft: "
        f"AutoPeftModel.from_pretrained({json.dumps(place)}).merge_and_unload()"
        f".save_pretrained({json.dumps(merged)}), and give '{merged}'"
    )
