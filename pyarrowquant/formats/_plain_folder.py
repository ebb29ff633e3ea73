"""A Hugging Face folder in which nothing is quantized any more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pyarrowquant.formats._folder_outline import folder_outline
from pyarrowquant.formats._model_folder import ModelFolder
from pyarrowquant.formats._outputs import OutputFolder


def write_plain_folder(
    source: ModelFolder, folder: Path, overwrite: bool, check: Callable[[], object]
) -> None:
    """Write a model with its weights decoded to the dtype that it is loaded with.

    Other tensors, and the other files of the model, stay as they are. config.json says nothing of
    the quantization.

    Parameters
    ----------
    source : ModelFolder
    folder : Path
    overwrite : bool
        Whether a folder of a model may be replaced.
    check : callable
        Comes after the last weights were read.
    """
    outline = folder_outline(source, {}, lambda _: (), source.dtype, None)
    with OutputFolder(
        folder, overwrite, Path(source.location.path), set(source.other_files())
    ) as output:
        outline.write(output.temporary, {})
        check()
