"""Tensors of a GGUF file, whose header comes before them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pyarrowquant._core.laying import pieces
from pyarrowquant.formats._gguf_blocks import blocks_of, type_name_of
from pyarrowquant.formats._layers import KeptLayers, Names, Results
from pyarrowquant.formats._spool import Spool


def write_tensors(gguf: Any, writer: Any, layers: Results, kept: KeptLayers, folder: Path) -> None:
    """Write a header, and the tensors, which a folder has room for until it is written."""
    names = Names()
    places: list[tuple[int, int]] = []
    with Spool(folder) as spool:

        def end(name: str, shape: tuple[int, ...], type_of: str, start: int) -> None:
            """Take what was spooled since `start` as a tensor."""
            size = spool.size - start
            places.append((start, size))
            type_ = gguf.GGMLQuantizationType[type_of]
            # float32 stands for: the shape is one of elements
            writer.add_tensor_info(names.add(name), shape or (1,), np.float32, size, type_)

        for layer in layers:
            start = spool.size
            for blocks in pieces(layer, blocks_of(layer)):
                spool.append(blocks)
            end(layer.name, layer.shape, str(type_name_of(layer)), start)
        for layer_kept in kept:
            start = spool.size
            spool.append(layer_kept.data)
            end(layer_kept.name, layer_kept.shape, layer_kept.dtype, start)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for start, size in places:
            writer.write_tensor_data(spool.view(start, size))
