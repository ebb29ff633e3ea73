"""Which tensors a folder of a known architecture lacks, whatever it is to become."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence

from pyarrowquant._core.quoting import quoted
from pyarrowquant.llama_cpp.architecture import HEAD, Architecture, Named
from pyarrowquant.llama_cpp.class_defaults import family_of
from pyarrowquant.llama_cpp.completeness import all_places, name_in_folder
from pyarrowquant.llama_cpp.hyperparameters import Hyperparameters
from pyarrowquant.llama_cpp.known import architecture_of
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.sizes import Place, Sizes
from pyarrowquant.reading.tensors import Tensor

# Stacks of experts as mlx-lm has them.
_JOINED = re.compile(r"(?P<before>.+)\.switch_mlp\.(?P<matrix>\w+_proj\.(weight|bias))")
_HEAD = "output.weight"
# Which config.json may leave out, of which shapes are not held against it then.
_SIZES = (
    *("hidden_size", "vocab_size", "intermediate_size", "num_attention_heads", "head_dim"),
    *("num_key_value_heads", "n_shared_experts", "moe_intermediate_size"),
    "shared_expert_intermediate_size",
    *("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"),
)
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")  # of which one says it
# Keys by which some layers of a mixture have no experts, and what says that there are none such.
_OF_DENSE_LAYERS: Mapping[str, object] = {
    "mlp_only_layers": [],
    "decoder_sparse_step": 1,
    "moe_layer_freq": 1,
}
# What models of transformers call tensors of no layer, but for encoders.
_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    _HEAD: HEAD,
}


class UnknownModelError(ValueError):
    """Nothing says which tensors a model has."""


def check_none_lacks(
    folder: str, config_path: str, config: Mapping[str, object], tensors: Sequence[Tensor]
) -> None:
    """Raise where a folder lacks a tensor of the model that its config.json says.

    Parameters
    ----------
    folder, config_path : str
        What errors call them.
    config : mapping
    tensors : sequence of Tensor
        Of the folder.

    Raises
    ------
    UnknownModelError
        The architecture is not known, or some tensors have names that are not.
    ValueError
        A tensor is missing, or has another shape than config.json says.
    """
    said = Hyperparameters(config, config_path)
    try:
        architecture = architecture_of(said)
        _check_kind(said, architecture)
        found = _Found(architecture, tensors)
        places, are_sized = _places(architecture, found.is_base)
    except (ImportError, ValueError) as error:
        raise UnknownModelError(str(error)) from None
    for place in places:
        if (name := found.missing(place)) is not None:
            raise ValueError(
                f"'{folder}' has no tensor {quoted(name)}, which is part of the model that its "
                f"config.json says of {architecture.model_class}. Download the folder anew, or "
                "take the config.json that came with the weights"
            )
        if (odd := found.odd_expert(place)) is not None:
            raise ValueError(
                f"'{folder}': {quoted(odd.name)} has shape {list(odd.shape)}, and other experts of "
                f"the block have another, such as {found.named(place)}. Download the folder anew"
            )
        wanted, shape = [size.value for size in place.shape], found.shape(place)
        if are_sized and shape != wanted:
            keys = ", ".join(dict.fromkeys(size.said for size in place.shape))
            raise ValueError(
                f"'{folder}': {found.named(place)} has shape {shape}, and by its config.json "
                f"({keys}) it is {wanted}. Take the config.json that came with the weights"
            )


def _check_kind(said: Hyperparameters, architecture: Architecture) -> None:
    """Raise where a model may be another one than its class says.

    So are those of another model_type, with code of their own, and mixtures with dense layers.
    """
    kind, family = said.get("model_type"), family_of(architecture.model_class).lower()
    if isinstance(kind, str) and not re.sub(r"[_-]", "", kind).startswith(family):
        raise ValueError(f"{said.path}: model_type {quoted(kind)} has another class")
    for key, usual in _OF_DENSE_LAYERS.items():
        if said.get(key) not in (None, usual):
            raise ValueError(f"{said.path}: {key} says that some layers have no experts")


def _places(architecture: Architecture, is_base: bool) -> tuple[list[Place], bool]:
    """List what a model has; say whether sizes are known, too.

    Parameters
    ----------
    architecture : Architecture
    is_base : bool
        Whether names are those of a model without a head, whatever its class is.
    """
    header, are_sized = Metadata(architecture.name), True
    with warnings.catch_warnings():  # of what only llama.cpp lacks
        warnings.simplefilter("ignore")
        try:
            architecture.describe(header)
        except ValueError:
            are_sized = False
    said = architecture.hyperparameters
    are_sized = are_sized and not any(map(said.is_usual, _SIZES))
    are_sized = are_sized and not said.is_usual(*_EXPERTS)
    layers = architecture.hyperparameters.layers
    places = all_places(architecture, Sizes(architecture.hyperparameters, header), layers)
    is_base = is_base or architecture.model_class in architecture.bases
    is_headless = is_base or architecture.is_tied
    return [
        place for place in places if place.needed and not (is_headless and place.name == _HEAD)
    ], are_sized


class _Found:
    """What the tensors of a folder are to a model.

    Attributes
    ----------
    is_base : bool
        Whether names lack what the class with a head puts before those of its base, as in files of
        models that embed texts.
    """

    def __init__(self, architecture: Architecture, tensors: Sequence[Tensor]) -> None:
        self.is_base = any(tensor.name == "embed_tokens.weight" for tensor in tensors)
        self._originals: dict[str, list[str]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._experts: dict[str, set[int]] = {}
        self._odd: dict[str, Tensor] = {}
        for tensor in tensors:
            if architecture.unused(tensor.name) is None:
                for named in _named(architecture, tensor):
                    self._originals.setdefault(named.name, []).append(tensor.name)
                    shape = tensor.shape if named.change is None else named.change.shape
                    usual = self._shapes.setdefault(named.name, shape)
                    if shape != usual and named.expert is not None:
                        self._odd.setdefault(named.name, tensor)
                    if named.expert is not None:
                        self._experts.setdefault(named.name, set()).add(named.expert)

    def missing(self, place: Place) -> str | None:
        """Return what the folder would call the tensor of a place that is not there, or None."""
        if place.name not in self._originals:
            known = name_in_folder(place.name, self._originals)
            return known or _OUTER.get(place.name, place.name)
        if place.name not in self._experts:
            return None
        lacking = set(range(place.shape[0].value)) - self._experts[place.name]
        if not lacking:
            return None
        original = self._originals[place.name][0]
        return re.sub(r"(?<=\.experts\.)\d+(?=\.)", str(min(lacking)), original)

    def odd_expert(self, place: Place) -> Tensor | None:
        """Return an expert of a place whose shape is another than that of the first one."""
        return self._odd.get(place.name)

    def named(self, place: Place) -> str:
        """Return what the folder calls a tensor."""
        return quoted(self._originals[place.name][0])

    def shape(self, place: Place) -> list[int]:
        """Return the shape of a tensor, or of the stack that it is part of."""
        shape, experts = self._shapes[place.name], self._experts.get(place.name)
        return list(shape if experts is None else (len(experts), *shape))


def _named(architecture: Architecture, tensor: Tensor) -> Iterator[Named]:
    """Give what a tensor becomes, also of stacks that mlx-lm has made."""
    joined = _JOINED.fullmatch(tensor.name)
    if joined is None:
        yield from architecture.named(tensor, copied=False)
        return
    original = architecture.original(f"{joined['before']}.experts.{joined['matrix']}")
    yield Named(architecture.target(original))
