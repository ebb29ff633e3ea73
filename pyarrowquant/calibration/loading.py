"""What transformers loads from folders, told in our way."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import logging

from pyarrowquant._core.quoting import enumerated, first_few, shortened

_POOLER = "pooler"  # of encoders, which many are published without; no token goes through it
_OTHER_FILES = {"tokenizer.json", "tekken.json"}  # whose classes need not name them


def tokenizer_of(folder: str) -> Any:
    """Return the tokenizer of a model.

    Raises
    ------
    ValueError
        There is none.
    """
    try:
        found = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # each tokenizer has its own for files that lack or are damaged
        raise _no_tokenizer(folder, in_one_line(error)) from error
    names = set(found.vocab_files_names.values())  # without any, bytes are tokens
    if names and not any((Path(folder) / name).is_file() for name in names | _OTHER_FILES):
        raise _no_tokenizer(  # some classes make one of no files, to which all is unknown
            folder, f"{type(found).__name__} is made of {enumerated(sorted(names))}"
        )
    return found


def _no_tokenizer(folder: str, reason: str) -> ValueError:
    return ValueError(
        f"'{folder}': transformers loads no tokenizer of it, which text needs: copy those files of "
        f"the model, too, such as tokenizer.json ({shortened(reason)})"
    )


def in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def advice(model: Any, window: Sequence[int]) -> str:
    """Say what to do where a model does not run on a window."""
    known = getattr(model.config.get_text_config(), "vocab_size", None)
    if isinstance(known, int) and max(window) >= known:
        return (
            f"Its tokenizer gives token {max(window)}, and the model has {known}: take the "
            "tokenizer that came with the model"
        )
    return "Give a smaller context=, if that is what it lacks"


def check_complete(folder: str, said: dict[str, Collection[Any]]) -> None:
    """Raise where transformers has made up weights that a folder lacks, or has in other shapes.

    Parameters
    ----------
    folder : str
    said : dict
        The loading info of transformers.
    """
    if other := sorted(said["mismatched_keys"]):
        name, has, wanted = other[0]
        raise ValueError(
            f"'{folder}': {name} has shape {list(has)}, and by config.json {list(wanted)}. Give "
            "the config.json of these weights"
        )
    if lacking := sorted(name for name in said["missing_keys"] if _POOLER not in name.split(".")):
        raise ValueError(
            f"'{folder}' lacks weights that its config.json says, which would be random: "
            f"{first_few(lacking)}. Copy all files of the model, or give its own config.json"
        )


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers from drawing what it loads, between the progress that is shown."""
    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()
