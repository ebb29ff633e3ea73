"""What the card of a model says of it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from pyarrowquant._core.quoting import quoted
from pyarrowquant._core.shapes import product
from pyarrowquant._core.system_errors import naming_file
from pyarrowquant.errors import users_level
from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.llama_cpp.quiet import quiet
from pyarrowquant.reading.gguf import import_gguf
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.tensors import Tensor

# In the name of a model llama.cpp takes these for a Phi 3, and ends where it lacks its tokens.
_PHI_3 = re.compile("phi(-?)(?=3)", re.IGNORECASE)
_TOKENS_OF_PHI_3 = frozenset({"<s>", "</s>", "<unk>", "<|endoftext|>"})


def describe_card(folder: Location, metadata: Metadata, tensors: Sequence[Tensor]) -> None:
    """Add name, author, license and the like, as gguf finds them in README.md and config.json."""
    gguf = import_gguf("Writing")
    experts = [tensor for tensor in tensors if len(tensor.shape) == 3]
    of_experts = sum(product(tensor.shape) for tensor in experts)
    others = sum(product(tensor.shape) for tensor in tensors) - of_experts
    count = max((tensor.shape[0] for tensor in experts), default=0)
    of_one = of_experts // count if count else 0
    path = Path(folder.path)
    try:
        with naming_file(path), quiet():
            said = gguf.Metadata.load(None, path, None, others + of_experts)
    except OSError:  # what a disk refuses now, it may give to the next run
        raise
    except Exception as error:  # of YAML, and of what a card may have in the place of a text
        warnings.warn(
            f"'{path}': gguf cannot read the card of the model in README.md, config.json and "
            "generation_config.json, so that the name of the folder is all that is known of it: "
            f"{quoted(str(error))}",
            UserWarning,
            stacklevel=users_level(),
        )
        said = gguf.Metadata()
    if not (said.name or "").strip(" -_./"):
        said.name = path.resolve().name
    if said.size_label is None and others + of_experts > 0:
        said.size_label = gguf.size_label(others + of_experts, others, of_one, count)
    metadata.add.add_type(gguf.GGUFType.MODEL)
    said.set_gguf_meta_model(metadata.add)
    metadata.drop_unwritable("general.")


def rename_unlike_phi_3(metadata: Metadata) -> None:
    """Part what llama.cpp looks for in the names of models that have other tokens."""
    name = metadata.value("general.name")
    if not isinstance(name, str):
        return
    tokens = metadata.value("tokenizer.ggml.tokens") or ()
    texts = {text.decode() if isinstance(text, bytes) else text for text in tokens}
    if metadata.architecture != "phi3" or not texts >= _TOKENS_OF_PHI_3:
        metadata.replace("general.name", _PHI_3.sub(lambda found: f"{found[0][:3]} ", name))
