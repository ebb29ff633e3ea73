"""The folder that MLX loads, written of results by themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pyarrowquant._core import arguments
from pyarrowquant._core.arguments import wrong_type
from pyarrowquant._core.placing import refuse_irreplaceable
from pyarrowquant.formats._by_name import LayersByName
from pyarrowquant.formats._layers import KEPT_DTYPES, KeptLayers, Results
from pyarrowquant.formats._mlx_file import write_file
from pyarrowquant.formats._mlx_layers import (
    ENCODINGS,
    HOLDS,
    SAFETENSORS_DTYPES,
    problem_of,
)
from pyarrowquant.formats._outputs import OutputFolder, Outputs, clear_abandoned
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.safetensors_header import BITS

MODEL = "model.safetensors"
# Of safetensors all whose elements are whole bytes.
OTHER_DTYPES = {
    name: bits // 8 for name, bits in BITS.items() if bits % 8 == 0 and name not in KEPT_DTYPES
}


def write_folder(
    results: Any,
    folder: Path,
    kept: Any,
    config: Mapping[str, Any] | None,
    dtype: str,
    overwrite: bool = False,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write as `write_mlx` does, with metadata in the header."""
    safe_open = import_safe_open()
    if arguments.text("dtype", dtype) not in SAFETENSORS_DTYPES:
        raise ValueError(f"Invalid dtype: {dtype!r}. Must be 'float16', 'bfloat16' or 'float32'")
    if config is not None and not isinstance(config, Mapping):
        raise wrong_type("config must be a mapping", config)
    layers = layers_of(results, dtype)
    kept_layers = KeptLayers(kept, others=OTHER_DTYPES)
    config = {} if config is None else dict(config)
    json.dumps(config)  # what JSON does not know is found here, not at the end
    files = [folder / MODEL, folder / CONFIG]
    clear_abandoned(Path(os.path.realpath(files[-1])))
    for other in sorted(folder.glob("model*.safetensors")):
        if other != files[0]:
            raise FileExistsError(f"'{other}' exists. MLX would load it too: remove it")

    def write(model: Path, configuration: Path) -> None:
        with LayersByName(layers, model.parent) as by_name:
            said = write_file(by_name, kept_layers, model, dtype, config, metadata)
        with safe_open(model, "np"):
            pass  # the header is what safetensors takes
        write_config(configuration, {**config, **said})

    if _is_replaced_whole(folder, overwrite):
        with OutputFolder(folder, overwrite) as output:
            write(output.temporary / MODEL, output.temporary / CONFIG)
            if not _is_replaced_whole(folder, overwrite):
                raise FileExistsError(f"'{folder}' has got files meanwhile. Write into it again")
    else:
        with Outputs(files, overwrite) as outputs:
            write(*map(outputs.temporary, files))


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8", newline="\n")


def _is_replaced_whole(folder: Path, overwrite: bool) -> bool:
    """Whether a folder is new, or may get its name as a whole as it has nothing else."""
    real = Path(os.path.realpath(folder))
    if not real.is_dir():
        return True
    if os.path.samefile(real, os.curdir):
        return False
    found = set(os.listdir(real))
    if found - {MODEL, CONFIG} or (found and not overwrite):
        return False
    try:
        refuse_irreplaceable(real)
    except ValueError:  # a mount point, in which files are replaced
        return False
    return os.access(real.parent, os.W_OK)


def import_safe_open() -> Any:
    try:
        from safetensors import safe_open
    except ImportError:
        raise ImportError(
            "Writing for MLX needs safetensors: pip install 'pyarrowquant[mlx]'"
        ) from None
    return safe_open


def layers_of(results: Any, dtype: str) -> Results:
    """Open results; a layer that MLX cannot hold is an error."""
    return Results(results, "MLX", lambda layer: problem_of(layer, dtype), HOLDS, ENCODINGS)
