"""Files of weights that are not read, and what makes safetensors of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

_TORCH = (
    "a checkpoint of PyTorch, a pickle, which is not read as it may run code",
    "import torch; from safetensors.torch import save_file",
    "save_file({{k: v.clone() for k, v in torch.load({path!r}, map_location='cpu', "
    "weights_only=True).items()}}, {new!r})",
)
_KERAS = (
    "a file of HDF5, as Keras and TensorFlow write weights",
    "import h5py; from safetensors.numpy import save_file; found = {}",
    "h5py.File({path!r}).visititems(lambda k, v: found.update({{k: v[()]}}) if hasattr(v, 'dtype') "
    "else None); save_file(found, {new!r})",
)
_NUMPY = (
    "an array of numpy without a name",
    "import numpy; from safetensors.numpy import save_file",
    "save_file({{'weight': numpy.load({path!r})}}, {new!r})",
)
_KINDS = {
    ".npy": _NUMPY,
    **dict.fromkeys((".bin", ".pt", ".pth", ".ckpt"), _TORCH),
    **dict.fromkeys((".h5", ".hdf5"), _KERAS),
}
_LITE = ".tflite"


def foreign_problem(files: Sequence[str]) -> str | None:
    """Say what files are, if they are weights that are not read, and how to convert them.

    Parameters
    ----------
    files : sequence of str
        The paths of the files of a model.
    """
    suffixes = {path: PurePosixPath(path).suffix.lower() for path in files}
    for path, suffix in suffixes.items():
        if suffix in _KINDS and PurePosixPath(path).name != "training_args.bin":
            what, first, second = _KINDS[suffix]
            count = sum(_KINDS.get(other) == _KINDS[suffix] for other in suffixes.values())
            each = f", so each of {count} files" if count > 1 else ""
            new = str(PurePosixPath(path).with_suffix(".safetensors"))
            return (
                f"'{path}' is {what}. Convert it to safetensors with Python{each}:\n"
                f"{first}\n{second.format(path=path, new=new)}"
            )
    for path, suffix in suffixes.items():
        if suffix == _LITE:
            return (
                f"'{path}' is a model of TensorFlow Lite, whose weights are laid out for it. Give "
                "the model that it was made from"
            )
    return None
