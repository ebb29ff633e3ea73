"""Hugging Face folders as transformers runs them: tokens in, logits or embeddings out."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt
import torch
import transformers
from transformers.models.auto import modeling_auto

from pyarrowquant._core.quoting import quoted, shortened
from pyarrowquant.calibration.loading import (
    advice,
    check_complete,
    in_one_line,
    tokenizer_of,
    without_bars,
)
from pyarrowquant.calibration.weights import decoded_source
from pyarrowquant.evaluation.counting import Part
from pyarrowquant.reading.config import CONFIG, is_of_mlx, quantizations_in, read_config
from pyarrowquant.reading.location import Location, locate
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.models import open_model
from pyarrowquant.reading.positions import positions_in

# Classes that predict the next token of a text, some of images, too.
_PREDICTING = {
    name
    for names in (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )
    for each in names.values()
    for name in ((each,) if isinstance(each, str) else each)
}
_MORE_THAN_TEXT = {"pixel_values", "decoder_input_ids"}


class Folder:
    """A model whose weights are not loaded yet, a `Found`."""

    def __init__(self, path: str) -> None:
        self.path = path
        location = locate(path, None)
        said = read_config(location.within(CONFIG))
        self._class, self.predicts = _class_of(path, said)
        self._quantized = _quantized_model(location, said)
        self.longest_context = positions_in(said)

    def tokenizer(self) -> FolderTokenizer:
        return FolderTokenizer(self.path)

    def load(self, threads: int) -> FolderModel:
        return FolderModel(self.path, self._class, self._quantized, threads)


class FolderTokenizer:
    """A tokenizer as transformers loads it."""

    def __init__(self, folder: str) -> None:
        self._loaded = tokenizer_of(folder)

    def vocabulary(self) -> Mapping[str, int]:
        found: dict[str, int] = self._loaded.get_vocab()
        return found

    def encoded(self, text: str, special: bool) -> list[int]:
        # not verbose, or it would warn of texts that are longer than a window
        tokens = self._loaded(text, add_special_tokens=special, verbose=False)["input_ids"]
        return list(tokens)


class FolderModel:
    """A model with its weights, those of codes decoded.

    Parameters
    ----------
    folder : str
    model_class : type
        Of transformers.
    quantized : Model or None
        What has its weights, if they are codes.
    threads : int
    """

    def __init__(
        self, folder: str, model_class: Any, quantized: Model | None, threads: int
    ) -> None:
        self._folder, self._threads = folder, threads
        source: dict[str, Any] = {"pretrained_model_name_or_path": folder}
        if quantized is not None and not quantized.has_unread_codes:
            source = decoded_source(quantized, model_class)
        try:
            with without_bars():
                loaded, said = model_class.from_pretrained(
                    **source,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # which is told of below
                    dtype=torch.float32,
                )
        except (ImportError, RuntimeError, ValueError, OSError) as error:  # also of shapes
            raise ValueError(
                f"'{folder}': transformers cannot load it as {model_class.__name__}: "
                f"{shortened(in_one_line(error))}"
            ) from error
        check_complete(folder, said)
        self._model = loaded.eval()
        takes = inspect.signature(self._model.forward).parameters
        self._keeps_some = "logits_to_keep" in takes

    def predicted(self, window: Sequence[int]) -> Iterator[Part]:
        """Predict the second half of a window."""
        half, last = len(window) // 2, len(window) - 1  # behind which there is none to predict
        kept = {"logits_to_keep": last - half} if self._keeps_some else {}
        logits = self._run(self._model, window[:last], "logits", **kept)
        yield Part(half, last, logits[0, half - last :].float().numpy())

    def embedded(self, passage: Sequence[int]) -> npt.NDArray[Any]:
        """Return vectors of the tokens of a passage, as they are below any head."""
        found = self._run(self._model.base_model, passage, "last_hidden_state")
        return found[0].double().numpy()  # type: ignore[no-any-return]

    def _run(self, model: Any, tokens: Sequence[int], wanted: str, **more: Any) -> Any:
        try:
            with torch.inference_mode(), _threads(self._threads):
                return getattr(model(input_ids=torch.tensor([tokens]), **more), wanted)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"'{self._folder}': transformers gives no {wanted} for it: "
                f"{shortened(in_one_line(error))}. {advice(self._model, tokens)}"
            ) from error


def _class_of(folder: str, config: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return the class of a model, and whether it predicts the next token."""
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    if name is None:
        raise ValueError(
            f"'{folder}': its config.json has no architectures, such as ['LlamaForCausalLM'], "
            "which say how the model is run"
        )
    if name in _PREDICTING:
        return getattr(transformers, name), True
    found = getattr(transformers, name, None) if isinstance(name, str) else None
    if _takes_text_alone(found):
        return found, False
    raise ValueError(
        f"'{folder}': {quoted(name)} of its config.json is no class of transformers that "
        "predicts the next token of a text, or gives embeddings of it; only such models can be "
        "evaluated"
    )


def _takes_text_alone(found: Any) -> bool:
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        return False
    takes = inspect.signature(getattr(found, "forward", found)).parameters
    return "input_ids" in takes and not _MORE_THAN_TEXT.intersection(takes)


def _quantized_model(location: Location, said: Mapping[str, Any]) -> Model | None:
    """Return a model with codes, for its weights to be decoded here; None if it has floats.

    transformers decodes those of compressed-tensors by one of several schemes, or computes with
    rounded activations; it leaves out some scales of experts.
    """
    quantizations = list(quantizations_in(said))
    for key, quantization in quantizations:
        if is_of_mlx(quantization):
            raise ValueError(
                f"'{location}': {key} of its config.json is MLX's, which transformers does not "
                "run. `pyarrowquant dequantize` makes a folder that it runs"
            )
    return open_model(location) if quantizations else None


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
