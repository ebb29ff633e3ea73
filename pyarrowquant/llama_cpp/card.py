"""What the card of a model says of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pyarrowquant._core.shapes import product
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.reading.gguf import import_gguf
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.tensors import Tensor


def describe_card(folder: Location, metadata: Metadata, tensors: Sequence[Tensor]) -> None:
    """Add name, author, license and the like, as gguf finds them in README.md and config.json."""
    gguf = import_gguf("Writing")
    experts = [tensor for tensor in tensors if len(tensor.shape) == 3]
    of_experts = sum(product(tensor.shape) for tensor in experts)
    others = sum(product(tensor.shape) for tensor in tensors) - of_experts
    count = max((tensor.shape[0] for tensor in experts), default=0)
    of_one = of_experts // count if count else 0
    logging.getLogger("gguf.metadata").setLevel(logging.ERROR)
    path = Path(folder.path)
    said = gguf.Metadata.load(None, path, None, others + of_experts)
    if said.name is None:
        said.name = path.resolve().name
    if said.size_label is None and others + of_experts > 0:
        said.size_label = gguf.size_label(others + of_experts, others, of_one, count)
    metadata.add.add_type(gguf.GGUFType.MODEL)
    said.set_gguf_meta_model(metadata.add)
