"""What Go is told about a call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pyarrowquant._core import arguments
from pyarrowquant._core.settings import Settings
from pyarrowquant._version import __version__


@dataclass(frozen=True)
class Options:
    """Go's quant.Options, which see.

    Attributes
    ----------
    settings : Settings
        Of all layers, where there are no `choices`.
    choices : sequence of Settings
        Row i has choices[rows[i]].
    rows : sequence of int
    type_names : tuple of (str, str)
        Names of columns, and of their types as users know them.
    """

    settings: Settings
    continue_on_error: bool = False
    metrics: bool = False
    sort: bool = True
    threads: int = 1
    kernel: str = ""
    measure_only: bool = False
    first_row: int = 0
    type_names: tuple[tuple[str, str], ...] = ()
    choices: Sequence[Settings] = ()
    rows: Sequence[int] = ()

    def encoded(self) -> bytes:
        """Return them as Go reads them."""
        said = {**vars(self), **vars(self.settings), "version": __version__}
        del said["settings"]
        said["type_names"] = dict(self.type_names)
        said["choices"] = [vars(settings) for settings in self.choices]
        return json.dumps(said).encode()


def quantize_options(
    *,
    bit_width: int = 4,
    continue_on_error: bool = False,
    group_size: int = 128,
    method: str = "rtn",
    zero_point: str = "integer",
    scale_dtype: str = "float32",
    metrics: bool = False,
    sort: bool = True,
    threads: int | None = None,
) -> Options:
    """Return the options of a caller's arguments, the types of which are checked."""
    workers, kernel = arguments.thread_count(threads), arguments.kernel()
    given = (
        bit_width,
        continue_on_error,
        group_size,
        method,
        zero_point,
        scale_dtype,
        metrics,
        sort,
        workers,
        kernel,
    )
    try:
        return _checked(*given)
    except TypeError:  # some cannot be looked up
        return _checked.__wrapped__(*given)


@lru_cache(maxsize=64, typed=True)  # since small calls are many
def _checked(
    bit_width: int,
    continue_on_error: bool,
    group_size: int,
    method: str,
    zero_point: str,
    scale_dtype: str,
    metrics: bool,
    sort: bool,
    threads: int,
    kernel: str,
) -> Options:
    bit_width = arguments.integer("bit_width", bit_width)
    continue_on_error = arguments.boolean("continue_on_error", continue_on_error)
    return Options(
        settings=Settings(
            bit_width=bit_width,
            group_size=arguments.integer("group_size", group_size),
            method=arguments.text("method", method),
            zero_point=arguments.text("zero_point", zero_point),
            scale_dtype=arguments.text("scale_dtype", scale_dtype),
        ),
        continue_on_error=continue_on_error,
        metrics=arguments.boolean("metrics", metrics),
        sort=arguments.boolean("sort", sort),
        threads=threads,
        kernel=kernel,
    )
