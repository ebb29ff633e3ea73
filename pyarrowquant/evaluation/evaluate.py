"""Perplexity of a model, and how far its predictions are from those of another."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec

from pyarrowquant._core import arguments
from pyarrowquant.evaluation.llama_cpp import not_installed
from pyarrowquant.evaluation.predicting import Evaluation, Request
from pyarrowquant.evaluation.process import run_apart
from pyarrowquant.reading.location import locate, open_file
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
    """Let llama.cpp predict a text with a GGUF model, and with the one it was made from.

    The text is cut into windows as `llama-perplexity` does it: each begins with the token that the
    model wants at the beginning, if any; tokens of its second half are predicted; what is left at
    the end is not used. Needs the extra ``pyarrowquant[evaluate]``. llama.cpp runs in a process of
    its own, which it ends by itself on some damaged files.

    Memory holds the models, the tokens, and the logits of 128 tokens.

    Parameters
    ----------
    result : str or path
        A GGUF model with its tokenizer.
    text : str or path
        A file of UTF-8 text: what the model is for, and thousands of tokens of it.
    against : str or path, optional
        The GGUF model to compare with, of the same vocabulary, as of float16.
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
        llama.cpp does not run a model, or ends by it, the vocabularies differ, the text is too
        short or no UTF-8, or an argument is out of bounds.
    FileNotFoundError
    ImportError
        The extra is not installed, or llama.cpp cannot be loaded.
    """
    paths = [_model_path(path) for path in (result, against) if path is not None]
    if context is not None:
        context = arguments.at_least(_LEAST_CONTEXT, "context", context)
    threads = arguments.at_least(1, "threads", arguments.thread_count(threads))
    arguments.check_callback("progress", "two numbers of tokens", progress)
    words = _read(text)
    if find_spec("llama_cpp") is None:
        raise not_installed()
    return run_apart(Request(paths, words, str(text), context, threads), progress)


def _model_path(path: _Path) -> str:
    """Return the path of a GGUF file, as far as its first bytes tell."""
    location = locate(path, None)
    if not location.is_local:
        raise ValueError(f"{location}: llama.cpp runs files of this machine only; download it")
    if not location.is_file():
        raise ValueError(f"{location} is a folder; give a GGUF file")
    with open_file(location) as file:
        start = file.buffer(0, min(len(_MAGIC), file.size)).to_pybytes()
    if start != _MAGIC:
        raise ValueError(
            f"{location}: no GGUF file. Only models that llama.cpp runs are evaluated; "
            "`pyarrowquant quantize FOLDER x.gguf` makes one of a Hugging Face folder"
        )
    return location.path


def _read(path: _Path) -> bytes:
    data = read_text(path)
    if len(data) >= 2**31:
        raise ValueError(
            f"{path}: the text has {len(data)} bytes, llama.cpp takes less than {2**31}. Give a "
            "part of it"
        )
    return data
