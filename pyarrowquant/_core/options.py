"""What Go is told about a call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pyarrowquant._core import arguments
from pyarrowquant._core.encodings import INTEGER
from pyarrowquant._core.settings import Settings, said_settings
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
    layer_scales : sequence of float
        The least scale of each layer whose encoding has such, as of NVFP4; 0 for its own.
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
    unit_layer_scales: bool = False
    type_names: tuple[tuple[str, str], ...] = ()
    choices: Sequence[Settings] = ()
    rows: Sequence[int] = ()
    layer_scales: Sequence[float] = ()

    def encoded(self) -> bytes:
        """Return them as Go reads them."""
        said = {**vars(self), **vars(self.settings), "version": __version__}
        del said["settings"]
        said["type_names"] = dict(self.type_names)
        said["choices"] = [vars(settings) for settings in self.choices]
        return json.dumps(said).encode()


def quantize_options(
    *,
    bit_width: int | None = None,
    continue_on_error: bool = False,
    group_size: int | str | None = None,
    method: str = "rtn",
    zero_point: str | None = None,
    scale_dtype: str | None = None,
    encoding: str = INTEGER,
    metrics: bool = False,
    sort: bool = True,
    threads: int | None = None,
) -> Options:
    """Return the options of a caller's arguments, the types of which are checked.

    None is what `Settings` has, or what the encoding fixes.
    """
    workers, kernel = arguments.thread_count(threads), arguments.kernel()
    given = (
        bit_width,
        continue_on_error,
        group_size,
        method,
        zero_point,
        scale_dtype,
        encoding,
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
    bit_width: int | None,
    continue_on_error: bool,
    group_size: int | str | None,
    method: str,
    zero_point: str | None,
    scale_dtype: str | None,
    encoding: str,
    metrics: bool,
    sort: bool,
    threads: int,
    kernel: str,
) -> Options:
    said = said_settings(
        bit_width,
        group_size,
        arguments.text("method", method),
        zero_point,
        scale_dtype,
        arguments.text("encoding", encoding),
    )
    return Options(
        settings=Settings().with_overrides(said),
        continue_on_error=arguments.boolean("continue_on_error", continue_on_error),
        metrics=arguments.boolean("metrics", metrics),
        sort=arguments.boolean("sort", sort),
        threads=threads,
        kernel=kernel,
    )
