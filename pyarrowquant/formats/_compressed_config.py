"""What config.json says of packed layers, so that transformers finds them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from pyarrowquant._core.layout import Coded
from pyarrowquant._core.quoting import first_few, quoted
from pyarrowquant.formats._compressed_schemes import (
    SMALL_SCALES,
    Scheme,
    format_of,
    is_symmetric,
    scheme_of,
)
from pyarrowquant.formats._module_names import (
    WEIGHT,
    Prefixed,
    patterns,
    unpacked,
    unpacked_patterns,
)
from pyarrowquant.reading.tensors import Tensor

# Matrices that transformers joins to one tensor of all experts of a block.
EXPERT = re.compile(r"(^|\.)experts\.\d+\.")
# Models of which transformers joins files of single experts, by the model_type of config.json,
# that others may have written with stacks of experts.
JOINED = frozenset(
    {
        "deepseek_v2",
        "deepseek_v3",
        "dots1",
        "ernie4_5_moe",
        "glm4_moe",
        "glm4v_moe",
        "hunyuan_v1_moe",
        "olmoe",
        "qwen2_moe",
        "qwen3_5_moe",
        "qwen3_5_moe_text",
        "qwen3_moe",
        "qwen3_next",
    }
)
# Models whose code uses the weights of linear layers by itself, where a packed layer has none.
_USES_WEIGHTS = frozenset(
    {
        "falcon",
        "falcon_mamba",
        "gpt_bigcode",
        "longt5",
        "mamba",
        "mamba2",
        "mt5",
        "recurrent_gemma",
        "switch_transformers",
        "t5",
        "umt5",
    }
)
# Models whose experts it loads one by one from such folders, though files have them in stacks.
_TAKES_SINGLE_EXPERTS = frozenset({"llama4", "llama4_text"})
# Names of modules in blocks, which are numbered.
_IN_BLOCK = re.compile(r"\.\d+\.")
# What config.json of models for text and images has.
_PARTS = ("text_config", "vision_config")


def quantization_config(
    layers: Mapping[str, Coded],
    tensors: Mapping[str, Tensor],
    model: Mapping[str, Any],
    dtype: str,
    int8: bool = False,
) -> dict[str, Any]:
    """Return the part of config.json, or raise where transformers could not load the layers.

    Parameters
    ----------
    layers : mapping
        The packed layers.
    tensors : mapping
        All tensors of the model.
    model : mapping
        The model's config.json.
    dtype : str
        Of the model.
    int8 : bool
        As of `scheme_of`.
    """
    schemes = schemes_of(layers, int8)
    symmetric = is_symmetric(layers.values())
    if len(schemes) > 1 and any(part in model for part in _PARTS):
        raise ValueError(
            "transformers gives layers of models that have text_config or vision_config other "
            "names than the files have, and would not find layers of different settings. The "
            f"results have {_listed(schemes)}. Quantize all with the same bit_width and group_size"
        )
    if len(schemes) > 1 and (model_type := model.get("model_type")) in _USES_WEIGHTS:
        raise ValueError(
            f"transformers decodes the layers of {model_type} while it loads them, all by one "
            f"scheme. The results have {_listed(schemes)}. Quantize all with the same settings"
        )
    _check_experts(layers, tensors, symmetric)
    groups = {}
    usual = format_of(schemes)
    by_experts = sorted(schemes, key=lambda each: (not _has_experts(schemes[each]), each.order))
    for i, scheme in enumerate(by_experts):
        modules = sorted(name.removesuffix(WEIGHT) for name in schemes[scheme])
        targets = _targets(modules, Prefixed(tensors), is_only=len(schemes) == 1)
        own = {} if scheme.format == usual else {"format": scheme.format}
        groups[f"group_{i}"] = {"targets": targets, **scheme.config(symmetric), **own}
    config: dict[str, Any] = {
        "quant_method": "compressed-tensors",
        "format": usual,
        "quantization_status": "compressed",
        "ignore": _ignored(layers, tensors, model.get("model_type")),
        "config_groups": groups,
    }
    # transformers decodes these to bfloat16 when they are used, and other models do not run so
    small = dtype != "bfloat16" and any(scheme.encoding in SMALL_SCALES for scheme in schemes)
    # and where it decodes while loading, all layers by one scheme
    if not symmetric or (len(schemes) == 1 and (small or not _can_stay_packed(model))):
        config["dequantize"] = True
    return config


def check_stacks(
    model: Mapping[str, Any], tensors: Mapping[str, Tensor], path: object, name: str
) -> None:
    """Raise where transformers wants single experts of a model that has them in stacks.

    Parameters
    ----------
    model : mapping
        The model's config.json.
    tensors : mapping
        All tensors of the model, of which stacks stay as they are.
    path : object
        Of the model, for the error.
    name : str
        Of the format.
    """
    stacks = [name for name in tensors if ".experts." in name and len(tensors[name].shape) == 3]
    if stacks and (model_type := model.get("model_type")) in _TAKES_SINGLE_EXPERTS:
        raise ValueError(
            f"'{path}': transformers loads the experts of {model_type} one by one from folders of "
            f"{name}, and these are stacks, which it would not find: "
            f"{first_few(sorted(stacks))}. Take another format, such as mlx"
        )


def schemes_of(layers: Mapping[str, Coded], int8: bool = False) -> dict[Scheme, list[str]]:
    """Return the names of the layers of each scheme, or raise where one file cannot have them."""
    schemes: dict[Scheme, list[str]] = defaultdict(list)
    for name, layer in layers.items():
        schemes[scheme_of(layer, int8)].append(name)
    if len(schemes) > 1 and not is_symmetric(layers.values()):
        raise ValueError(
            "transformers loads layers of different settings only with symmetric zero-points, and "
            f"the results have {_listed(schemes)}. Quantize all of them with "
            'zero_point="symmetric", or with the same bit_width and group_size'
        )
    return schemes


def mixed_problem(layers: Collection[Coded], model: Mapping[str, Any]) -> str | None:
    """Say what keeps transformers from loading these layers with different bits."""
    if not is_symmetric(layers):
        return "transformers loads layers of different bits only with zero_point='symmetric'"
    if (model_type := model.get("model_type")) in _USES_WEIGHTS:
        return (
            f"transformers loads {model_type} only if all layers have the same bits, which a "
            "budget or a quality floor may not give. Use bit_width= instead"
        )
    if any(part in model for part in _PARTS):
        return (
            "transformers loads models that have text_config or vision_config only if all layers "
            "have the same bits, which a budget or a quality floor may not give. Use bit_width= "
            "instead"
        )
    return None


def _can_stay_packed(model: Mapping[str, Any]) -> bool:
    """Whether transformers may load layers without decoding them at once.

    Code of other models than plain decoders often looks at weights that are not there then, also
    to initialize layers that are in no file. Zero-points that are not symmetric never load so.
    """
    classes = model.get("architectures")
    if not isinstance(classes, list) or model.get("model_type") in _USES_WEIGHTS:
        return False
    if any(part in model for part in _PARTS):
        return False
    return bool(classes) and all(str(name).endswith("ForCausalLM") for name in classes)


def _has_experts(names: Iterable[str]) -> bool:
    # Their group comes first: transformers takes the first that has the word in a target.
    return any(EXPERT.search(name) for name in names)


def _check_experts(
    layers: Mapping[str, Coded], tensors: Mapping[str, Tensor], symmetric: bool
) -> None:
    """Raise where the experts are not all packed alike; transformers joins them while loading."""
    experts = [
        name
        for name, tensor in tensors.items()
        if EXPERT.search(name) and name.endswith(WEIGHT) and len(tensor.shape) == 2
    ]
    if not experts:
        return
    way_out = 'Quantize all experts alike, with zero_point="symmetric"'
    schemes: dict[Scheme, list[str]] = defaultdict(list)
    for name in experts:
        if name in layers:
            schemes[scheme_of(layers[name])].append(name)
    if kept := [name for name in experts if name not in layers]:
        found = f"these are not in the results: {_some(kept)}"
        way_out = (
            "Quantize all of them alike; where their rows or columns are no whole blocks or "
            "groups, take a smaller group_size, or fp8 by row (FP8_DYNAMIC)"
        )
    elif len(schemes) > 1:
        found = f"the results have {_listed(schemes)}"
    elif not symmetric:
        found = "the zero-points of the results are not symmetric"
        way_out = 'Take zero_point="symmetric"; in place of the scheme W4A16_ASYM, W4A16'
    else:
        return
    raise ValueError(
        "transformers loads experts only if all are packed, with the same bit_width and "
        f"group_size and symmetric zero-points; {found}. {way_out}"
    )


def _listed(schemes: Mapping[Scheme, list[str]]) -> str:
    found = sorted(schemes.items(), key=lambda item: item[0].order)
    return "; ".join(f"{scheme} ({_some(names)})" for scheme, names in found)


def _some(names: list[str]) -> str:
    return first_few([quoted(name) for name in sorted(names)])


def _targets(modules: Iterable[str], prefixed: Prefixed, is_only: bool) -> list[str]:
    """Return what a group is for: all linear layers, where its scheme is the only one.

    Heads are named then, too: vLLM has a class of its own for them, which "Linear" does not match.
    """
    if not is_only:
        return _expressions(patterns(modules, prefixed))
    outside = [module for module in modules if not _IN_BLOCK.search(module)]
    return ["Linear", *_expressions(patterns(outside, prefixed))]


def _ignored(layers: Iterable[str], tensors: Mapping[str, Tensor], model_type: object) -> list[str]:
    """Return all modules that could be linear layers and are not packed."""
    exact = unpacked(layers, tensors, model_type)
    return exact + _expressions(unpacked_patterns(exact, tensors))


def _expressions(found: Iterable[str]) -> list[str]:
    """Mark regular expressions as compressed-tensors wants it."""
    return [f"re:{each}" for each in found]
