"""Perplexity of a model, and how far its predictions are from those of another."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from pyarrowquant._core import arguments
from pyarrowquant.evaluation.counting import DONE, Evaluation
from pyarrowquant.evaluation.llama_cpp import not_installed
from pyarrowquant.evaluation.process import run_apart
from pyarrowquant.evaluation.request import Request
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.location import Location, locate, open_file
from pyarrowquant.reading.text import read_text

_Path = str | os.PathLike[str]
_LEAST_CONTEXT = 8
_MAGIC = b"GGUF"


def evaluate(
    result: _Path,
    text: _Path,
    *,
    against: _Path | None = None,
    context: int | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Evaluation:
    """Let a model predict a text, and the one it was made from.

    GGUF files are run by llama.cpp, folders of Hugging Face by transformers.

    The text is cut into windows as `llama-perplexity` does it: each begins with the token that the
    model wants at the beginning, if any; tokens of its second half are predicted; what is left at
    the end is not used. Needs the extra ``pyarrowquant[evaluate]``, for folders
    ``pyarrowquant[calibrate]``. llama.cpp runs in a process of its own, which it ends by itself on
    some damaged files. transformers computes with float32, and with weights that it decodes; of
    compressed-tensors, inputs of layers are not rounded.

    Memory holds the models, those of folders as float32, the tokens, and the logits of 128 tokens,
    of folders those of half a window.

    Parameters
    ----------
    result : str or path
        A GGUF model, or the folder of one, with its tokenizer.
    text : str or path
        A file of UTF-8 text: what the model is for, and thousands of tokens of it.
    against : str or path, optional
        The model to compare with, of the same kind and vocabulary, as of float16.
    context : int, optional
        Tokens of a window; default 512, or what the models take if that is less.
    threads : int, optional
        Default: the CPUs of this process.
    progress : callable, optional
        Gets how many tokens are done, and of how many, after each part of a window.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        What runs models does not run one, or llama.cpp ends by it, the vocabularies differ, the
        text is too short or no UTF-8, or an argument is out of bounds.
    FileNotFoundError
    ImportError
        The extra is not installed, or llama.cpp cannot be loaded.
    """
    places = [_place(path) for path in (result, against) if path is not None]
    if context is not None:
        context = arguments.at_least(_LEAST_CONTEXT, "context", context)
    threads = arguments.at_least(1, "threads", arguments.thread_count(threads))
    arguments.check_callback("progress", "two numbers of tokens", progress)
    words = _read(text)
    request = Request([place.path for place in places], words, str(text), context, threads)
    if all(map(_is_folder, places)):
        return _by_transformers(request, progress)
    for place in places:
        _check_gguf(place)
    if find_spec("llama_cpp") is None:
        raise not_installed()
    return run_apart(request, progress)


def _place(path: _Path) -> Location:
    location = locate(path, None)
    if not location.is_local:
        raise ValueError(f"{location}: models of this machine are run only; download it")
    return location


def _is_folder(place: Location) -> bool:
    if place.is_file():
        return False
    if not place.within(CONFIG).exists():
        raise ValueError(
            f"{place} is a folder without {CONFIG}; give a GGUF file, or a folder of a model"
        )
    return True


def _by_transformers(request: Request, progress: Callable[[int, int], object] | None) -> Evaluation:
    try:
        from pyarrowquant.evaluation.folders import predict_by_transformers
    except ImportError as error:
        raise ImportError(
            f"Evaluating folders runs them with torch and transformers ({error}): "
            "pip install 'pyarrowquant[calibrate]'"
        ) from error

    def tell(what: str, value: Any) -> None:
        if what == DONE and progress is not None:
            progress(*value)

    return predict_by_transformers(request, tell)


def _check_gguf(place: Location) -> None:
    """Refuse what is no GGUF file, as far as its first bytes tell."""
    if not place.is_file():
        raise ValueError(f"{place} is a folder, and the other model is none; give two of a kind")
    with open_file(place) as file:
        start = file.buffer(0, min(len(_MAGIC), file.size)).to_pybytes()
    if start != _MAGIC:
        raise ValueError(
            f"{place}: no GGUF file, and no folder of a model. Only such are evaluated; "
            "`pyarrowquant quantize FOLDER x.gguf` makes a GGUF file of a Hugging Face folder"
        )


def _read(path: _Path) -> bytes:
    data = read_text(path)
    if len(data) >= 2**31:
        raise ValueError(
            f"{path}: the text has {len(data)} bytes, llama.cpp takes less than {2**31}. Give a "
            "part of it"
        )
    return data
