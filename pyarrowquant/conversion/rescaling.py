"""Whether factors are moved between the layers of a model before it is quantized."""

from __future__ import annotations

from pyarrowquant._core.bounds import listed
from pyarrowquant._core.quoting import enumerated, quoted
from pyarrowquant.errors import UsageError
from pyarrowquant.formats._format import Format
from pyarrowquant.formats.registry import FORMATS
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.safetensors import ShardedModel
from pyarrowquant.rescaling.architectures import KNOWN
from pyarrowquant.rescaling.links import Link, links_of
from pyarrowquant.rescaling.view import RescaledModel

RESCALES = ("off", "on", "auto")


def check_choice(rescale: str) -> None:
    """Raise where it is none that `rescaled` knows."""
    if rescale not in RESCALES:
        raise UsageError(f"rescale={rescale!r} must be one of {listed(RESCALES)}")


def rescaled(model: Model, target: Format, rescale: str) -> Model:
    """Return the model with other weights that compute the same, if that is wanted.

    Raises
    ------
    UsageError
        It is wanted of a model or for a format that does not have it.
    """
    if rescale == "off":
        return model
    if isinstance(model, ShardedModel) and target.takes_rescaled and (config := model.config):
        found = links_of(config, model.tensors) or []
        links = [link for link in found if _is_exact(link, model, target)]
        if links:
            return RescaledModel(model, links)
    if rescale == "on":
        formats = enumerated(name for name, each in FORMATS.items() if each.takes_rescaled)
        named = quoted((model.config or {}).get("architectures"))
        raise UsageError(
            f"rescale='on' is for Hugging Face folders to {formats}, with float weights of "
            f"{enumerated(KNOWN)}; '{model.location}' to {target.name} is of {named}. "
            "Leave it out"
        )
    return model


def _is_exact(link: Link, model: ShardedModel, target: Format) -> bool:
    """Whether what a link multiplies is written without rounding it.

    Norms without their 1 are rounded when they are multiplied, to 16 bits more than is harmless.
    """
    norms = {feeder.name for feeder in link.feeders if feeder.adds_one}
    return target.has_float32_norms or all(
        tensor.dtype == "F32" for tensor in model.tensors if tensor.name in norms
    )
