"""The folder of a Hugging Face model as the tensors and keys that llama.cpp loads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from pyarrowquant.llama_cpp.metadata import Metadata
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.safetensors import ShardedModel, stored_in
from pyarrowquant.reading.shards import Shard
from pyarrowquant.reading.stored import Stored
from pyarrowquant.reading.tensors import Tensor

# Says in a file that the model was rescaled.
RESCALED_KEY = "pyarrowquant.rescaled"


class FolderModel(ShardedModel):
    """A model of safetensors, whose tensors have llama.cpp's names, rows and dtypes.

    `convert_folder` makes it.

    Parameters
    ----------
    model : ShardedModel
        What the folder has.
    folder : Location
    shards : list of Shard
        Its files, with the tensors that are made of theirs.
    header : Metadata
        The keys of the GGUF file that is to be made.
    names : sequence of str
        The files that those are taken from, where they are there.
    originals : dict of str to tuple of str
        What the folder calls the tensors that others are made of.
    unused : dict of str to str
        Tensors of the folder that llama.cpp does without, with the reasons.
    left : sequence of Tensor
        The same tensors.
    """

    def __init__(
        self,
        model: ShardedModel,
        folder: Location,
        shards: list[Shard],
        header: Metadata,
        names: Sequence[str],
        originals: dict[str, tuple[str, ...]],
        unused: dict[str, str],
        left: Sequence[Tensor],
    ) -> None:
        super().__init__(model.location, shards)
        self.header = header
        self.originals = originals
        self.unused = unused
        self._folder = folder
        self._names = names
        self._left = left

    @cached_property
    def folder(self) -> Location | None:
        return self._folder

    @property
    def all_tensors(self) -> Sequence[Tensor]:
        return [*self.tensors, *self._left]

    def is_read(self, tensor: Tensor) -> bool:
        return tensor.name not in self.unused

    def also_called(self, tensor: Tensor) -> Sequence[str]:
        return self.originals.get(tensor.name, ())

    def obstacle(self, tensor: Tensor) -> str | None:
        return self.unused.get(tensor.name) or super().obstacle(tensor)

    @property
    def stored(self) -> Sequence[Stored]:
        """The tensors, in their order; those that are made lie in no file."""
        return stored_in(self.shards)

    @property
    def said_in(self) -> Sequence[Location]:
        files = (self._folder.within(name) for name in self._names)
        return [file for file in files if file.exists()]
