"""All formats that models are converted to."""

from __future__ import annotations

from pyarrowquant.formats._format import Format
from pyarrowquant.formats.bitsandbytes import Bitsandbytes
from pyarrowquant.formats.compressed_tensors import CompressedTensors
from pyarrowquant.formats.gguf import Gguf
from pyarrowquant.formats.mlx import Mlx
from pyarrowquant.formats.onnx import Onnx
from pyarrowquant.formats.tables import TableFormat

FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        TableFormat("parquet"),
        TableFormat("arrow"),
        CompressedTensors(),
        Bitsandbytes(),
        Mlx(),
        Gguf(),
        Onnx(),
    )
}
SUFFIXES = {suffix: each.name for each in FORMATS.values() for suffix in each.suffixes}
