"""A model: its files, each opened once, its tensors, and its weights as batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import pyarrow as pa

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.config import CONFIG, quantization_in, read_config
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.tensors import (
    FLOATS,
    SCHEMA,
    CodedTensor,
    Decode,
    Tensor,
    UndecodableTensor,
    is_damaged,
)

BATCH_BYTES = 128 * 2**20
OF_CODES = ("F8_", "Q", "IQ", "TQ", "MXFP", "NVFP")  # how dtypes begin that are no numbers


class Model(ABC):
    """A source of weights, whose headers have been read.

    Parameters
    ----------
    location : Location
        What `open_model` was given.
    """

    schema = SCHEMA

    def __init__(self, location: Location) -> None:
        self.location = location

    @property
    @abstractmethod
    def tensors(self) -> Sequence[Tensor] | None:
        """The tensors that batches may have; None for files that say them with their data."""

    @property
    def all_tensors(self) -> Sequence[Tensor]:
        """All tensors, of any dtype, also those that no batch has."""
        return self.tensors or ()

    def obstacle(self, tensor: Tensor) -> str | None:
        """Say what keeps tensors like this one from being weights of batches, or None."""
        if isinstance(tensor, UndecodableTensor):
            return f"of dtype {tensor.dtype}: {tensor.problem}"
        return None if tensor.dtype in FLOATS else f"of dtype {tensor.dtype}"

    def can_quantize(self, tensor: Tensor) -> bool:
        """Whether a tensor is one of the weights that batches have."""
        return self.obstacle(tensor) is None

    def is_read(self, tensor: Tensor) -> bool:
        """Whether batches have a tensor, if not only floats are asked for."""
        return True

    def also_called(self, tensor: Tensor) -> Sequence[str]:
        """Return other names that users may know a tensor by."""
        return ()

    @property
    def files(self) -> Sequence[Location]:
        """The files that weights are read from."""
        return [self.location]

    @property
    def said_in(self) -> Sequence[Location]:
        """Other files that decide about the bytes of an output."""
        return []

    @property
    def folder(self) -> Location | None:
        """The folder of a Hugging Face model, if this is one, or its index."""
        return None

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """What config.json of the folder says; None without one."""
        return None if self.folder is None else read_config(self.folder.within(CONFIG))

    @cached_property
    def weights_dtype(self) -> str | None:
        """The dtype that most bytes of float tensors have in the files, as in safetensors."""
        counts: Counter[str] = Counter()
        for tensor in self.all_tensors:
            if self.can_quantize(tensor) and not isinstance(tensor, CodedTensor):
                counts[tensor.dtype] += tensor.end - tensor.begin
        return counts.most_common(1)[0][0] if counts else None

    @abstractmethod
    def batches(self, batch_bytes: int, only_floats: bool, skip: int) -> Iterator[pa.RecordBatch]:
        """Return the weights, without so many batches at the beginning.

        What makes reading impossible is raised by the call, not by the first batch.
        """

    def layer_readers(self) -> Iterator[tuple[str | None, Callable[[], pa.RecordBatch]]]:
        """Give the name of each layer, and what reads it, as a row of its own.

        Of what is decoded or mapped, nothing stays in memory that is not read.
        """
        for batch in self.reader():
            for row, name in enumerate(batch["layer_name"].to_pylist()):
                yield name, partial(batch.slice, row, 1)

    def check_names(self, need_names: bool) -> None:
        """Raise where layers have the same name, as rows of tables may.

        Parameters
        ----------
        need_names : bool
            Whether a layer without a name is an error, too.
        """

    def decoded_by(self, decode: Decode) -> Model:
        """Return the model with batches of layers that are decoded as `decode` makes them.

        Some kinds decode nothing, or as they always do.
        """
        return self

    def without(self, names: Collection[str]) -> Model:
        """Return the model without tensors of these names; batches of tables have them still."""
        return self

    def reader(
        self, batch_bytes: int = BATCH_BYTES, only_floats: bool = True, skip: int = 0
    ) -> pa.RecordBatchReader:
        """Return the weights as `read_weights` does, without some batches at the beginning."""
        if only_floats:
            self._refuse_codes()
        batches = self.batches(batch_bytes, only_floats, skip)
        return pa.RecordBatchReader.from_batches(self.schema, batches)

    def refuse_quantized(self) -> None:
        """Raise where the weights are codes already, or config.json says so."""
        self.refuse_damage()
        if key := quantization_in(self.config or {}):
            problems = {
                each.problem
                for each in self.tensors or ()
                if isinstance(each, UndecodableTensor) and not each.serves
            }
            why = "; ".join([f"its {CONFIG} has {key}", *sorted(problems)[:3]])
            raise ValueError(
                f"'{self.location}' is quantized already: {why}. Give the model with float weights"
            )
        self._refuse_codes()

    @cached_property
    def has_unread_codes(self) -> bool:
        """Whether some matrices are codes that reading does not decode."""
        names = {tensor.name for tensor in self.tensors or ()}
        return any(_is_coded(tensor, names) for tensor in self.tensors or ())

    @property
    def damage(self) -> str | None:
        """What keeps codes from being decoded that a file lacks or has wrong, or None."""
        damaged = [tensor for tensor in self.tensors or () if is_damaged(tensor)]
        if not damaged:
            return None
        first, more = damaged[0], len(damaged) - 1
        assert isinstance(first, UndecodableTensor)
        also = f" (and so {more} more)" if more else ""
        return (
            f"{first.damaged_file}: {quoted(first.name)} is quantized already, and cannot be "
            f"decoded{also}: {first.problem}. Fetch the files again, or give the model with "
            "float weights"
        )

    def refuse_damage(self) -> None:
        """Raise where codes could be decoded, but for what a file lacks or has wrong."""
        if damage := self.damage:
            raise ValueError(damage)

    def _refuse_codes(self) -> None:
        """Raise where codes are damaged, or most of the matrices are codes already."""
        self.refuse_damage()
        names = {tensor.name for tensor in self.tensors or ()}
        matrices = [tensor for tensor in self.tensors or () if len(tensor.shape) > 1]
        coded = [tensor for tensor in matrices if _is_coded(tensor, names)]
        if 2 * _size(coded) > _size(matrices):
            dtypes = Counter(tensor.dtype for tensor in coded)
            listed = ", ".join(f"{count} of {dtype}" for dtype, count in dtypes.most_common(4))
            problems = dict.fromkeys(
                tensor.problem for tensor in coded if isinstance(tensor, UndecodableTensor)
            )
            why = "".join(f": {problem}" for problem in list(problems)[:1])
            raise ValueError(
                f"{self.location} is quantized already: of its {len(matrices)} matrices {listed}, "
                f"such as {quoted(coded[0].name)}{why}. Give the model with float "
                "weights (F32, F16 or BF16)"
            )


def _is_coded(tensor: Tensor, names: Collection[str]) -> bool:
    """Whether a matrix has codes that are not decoded: of a type that says so, or with scales."""
    if isinstance(tensor, UndecodableTensor):
        return True
    if tensor.dtype == "I8":
        module = tensor.name.removesuffix(".weight")
        scales = ("_scale", ".scale", ".scales", ".SCB")
        return any(f"{owner}{end}" in names for owner in (tensor.name, module) for end in scales)
    packed = (".weight_packed", ".qweight", "_blocks")  # of compressed-tensors, GPTQ, gpt-oss
    return tensor.dtype.startswith(OF_CODES) or (
        tensor.dtype in ("I32", "U32", "U8") and tensor.name.endswith((*packed, ".weight"))
    )


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.end - tensor.begin for tensor in tensors)
