"""How the embedding of a text comes from those of its tokens."""

from __future__ import annotations

import warnings

from pyarrowquant._core.quoting import first_few, quoted
from pyarrowquant.errors import users_level
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.reading.config import read_config
from pyarrowquant.reading.gguf import import_gguf
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.strict_json import parse_any

_MODULES = "modules.json"
_MODES = {
    "pooling_mode_mean_tokens": "MEAN",
    "pooling_mode_cls_token": "CLS",
    "pooling_mode_lasttoken": "LAST",
}
# What llama.cpp does, or what users ask of it with the embeddings.
_KNOWN = ("Transformer", "Pooling", "Normalize")
_NAMES = {"mean": "MEAN", "cls": "CLS", "lasttoken": "LAST"}  # newer files say one of these


def describe_pooling(folder: Location, metadata: Metadata, usual: str | None) -> None:
    """Add how it is pooled, where the folder is one of sentence-transformers, or what is usual."""
    path = _pooling_of(folder)
    mode = usual if path is None else _mode_in(path)
    if mode is not None:
        metadata.add.add_pooling_type(import_gguf("Writing").PoolingType[mode])


def _mode_in(path: Location) -> str:
    said = read_config(path)
    modes = [name for key, name in _MODES.items() if said.get(key) is True]
    if len(modes) > 1:
        raise ValueError(
            f"'{path}' joins the embeddings of {len(modes)} ways of pooling, and llama.cpp has "
            "one. Take another format than GGUF"
        )
    mode = next(iter(modes), None) or _NAMES.get(str(said.get("pooling_mode")))
    if mode is None:
        raise ValueError(f"'{path}' says none of {', '.join(_MODES)}, which llama.cpp knows")
    return mode


def _pooling_of(folder: Location) -> Location | None:
    modules = folder.within(_MODULES)
    if not modules.exists():
        return None
    with modules.open() as file:
        data = file.buffer(0, file.size).to_pybytes()
    try:
        found = parse_any(data)
        paths = [each["path"] for each in found if str(each["type"]).endswith("Pooling")]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"'{modules}' is no list of modules: {quoted(str(error))}") from None
    others = [str(each["type"]) for each in found if not str(each["type"]).endswith(_KNOWN)]
    if others:
        warnings.warn(
            f"'{modules}': llama.cpp does without {first_few(others)}, so that its embeddings of "
            "texts are those before them",
            UserWarning,
            stacklevel=users_level(),
        )
    if not paths:
        return None
    found_in = folder.within(f"{paths[0]}/config.json")
    if not found_in.exists():
        raise FileNotFoundError(
            f"'{found_in}' is missing, and '{modules}' names it: without it, nothing says how "
            "embeddings are pooled. Download the folder anew"
        )
    return found_in
