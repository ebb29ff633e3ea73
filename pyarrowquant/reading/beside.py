"""What lies beside codes: their scales, by any of their names, and whether they need one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.coded_layer import ProblemError, missing
from pyarrowquant.reading.numbers import FLOAT8
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import Tensor

WEIGHT = "weight"
BITS = (2, 3, 4, 5, 6, 8)
# After a weight's name, or in the place of its end "weight".
SCALES = ("_scale_inv", "_scale")
SCALES_BESIDE = ("scale_weight", "qscale_weight", "scale")
# Methods of config.json by which weights of 8 bits have scales, and what these are called.
OF_FLOATS = {
    "fp8": "_scale_inv",
    **dict.fromkeys(("fbgemm_fp8", "compressed-tensors", "modelopt"), "_scale"),
}
OF_INTEGERS = {"compressed-tensors": "_scale"}
NUMBER = re.compile(r"\d+")
_SCALE = re.compile(r"scal", re.IGNORECASE)  # also "scaling_factor"
_OF_OTHERS = re.compile(r"input|output|(^|_)act|^[qkv]_|^kv_|shift", re.IGNORECASE)


class Beside:
    """Finds what codes are decoded with among all tensors of a model.

    Parameters
    ----------
    stored : mapping of str to Stored
    """

    def __init__(self, stored: Mapping[str, Stored]) -> None:
        self._stored = stored

    @property
    def stored(self) -> Mapping[str, Stored]:
        """All tensors of the model."""
        return self._stored

    def find(self, name: str) -> Stored | None:
        """Return a tensor, or None."""
        return self._stored.get(name)

    def part(self, name: str) -> Stored:
        """Return a tensor; that it is missing is an error."""
        if name not in self._stored:
            raise missing(name)
        return self._stored[name]

    def scale(self, tensor: Tensor) -> Stored | None:
        """Find the scale of a weight of 8 bits, by any of its names."""
        stem = tensor.name.removesuffix(WEIGHT)
        names = [tensor.name + end for end in SCALES]
        if stem != tensor.name:
            names += [stem + end for end in SCALES_BESIDE]
        return next((self._stored[name] for name in names if name in self._stored), None)

    def _refuse_unknown_scale(self, tensor: Tensor) -> None:
        """Raise where something beside a weight may be its scale, by a name that is not known."""
        found = self._scales_of_modules.get(tensor.name.rpartition(".")[0], tensor.name)
        if found != tensor.name:
            raise ProblemError(f"{tensor.dtype} with {quoted(found)} is not decoded")

    @cached_property
    def _scales_of_modules(self) -> dict[str, str]:
        """The first scale that is not known to be of something else, by the names of modules."""
        found: dict[str, str] = {}
        for name in self._stored:
            module, dot, end = name.rpartition(".")
            if dot and _SCALE.search(end) and not _OF_OTHERS.search(end):
                found.setdefault(module, name)
        return found

    def check_needs_none(
        self, tensor: Tensor, method: str | None, methods: Mapping[str, str]
    ) -> None:
        """Raise where config.json says that a weight has a scale, or others like it have one.

        Parameters
        ----------
        tensor : Tensor
        method : str or None
            What config.json says.
        methods : mapping of str to str
            Those by which such weights have one, with what it is called.
        """
        end = None if method is None else methods.get(method)
        other = self._like_scales.get(NUMBER.sub("0", tensor.name))
        if other is None and end is None:
            self._refuse_unknown_scale(tensor)
            return
        for scales in SCALES:  # of FP8 themselves, without the codes
            if tensor.name.endswith(scales):
                raise missing(tensor.name.removesuffix(scales))
        weight, scale = other or next(iter(self._like_scales.values()), ("", end))
        raise missing(f"{tensor.name.removesuffix(weight)}{scale}")

    @cached_property
    def _like_scales(self) -> dict[str, tuple[str, str]]:
        """How the names of weights of 8 bits end, and those of their scales instead.

        Weights are alike if their names are but for numbers, which are those of layers.
        """
        ends = {}
        for name, one in self._stored.items():
            if one.tensor.dtype in (*FLOAT8, "I8") and (scale := self.scale(one.tensor)):
                is_after = scale.tensor.name.startswith(name)
                same = len(name if is_after else name.removesuffix(WEIGHT))
                ends[NUMBER.sub("0", name)] = name[same:], scale.tensor.name[same:]
        return ends
