"""GGUF models as llama.cpp runs them: tokens in, logits out.

What llama.cpp says goes into errors, and nowhere else. Its functions are those of the low level of
llama-cpp-python, since a `Llama` holds the logits of a whole context twice.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from pyarrowquant.evaluation.counting import Logits, Part

BATCH = 128  # tokens whose logits are held at a time
_ERROR = 4  # of ggml_log_level
_CONTINUED = 5  # a message of the level before
_NO_VOCABULARY = 0
_LONGEST_VALUE = 100


def import_llama_cpp() -> Any:
    try:
        import llama_cpp
    except ModuleNotFoundError as error:
        if error.name != "llama_cpp":  # what it needs itself
            raise
        raise not_installed() from None
    except (OSError, RuntimeError) as error:  # of its library
        raise ImportError(
            f"llama-cpp-python cannot be loaded: {error}. Install it anew: pip install "
            "--force-reinstall llama-cpp-python"
        ) from None
    return llama_cpp


def not_installed() -> ImportError:
    return ImportError("Evaluating needs llama-cpp-python: pip install 'pyarrowquant[evaluate]'")


class Log:
    """Collects the errors that llama.cpp logs, in place of what it prints.

    A context: llama.cpp has one log for a process, which is put back at the end.
    """

    def __init__(self, llama_cpp: Any) -> None:
        self._llama_cpp = llama_cpp
        self._lines: list[str] = []
        self._level = 0
        self._kept = llama_cpp.llama_log_callback(self._add)
        self._before = llama_cpp.llama_log_callback(), ctypes.c_void_p()

    def __enter__(self) -> Log:
        self._llama_cpp.llama_log_get(*map(ctypes.byref, self._before))
        self._llama_cpp.llama_log_set(self._kept, None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._llama_cpp.llama_log_set(*self._before)

    @contextmanager
    def collecting(self) -> Iterator[list[str]]:
        """Give the list that has the errors of what is done within."""
        self._lines = []
        yield self._lines

    def _add(self, level: int, text: bytes, _: object) -> None:
        self._level = self._level if level == _CONTINUED else level
        if self._level == _ERROR and (line := text.decode(errors="replace").strip()):
            self._lines.append(line)


class Vocabulary:
    """The tokens of a model, read without its weights.

    Parameters
    ----------
    path : str
    log : Log
    """

    def __init__(self, llama_cpp: Any, path: str, log: Log) -> None:
        self.path = path
        self._llama_cpp = llama_cpp
        self._model = _loaded(llama_cpp, path, log, vocab_only=True)
        self._tokens = llama_cpp.llama_model_get_vocab(self._model)
        self.size: int = llama_cpp.llama_vocab_n_tokens(self._tokens)
        self.longest_context = self._longest_context()

    def close(self) -> None:
        self._llama_cpp.llama_model_free(self._model)

    def check(self) -> None:
        """Raise where there is nothing to tokenize text with, or no next token to predict."""
        if self._llama_cpp.llama_vocab_type(self._tokens) == _NO_VOCABULARY:
            raise ValueError(
                f"{self.path}: the model has no tokenizer, which text needs. Files that "
                "`pyarrowquant quantize` makes of a Hugging Face folder have one"
            )
        encodes = self._llama_cpp.llama_model_has_encoder(self._model)
        if encodes or self._of_architecture("attention.causal") == "false":
            raise ValueError(
                f"{self.path}: the model reads texts as a whole; only models that predict the next "
                "token of a text can be evaluated"
            )

    def _longest_context(self) -> int:
        """Return what the metadata say, as hyperparameters are not read without weights."""
        said = self._of_architecture("context_length")
        return int(said) if said else sys.maxsize  # llama.cpp refuses a model that lacks it

    def _of_architecture(self, key: str) -> str:
        return self._value(f"{self._value('general.architecture')}.{key}")

    def _value(self, key: str) -> str:
        text = ctypes.create_string_buffer(_LONGEST_VALUE)
        self._llama_cpp.llama_model_meta_val_str(self._model, key.encode(), text, len(text))
        return text.value.decode()

    def texts(self) -> list[bytes]:
        text = self._llama_cpp.llama_vocab_get_text
        return [text(self._tokens, token) for token in range(self.size)]

    def first_token(self) -> int | None:
        """Return what the model wants at the beginning of a text."""
        if not self._llama_cpp.llama_vocab_get_add_bos(self._tokens):
            return None
        return int(self._llama_cpp.llama_vocab_bos(self._tokens))

    def tokenized(self, text: bytes) -> npt.NDArray[np.int32]:
        """Return the tokens of a text, with what the model wants around it."""
        tokenize = self._llama_cpp.llama_tokenize
        count = len(text) + 2  # nearly all tokenizers make less
        while True:
            found = np.empty(count, np.int32)
            pointer = found.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            count = tokenize(self._tokens, text, len(text), pointer, len(found), True, False)
            if count >= 0:
                return found[:count].copy()
            count = -count


class LanguageModel:
    """A model with its weights.

    Parameters
    ----------
    path : str
    context : int
        The most tokens of a window.
    threads : int
    log : Log
    """

    def __init__(self, llama_cpp: Any, path: str, context: int, threads: int, log: Log) -> None:
        self._llama_cpp = llama_cpp
        self._path = path
        self._log = log
        self._model = _loaded(llama_cpp, path, log, vocab_only=False)
        self._vocabulary_size: int = llama_cpp.llama_vocab_n_tokens(
            llama_cpp.llama_model_get_vocab(self._model)
        )
        batch = min(context, BATCH)
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = context
        parameters.n_batch = parameters.n_ubatch = batch
        parameters.n_threads = parameters.n_threads_batch = threads
        with log.collecting() as said:
            self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            llama_cpp.llama_model_free(self._model)
            raise _failure(f"{path}: llama.cpp has no context of {context} tokens for it", said)
        self._batch = llama_cpp.llama_batch_init(batch, 0, 1)

    def close(self) -> None:
        self._llama_cpp.llama_batch_free(self._batch)
        self._llama_cpp.llama_free(self._context)
        self._llama_cpp.llama_model_free(self._model)

    def predicted(self, window: Sequence[int]) -> Iterator[Part]:
        """Predict the second half of a window, some tokens at a time."""
        yield from self.predicted_behind(len(window) // 2, window)

    def predicted_behind(self, first: int, window: Sequence[int]) -> Iterator[Part]:
        """Predict the tokens of a window that come behind one of them, some at a time."""
        # of the window before
        self._llama_cpp.llama_memory_clear(self._llama_cpp.llama_get_memory(self._context), True)
        last = len(window) - 1  # behind which there is none to predict
        for start in range(0, last, BATCH):
            end = min(start + BATCH, last)
            wanted = max(first - start, 0)
            yield Part(start + wanted, end, self._logits(window[start:end], start, wanted))

    def _logits(self, tokens: Sequence[int], position: int, first: int) -> Logits:
        """Go on with tokens, and return the logits behind each from `first` on.

        They lie in memory of llama.cpp, until the next call.

        Parameters
        ----------
        tokens : sequence of int
            At most `BATCH`.
        position : int
            Of the first of these in the window.
        first : int
            The first of these whose logits are wanted.
        """
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = position + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i >= first
        with self._log.collecting() as said:
            status = self._llama_cpp.llama_decode(self._context, batch)
        rows = max(len(tokens) - first, 0)
        found = self._llama_cpp.llama_get_logits(self._context) if status == 0 else None
        if status != 0 or (rows and not found):
            problem = f"llama.cpp gives no logits for it (llama_decode returns {status})"
            raise _failure(f"{self._path}: {problem}", said)
        if rows == 0:
            return np.empty((0, self._vocabulary_size), np.float32)
        return np.ctypeslib.as_array(found, shape=(rows, self._vocabulary_size))


def _loaded(llama_cpp: Any, path: str, log: Log, vocab_only: bool) -> Any:
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = vocab_only
    # Weights that are packed anew for AMX end the process, with llama-cpp-python 0.3.36.
    parameters.use_extra_bufts = False
    with log.collecting() as said:
        model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
    if not model:
        raise _failure(f"{path}: llama.cpp cannot load it", said)
    return model


def _failure(problem: str, said: Sequence[str]) -> ValueError:
    """Make an error with the first that was logged, without the function that did."""
    reasons = [re.sub(r"^\w+: (error loading model: )?", "", line) for line in said[:1]]
    return ValueError(": ".join([problem, *reasons]))
