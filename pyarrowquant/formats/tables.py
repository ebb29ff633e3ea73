"""Results as they are, in files of Parquet and Arrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from pyarrowquant._core.encodings import ENCODING_NAMES
from pyarrowquant._core.new_file import new_file
from pyarrowquant._core.settings import Settings
from pyarrowquant.formats._format import Format
from pyarrowquant.formats._outputs import Outputs
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.safetensors import ShardedModel
from pyarrowquant.reading.table_files import TABLES
from pyarrowquant.reading.tensors import Tensor
from pyarrowquant.recipes.bits import table_bits
from pyarrowquant.recipes.planned import PlannedLayer, PlannedLayout
from pyarrowquant.recipes.schemes import SCHEMES


class TableFormat(Format):
    """A table, or a folder of tables, one for each file of the source."""

    encodings = ENCODING_NAMES
    mixes = tuple(SCHEMES)

    def is_folder(self, destination: Path) -> bool:
        return destination.suffix.lower() not in TABLES

    def keeps(self, tensor: Tensor, model: Model) -> bool:
        return False

    def stored_bits(self, shape: Sequence[int], settings: Settings) -> int:
        """Return the bits of tables, in which all but codes is float32."""
        return table_bits(shape, settings)

    def takes_shape(self, layer: PlannedLayer) -> bool:
        return True

    def check_layouts(
        self, layers: Sequence[PlannedLayout], model: Model, scale_dtype: str
    ) -> None:
        """Hold everything."""

    def check_results(self, results: pa.Table, model: Model, scale_dtype: str) -> None:
        """Hold everything."""

    def file_names(self, model: Model) -> Iterable[str]:
        shards = model.shards if isinstance(model, ShardedModel) else []
        locations = [shard.location for shard in shards] or [model.location]
        return [f"{Path(location.name).stem}.{self.name}" for location in locations]

    def write(
        self,
        results: pa.Table,
        model: Model,
        destination: Path,
        settings: Settings,
        folder: bool,
    ) -> None:
        if folder:
            _write_shards(results, model, destination, self.name)
        else:
            write_batches(results.to_reader(), destination, self.name, overwrite=False)


class Parquet(TableFormat):
    """Files of Parquet."""

    name = "parquet"


class Arrow(TableFormat):
    """Files of Arrow's IPC format."""

    name = "arrow"


def _write_shards(results: pa.Table, model: Model, folder: Path, kind: str) -> None:
    """Write a file for each file of the source, named like it."""
    location = model.location
    shards = model.shards if isinstance(model, ShardedModel) else []
    stems = {
        tensor.name: Path(shard.location.name).stem for shard in shards for tensor in shard.tensors
    }

    def stem(batch: pa.RecordBatch) -> str:
        return stems.get(batch["layer_name"][0].as_py(), Path(location.name).stem)

    folder.mkdir()
    batches = (batch for batch in results.to_batches() if batch.num_rows)
    for name, group in groupby(batches, stem):
        reader = pa.RecordBatchReader.from_batches(results.schema, group)
        write_batches(reader, folder / f"{name}.{kind}", kind, overwrite=False)


def write_batches(reader: pa.RecordBatchReader, path: Path, kind: str, overwrite: bool) -> None:
    """Write batches as they come."""
    with (
        Outputs([path], overwrite) as outputs,
        _writer(outputs.temporary(path), reader.schema, kind) as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)


@contextmanager
def _writer(path: Path, schema: pa.Schema, kind: str) -> Iterator[Any]:
    if kind == "parquet":
        import pyarrow.parquet as pq  # which takes longer than most results

        # codes and scales look random: compressing them takes time and gains little
        with (
            new_file(path) as sink,
            pq.ParquetWriter(
                sink,
                schema,
                compression="none",
                use_dictionary=False,
                write_statistics=["layer_name"],
            ) as writer,
        ):
            yield writer
    else:
        with new_file(path) as sink, pa.ipc.new_file(sink, schema) as writer:
            yield writer
