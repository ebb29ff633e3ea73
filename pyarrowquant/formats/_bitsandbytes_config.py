"""What config.json says of layers that bitsandbytes computes with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pyarrowquant.formats._compressed_config import EXPERT
from pyarrowquant.formats._module_names import WEIGHT, unpacked, unpacked_patterns
from pyarrowquant.reading.tensors import Tensor
from pyarrowquant.recipes.rule import Rule

EXPERTS = Rule(
    match=("*.experts.*",),
    skip=True,
    reason="experts, which transformers joins to stacks that bitsandbytes has no codes for",
)
# Linear layers that transformers keeps in float32, by the model_type of config.json.
_IN_FLOAT32 = {
    **dict.fromkeys(("t5", "mt5", "umt5", "udop", "pop2piano"), "*.wo.weight"),
    "blip-2": "*qformer.*",
}


# Those of classes of their own, which it does not take for linear layers then.
_OF_OTHER_CLASSES = {"falcon": "*", "deepseek_v4": "*.o_a_proj.weight"}
_REASONS = (
    (_IN_FLOAT32, "which transformers keeps in float32"),
    (_OF_OTHER_CLASSES, "of classes that transformers does not pack with bitsandbytes"),
)


def kept_floats(model: Mapping[str, Any]) -> list[Rule]:
    """Return rules for layers of a model that transformers does not load packed."""
    kind = str(model.get("model_type"))
    return [
        Rule(match=matches[kind], skip=True, reason=reason)
        for matches, reason in _REASONS
        if kind in matches
    ]


def quantization_config(
    layers: Iterable[str],
    tensors: Mapping[str, Tensor],
    model: Mapping[str, Any],
    dtype: str,
    double: bool,
) -> dict[str, Any]:
    """Return the part of config.json.

    Parameters
    ----------
    layers : iterable of str
        Names of the packed layers.
    tensors : mapping
        All tensors of the model.
    model : mapping
        The model's config.json.
    dtype : str
        Of the model.
    double : bool
        Whether scales are codes, too.
    """
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": double,
        "bnb_4bit_compute_dtype": dtype,
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": _skipped(list(layers), tensors, model.get("model_type")),
    }


def _skipped(layers: list[str], tensors: Mapping[str, Tensor], model_type: object) -> list[str]:
    """Return names, and regular expressions, of modules that are not packed.

    transformers takes a name for the modules below it, too, and for all whose names end with it:
    what a packed layer would fall under is said by its regular expression alone.
    """
    packed = [name.removesuffix(WEIGHT) for name in layers]
    exact = [
        module
        for module in unpacked(layers, tensors, model_type)
        if not EXPERT.search(module + WEIGHT)
    ]
    clear = [
        module
        for module in exact
        if not any(each.endswith(module) or each.startswith(module + ".") for each in packed)
    ]
    return clear + unpacked_patterns(exact, tensors)
