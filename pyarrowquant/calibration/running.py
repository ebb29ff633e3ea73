"""Models of transformers, run on windows of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from transformers import AutoTokenizer
from transformers.utils import logging

from pyarrowquant._core.quoting import enumerated, shortened
from pyarrowquant.calibration.deferred import ChangedWeightsError, Deferred
from pyarrowquant.calibration.inputs import InputSquares
from pyarrowquant.calibration.layers import Layers
from pyarrowquant.calibration.partial import WINDOWS_TOGETHER, Partial
from pyarrowquant.calibration.squares import Squares, check_finite
from pyarrowquant.calibration.texts import before_text
from pyarrowquant.calibration.turns import in_turns

_OTHER_FILES = {"tokenizer.json", "tekken.json"}  # whose classes need not name them


class TransformersRunner:
    """Runs a model.

    Parameters
    ----------
    folder : str
    architecture : str
        Its class of transformers.
    files : sequence of str
        Of weights that are read when they are used; without any, all are loaded.
    """

    def __init__(self, folder: str, architecture: str, files: Sequence[str]) -> None:
        self._folder, self._architecture, self._files = folder, architecture, files

    def tokens_of(self, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Return what the model's tokenizer puts before each text, and the tokens of each."""
        tokenizer = self._tokenizer()
        tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        plain = tokenizer("a", add_special_tokens=False)["input_ids"]
        return before_text(tokenizer("a")["input_ids"], plain), tokens

    def _tokenizer(self) -> Any:
        try:
            found = AutoTokenizer.from_pretrained(self._folder)
        except Exception as error:  # each tokenizer has its own for files that lack or are damaged
            raise _no_tokenizer(self._folder, _in_one_line(error)) from error
        names = set(found.vocab_files_names.values())  # without any, bytes are tokens
        if names and not any(
            (Path(self._folder) / name).is_file() for name in names | _OTHER_FILES
        ):
            raise _no_tokenizer(  # some classes make one of no files, to which all is unknown
                self._folder, f"{type(found).__name__} is made of {enumerated(sorted(names))}"
            )
        return found

    def measured(
        self,
        windows: Sequence[Sequence[int]],
        threads: int,
        progress: Callable[[int, int], object],
        partial: Partial,
    ) -> Mapping[str, Squares]:
        """Run it, and return what its parameters are multiplied with."""
        begin, found = partial.read()
        total, done = sum(map(len, windows)), sum(map(len, windows[:begin]))
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            model = self._load()
            inputs = InputSquares(found)
            with torch.inference_mode():
                layers = Layers(model, inputs)
                inputs.output = getattr(model.get_output_embeddings(), "weight", None)
                with inputs:
                    for first in range(begin, len(windows), WINDOWS_TOGETHER):
                        together = windows[first : first + WINDOWS_TOGETHER]
                        tokens = sum(map(len, together))
                        runs = [_run(model, window) for window in together]
                        for turn, _ in enumerate(in_turns(runs)):
                            part = min(turn, layers.count) / (layers.count + 1)
                            progress(done + int(tokens * part), total)
                        done += tokens
                        progress(done, total)
                        check_finite(found, self._folder)
                        partial.write(first + len(together), found)
            return found
        finally:
            torch.set_num_threads(before)

    def _load(self) -> Any:
        """Load the model as float32, in which processors compute fastest."""
        model_class = getattr(transformers, self._architecture)
        source: dict[str, Any] = {"pretrained_model_name_or_path": self._folder}
        if self._files:
            source = {
                "pretrained_model_name_or_path": None,
                "config": model_class.config_class.from_pretrained(self._folder),
                "state_dict": _deferred(self._files),
            }
        try:
            with _without_bars(), Deferred.recording():
                loaded = model_class.from_pretrained(
                    **source,
                    dtype=torch.float32,
                    attn_implementation="eager",
                    experts_implementation="eager",
                )
        except ChangedWeightsError as error:
            raise ValueError(
                f"'{self._folder}': {self._architecture} changes its weights when transformers "
                f"loads it ({error}), so it cannot be run layer by layer. Export it to ONNX, and "
                "calibrate that; or measure a GGUF model with llama-imatrix, whose files "
                "importance= takes, too"
            ) from error
        except RuntimeError as error:  # such as shapes that are not those of config.json
            raise ValueError(
                f"'{self._folder}': transformers cannot load it as {self._architecture}: "
                f"{shortened(_in_one_line(error))}"
            ) from error
        return loaded.eval()


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _no_tokenizer(folder: str, reason: str) -> ValueError:
    return ValueError(
        f"'{folder}': transformers loads no tokenizer of it, which text needs: copy those files of "
        f"the model, too, such as tokenizer.json ({shortened(reason)})"
    )


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep transformers from drawing what it loads, between the progress that is shown."""
    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()


def _deferred(files: Sequence[str]) -> dict[str, Deferred]:
    weights = {}
    for path in files:
        with safe_open(path, framework="pt") as file:  # whose tensors are mapped
            names = list(file.keys())
            weights.update({name: Deferred.of(file.get_tensor(name)) for name in names})
    return weights


def _run(model: Any, window: Sequence[int]) -> Callable[[], None]:
    def run() -> None:
        ids = torch.tensor([window])
        more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        try:
            model(input_ids=ids, **more)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{type(model).__name__} does not run on tokens of text alone ({error}); "
                "models that take sound or images cannot be calibrated"
            ) from error
        except (IndexError, RuntimeError) as error:
            raise ValueError(
                f"{type(model).__name__} does not run on {len(window)} tokens: "
                f"{shortened(_in_one_line(error))}. {_advice(model, window)}"
            ) from error

    return run


def _advice(model: Any, window: Sequence[int]) -> str:
    known = getattr(model.config.get_text_config(), "vocab_size", None)
    if isinstance(known, int) and max(window) >= known:
        return (
            f"Its tokenizer gives token {max(window)}, and the model has {known}: take the "
            "tokenizer that came with the model"
        )
    return "Give a smaller context=, if that is what it lacks"
