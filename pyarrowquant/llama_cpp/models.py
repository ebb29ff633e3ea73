"""Models that have llama.cpp's names of tensors, and its keys."""

from __future__ import annotations

from pyarrowquant.llama_cpp.folder import FolderModel
from pyarrowquant.reading.gguf import GgufModel

LlamaCppModel = GgufModel | FolderModel
