"""Hugging Face folders as transformers runs them: tokens in, logits out."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto

from pyarrowquant._core.quoting import quoted, shortened
from pyarrowquant.calibration.loading import advice, in_one_line, tokenizer_of, without_bars
from pyarrowquant.calibration.texts import before_text
from pyarrowquant.evaluation.counting import (
    Cut,
    Evaluation,
    Part,
    Run,
    Tell,
    check_length,
    differing_vocabularies,
    usual_context,
)
from pyarrowquant.evaluation.request import Request
from pyarrowquant.reading.config import CONFIG, is_of_mlx, quantizations_in, read_config
from pyarrowquant.reading.location import locate
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


def predict_by_transformers(request: Request, tell: Tell) -> Evaluation:
    """Let transformers predict a text with models of folders, as float32.

    Parameters
    ----------
    request : Request
    tell : callable
        As of `Run`.
    """
    known = [(path, _class_of(path), _config_of(path)) for path in request.paths]
    cut = _cut(request)
    with _threads(request.threads):
        models = [FolderModel(*each) for each in known]
        return Run(models, request.paths, tell).over(cut)


class FolderModel:
    """A model with its weights, those of codes decoded.

    Parameters
    ----------
    folder : str
    model_class : type
        Of transformers.
    config : object
        Of transformers.
    """

    def __init__(self, folder: str, model_class: Any, config: Any) -> None:
        self._folder = folder
        method = _method_of(config)  # which loading changes
        try:
            with without_bars():
                loaded = model_class.from_pretrained(folder, config=config, dtype=torch.float32)
                if method == "bitsandbytes":  # whose kernels would round what layers read
                    loaded = loaded.dequantize(torch.float32)
        except (RuntimeError, ValueError, OSError) as error:  # also of shapes, and damaged files
            raise ValueError(
                f"'{folder}': transformers cannot load it as {model_class.__name__}: "
                f"{shortened(in_one_line(error))}"
            ) from error
        self._model = loaded.eval()
        takes = inspect.signature(self._model.forward).parameters
        self._keeps_some = "logits_to_keep" in takes

    def predicted(self, window: Sequence[int]) -> Iterator[Part]:
        """Predict the second half of a window."""
        half, last = len(window) // 2, len(window) - 1  # behind which there is none to predict
        kept = {"logits_to_keep": last - half} if self._keeps_some else {}
        try:
            with torch.inference_mode():
                logits = self._model(input_ids=torch.tensor([window[:last]]), **kept).logits
        except (IndexError, RuntimeError) as error:
            raise ValueError(
                f"'{self._folder}': transformers gives no logits for it: "
                f"{shortened(in_one_line(error))}. {advice(self._model, window)}"
            ) from error
        yield Part(half, last, logits[0, half - last :].float().numpy())


def _class_of(folder: str) -> Any:
    config = read_config(locate(folder, None).within(CONFIG))
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    if name not in _PREDICTING:
        raise ValueError(
            f"'{folder}': {quoted(name)} of its config.json is no class of transformers that "
            "predicts the next token of a text; only such models can be evaluated"
        )
    return getattr(transformers, name)


def _config_of(folder: str) -> Any:
    """Return a configuration by which transformers decodes weights, to compute with floats."""
    said = read_config(locate(folder, None).within(CONFIG))
    for key, quantization in quantizations_in(said):
        if is_of_mlx(quantization):
            raise ValueError(
                f"'{folder}': {key} of its config.json is MLX's, which transformers does not run. "
                "`pyarrowquant dequantize` makes a folder that it runs"
            )
    config = transformers.AutoConfig.from_pretrained(folder)
    if _method_of(config) == "compressed-tensors":
        config.quantization_config["dequantize"] = True
    return config


def _method_of(config: Any) -> object:
    said = getattr(config, "quantization_config", None)
    return said.get("quant_method") if isinstance(said, dict) else None


def _cut(request: Request) -> Cut:
    """Cut the text into windows. All is checked here that can be without weights."""
    found = [tokenizer_of(path) for path in request.paths]
    reference = found[-1]
    if found[0].get_vocab() != reference.get_vocab():
        raise differing_vocabularies(
            request.paths[0], request.paths[-1], _difference(found[0], reference)
        )
    sizes = [positions_in(read_config(locate(path, None).within(CONFIG))) for path in request.paths]
    context = usual_context(request.context, min(sizes), request.paths[-1])
    text = request.text.decode()
    plain = reference("a", add_special_tokens=False)["input_ids"]
    before = before_text(reference("a")["input_ids"], plain)
    tokens = before + reference(text, add_special_tokens=False)["input_ids"]
    check_length(len(tokens), context, request.text_path)
    return Cut(tokens, before, context)


def _difference(result: Any, reference: Any) -> str:
    ours, theirs = (
        {number: text for text, number in each.get_vocab().items()} for each in (result, reference)
    )
    if len(ours) != len(theirs):
        return f"{len(ours)} tokens, and {len(theirs)}"
    number = min(each for each in {*ours, *theirs} if ours.get(each) != theirs.get(each))
    shown = (quoted(each.get(number, "missing")) for each in (ours, theirs))
    return f"token {number} is {', and '.join(shown)}"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
