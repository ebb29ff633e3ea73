"""Models of transformers, run on windows of tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import transformers

from pyarrowquant._core.quoting import quoted, shortened
from pyarrowquant.calibration.deferred import ChangedWeightsError, Deferred
from pyarrowquant.calibration.inputs import InputSquares
from pyarrowquant.calibration.layers import Layers
from pyarrowquant.calibration.loading import (
    advice,
    check_complete,
    in_one_line,
    tokenizer_of,
    without_bars,
)
from pyarrowquant.calibration.partial import WINDOWS_TOGETHER, Partial
from pyarrowquant.calibration.squares import Squares, check_finite
from pyarrowquant.calibration.texts import before_text
from pyarrowquant.calibration.turns import in_turns
from pyarrowquant.calibration.weights import deferred_source
from pyarrowquant.reading.model import Model

_NO_TEXT = "Models that need sound or images cannot be calibrated: quantize them without importance"


class TransformersRunner:
    """Runs a model.

    Parameters
    ----------
    model : Model
        Of a folder.
    architecture : str
        Its class of transformers.

    Raises
    ------
    ValueError
        transformers has no such class, or what is of it reads no text.
    """

    def __init__(self, model: Model, architecture: str) -> None:
        self._model, self._architecture = model, architecture
        self._folder = str(model.folder)
        self._class = _class_of(self._folder, architecture)

    def tokens_of(self, texts: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """Return what the model's tokenizer puts before each text, and the tokens of each."""
        tokenizer = tokenizer_of(self._folder)
        tokens = [  # not verbose, or it would warn of texts that are longer than a window
            tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts
        ]
        plain = tokenizer("a", add_special_tokens=False)["input_ids"]
        return before_text(tokenizer("a")["input_ids"], plain), tokens

    def measured(
        self,
        windows: Sequence[Sequence[int]],
        threads: int,
        progress: Callable[[int, int], object],
        partial: Partial,
    ) -> Mapping[str, Squares]:
        """Run it, and return what its parameters are multiplied with.

        Parameters that are tensors of the files have the names that these have there.
        """
        begin, found = partial.read()
        total, done = sum(map(len, windows)), sum(map(len, windows[:begin]))
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            model = self._load()
            origins = _origins(model)
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
            return {origins.get(name, name): squares for name, squares in found.items()}
        finally:
            torch.set_num_threads(before)

    def _load(self) -> Any:
        """Load the model as float32, in which processors compute fastest.

        What cannot be decoded here is left to transformers, which has all of it in memory.
        """
        source: dict[str, Any] = {"pretrained_model_name_or_path": self._folder}
        if not self._model.has_unread_codes:
            source = deferred_source(self._model, self._class)
        try:
            with without_bars(), Deferred.recording():
                loaded, said = self._class.from_pretrained(
                    **source,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # which is told of below
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
                f"{shortened(in_one_line(error))}"
            ) from error
        check_complete(self._folder, said)
        return loaded.eval()


def _class_of(folder: str, architecture: str) -> Any:
    """Return a class of models that read tokens."""
    found: Any = getattr(transformers, architecture, None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise ValueError(
            f"'{folder}': {quoted(architecture)} of its config.json is no class of models that "
            "transformers has. Upgrade transformers; code that comes with a model is not run"
        )
    if "input_ids" not in inspect.signature(getattr(found, "forward", found)).parameters:
        raise ValueError(f"'{folder}': {architecture} reads no tokens of text. {_NO_TEXT}")
    return found


def _origins(model: Any) -> dict[str, str]:
    """Return which tensors of files parameters are, where they are these alone and as a whole."""
    return {
        name: parameter.origin
        for name, parameter in model.named_parameters()
        if isinstance(parameter, Deferred) and parameter.origin is not None
    }


def _run(model: Any, window: Sequence[int]) -> Callable[[], None]:
    def run() -> None:
        ids = torch.tensor([window])
        more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
        try:
            model(input_ids=ids, **more)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{type(model).__name__} does not run on tokens of text alone "
                f"({shortened(in_one_line(error))}). {_NO_TEXT}"
            ) from error
        except (IndexError, RuntimeError) as error:
            raise ValueError(
                f"{type(model).__name__} does not run on {len(window)} tokens: "
                f"{shortened(in_one_line(error))}. {advice(model, window)}"
            ) from error

    return run
