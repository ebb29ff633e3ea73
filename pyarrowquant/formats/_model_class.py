"""Folders of whose model config.json says two things, so that engines take two for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.errors import UsageError
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.model import Model

# Models that have classes of their own by their names, which are here as `_plain` has them. Many
# others have classes of models that they are derived from, so nothing is said of these.
_WITHOUT_EXPERTS = frozenset(
    [
        *("apertus", "bloom", "cohere", "cohere2", "ernie45", "exaone4", "falcon", "gemma"),
        *("gemma2", "gemma3", "glm", "glm4", "gpt2", "gptbigcode", "gptj", "gptneo", "gptneox"),
        *("granite", "helium", "llama", "mistral", "mpt", "nemotron", "olmo", "olmo2", "olmo3"),
        *("opt", "phi", "phi3", "qwen2", "qwen3", "seedoss", "smollm3", "stablelm", "starcoder2"),
    ]
)
_KNOWN = _WITHOUT_EXPERTS | {
    *("dbrx", "deepseekv2", "deepseekv3", "ernie45moe", "falconh1", "falconmamba", "gemma3n"),
    *("glm4moe", "gptoss", "granitemoe", "jamba", "lfm2", "lfm2moe", "llama4", "mamba", "mamba2"),
    *("minimax", "mixtral", "olmoe", "phimoe", "qwen2moe", "qwen3moe", "qwen3next"),
}
_ALIKE = frozenset({"llama", "mistral"})  # whose tensors are the same
_CLASS = re.compile(
    r"(.+?)(?:Text)?(?:Model|LMHeadModel|For(?:CausalLM|ConditionalGeneration|MaskedLM|"
    r"SequenceClassification|TokenClassification|QuestionAnswering))"
)
_EXPERTS = re.compile(r"(?:.+\.)?experts\..+", re.DOTALL)
_WAY_OUT = f"Take the {CONFIG} that came with the weights, or correct it"


def check_class(model: Model) -> None:
    """Refuse a folder of whose model config.json says two things.

    Parameters
    ----------
    model : Model
        With its own names.

    Raises
    ------
    UsageError
        The class is one of another model_type, or there are experts where that has none.
    """
    config = model.config or {}
    kind = config.get("model_type")
    if model.folder is None or not isinstance(kind, str) or config.get("auto_map"):
        return
    plain, path = _plain(kind).removesuffix("text"), model.folder.within(CONFIG)
    named = list(_classes(config))
    if named and all(_are_others(plain, each) for each in named):
        raise UsageError(
            f"'{path}' has model_type {quoted(kind)} and architectures {quoted(named)}, which are "
            "different models: some engines load a model by the one, some by the other. "
            f"{_WAY_OUT}"
        )
    if plain not in _WITHOUT_EXPERTS:
        return
    for tensor in model.all_tensors:
        if _EXPERTS.fullmatch(tensor.name):
            raise UsageError(
                f"'{path}' has model_type {quoted(kind)}, and models of that have no experts, such "
                f"as {quoted(tensor.name)}. {_WAY_OUT}"
            )


def _classes(config: Mapping[str, Any]) -> Iterable[str]:
    said = config.get("architectures")
    return (each for each in (said if isinstance(said, list) else [said]) if isinstance(each, str))


def _are_others(plain: str, model_class: str) -> bool:
    """Whether a class is of other models than those of a model_type."""
    found = _CLASS.fullmatch(model_class)
    if found is None:
        return False
    both = {plain, _plain(found[1])}
    return len(both) == 2 and both <= _KNOWN and both != _ALIKE


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
