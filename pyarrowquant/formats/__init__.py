"""Files that inference engines read, written from results of `quantize_batch_arrow`.

Codes are never chosen anew: packed bytes are put into the order of each format, and no more.
"""

from pyarrowquant.formats.bitsandbytes import write_bitsandbytes
from pyarrowquant.formats.compressed_tensors import write_compressed_tensors
from pyarrowquant.formats.gguf import write_gguf
from pyarrowquant.formats.mlx import write_mlx
from pyarrowquant.formats.onnx import write_onnx

__all__ = [
    "write_bitsandbytes",
    "write_compressed_tensors",
    "write_gguf",
    "write_mlx",
    "write_onnx",
]
