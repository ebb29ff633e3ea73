"""Names of the recipes that come with the package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pyarrowquant._core import arguments
from pyarrowquant._core.quoting import meant, quoted
from pyarrowquant.errors import UsageError
from pyarrowquant.recipes.mixes import MIXES, mix_named
from pyarrowquant.recipes.presets import PRESETS, PROFILES
from pyarrowquant.recipes.rule import Rule
from pyarrowquant.recipes.schemes import ABOUT_SCHEMES, NEXT_SCHEMES, SCHEMES
from pyarrowquant.recipes.text import SUFFIXES

# What each name means, in a line.
ABOUT = {
    "text": "preset for language models, encoders and Whisper: without embeddings, norms, heads",
    "diffusion": "preset for diffusers: the modulation of adaptive norms gets 8 bits",
    "vision": "preset for image encoders: without patch embeddings, norms, heads",
    "edge": "profile of 2 bits in groups of 256",
    "local": "profile of 4 bits in groups of 128",
    "cloud": "profile of 8 bits in groups of 64",
    "all": "leaves nothing out that the format can quantize",
    **ABOUT_SCHEMES,
    **MIXES,
}


class Named(NamedTuple):
    """What a name stands for: the parts of a `Recipe`."""

    rules: tuple[Rule, ...] = ()
    default: Mapping[str, object] | None = None
    name: str | None = None
    expected: None = None
    extends: str | None = None


def named(name: str) -> Named:
    """Return what a name stands for.

    "all" leaves nothing out; others are those of presets, of profiles, and of both: "text-local",
    of schemes of compressed-tensors, and of llama.cpp's mixes.
    """
    if not is_named(name):
        raise unknown(name)
    if (extended := extended_name(name)) is not None:
        return Named(name=extended, extends=extended)
    if name == "all":
        return Named(name=name)
    if name in PROFILES:
        return Named(default=PROFILES[name], name=name)
    preset, _, profile = name.partition("-")
    return Named(PRESETS[preset], PROFILES[profile] if profile else None, name)


def checked_extended(name: object) -> str:
    """Return what a recipe extends, which needs no recipe of its own."""
    extended = extended_name(arguments.text("Recipe: extends", name))
    if extended is None:
        raise ValueError(
            f"Recipe: extends {quoted(name)} is no scheme of compressed-tensors, and no mix of "
            "llama.cpp. Presets and profiles are extended by Recipe.from_dict()"
        )
    return extended


def extended_name(name: str) -> str | None:
    """Return the name of a mix or scheme as it is written; None if it is none.

    What these say of layers follows the rules of a recipe that extends them.
    """
    upper = name.upper()
    return upper if upper in SCHEMES else mix_named(name)


def is_named(said: object) -> bool:
    """Whether a recipe comes with the package."""
    if not isinstance(said, (str, os.PathLike)):
        return False
    text = os.fspath(said)
    preset, _, profile = text.partition("-")
    return (
        text in ("all", *PROFILES)
        or extended_name(text) is not None
        or (preset in PRESETS and (profile in PROFILES or text == preset))
    )


def is_profile(said: object) -> bool:
    """Whether a recipe is a profile, which says settings, and not what is left out."""
    return isinstance(said, str) and said in PROFILES


def file_of(said: object) -> list[Path]:
    """Return the file that a recipe is read from, if it is."""
    if not isinstance(said, (str, os.PathLike)) or not Path(said).is_file():
        return []
    return [Path(said)]


def unknown(name: str) -> ValueError:
    """Make the error of a name that is none of these, nor a file; a missing file is no usage."""
    kind = ValueError if name.endswith(SUFFIXES) else UsageError
    both = [f"{preset}-{profile}" for preset in PRESETS for profile in PROFILES]
    if (scheme := name.upper()) in NEXT_SCHEMES:
        return UsageError(
            f"Recipe '{name}': the scheme {scheme} of compressed-tensors is none that is written. "
            f"Take {NEXT_SCHEMES[scheme]}"
        )
    hint = meant(name, [*ABOUT, *both]) or meant(name.upper(), [*SCHEMES, *MIXES])
    others = ", ".join(each for each in ABOUT if each not in MIXES)
    return kind(
        f"Recipe {quoted(name)} is no file, and none of {others}, a preset and a profile like "
        f"text-local, or a mix of llama.cpp like Q4_K_M{'.' if hint else ''}{hint}"
    )
