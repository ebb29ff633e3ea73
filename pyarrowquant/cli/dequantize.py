"""pyarrowquant dequantize: a quantized model or table in, decoded weights out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import click
import numpy as np
import pyarrow as pa

from pyarrowquant import dequantize_batch_arrow
from pyarrowquant._core.quoting import first_names, in_line, printable
from pyarrowquant.cli._originals import raw_floats
from pyarrowquant.cli._read_files import ReadFiles
from pyarrowquant.cli._show import counted, json_option, quoted_path, show_json, size_text
from pyarrowquant.conversion.destination import check_destination, format_of
from pyarrowquant.conversion.heads import check_head
from pyarrowquant.conversion.lacking_tensors import check_tensors
from pyarrowquant.conversion.result_files import check_rows, naming, open_results, results_in
from pyarrowquant.conversion.source import is_result
from pyarrowquant.formats._gguf_floats import write_floats
from pyarrowquant.formats._mlx_stacks import joined_by_mlx, refuse_joined
from pyarrowquant.formats._model_class import check_class
from pyarrowquant.formats._model_folder import ModelFolder
from pyarrowquant.formats._model_type import warn_of_no_model_type
from pyarrowquant.formats._outputs import Outputs
from pyarrowquant.formats._plain_folder import write_plain_folder
from pyarrowquant.formats._safetensors import Entry, write_tensors
from pyarrowquant.formats.registry import FORMATS
from pyarrowquant.formats.tables import write_batches
from pyarrowquant.llama_cpp.folder import FolderModel
from pyarrowquant.llama_cpp.models import LlamaCppModel
from pyarrowquant.reading.config import CONFIG
from pyarrowquant.reading.finite import with_finite_codes
from pyarrowquant.reading.model import Model
from pyarrowquant.reading.models import open_source
from pyarrowquant.reading.table_files import TABLES
from pyarrowquant.reading.tensors import CodedTensor, UndecodableTensor
from pyarrowquant.reading.turned import as_floats

_DTYPES = {"float32": ("F32", 4), "float16": ("F16", 2)}


@click.command(
    epilog="""\b
Examples:
  pyarrowquant dequantize quantized.parquet weights.safetensors
  pyarrowquant dequantize model-q4.gguf weights.arrow --dtype float16
  pyarrowquant dequantize models/llama llama-f16.gguf --dtype float16
  pyarrowquant dequantize models/llama-fp8 models/llama-bf16
""",
)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "kind",
    type=click.Choice(["safetensors", "parquet", "arrow", "gguf", "folder"]),
    help="Default: by the suffix; a folder of a Hugging Face folder.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Default: float32; in a folder, always that of the model. bfloat16 only to gguf.",
)
@click.option(
    "--pre-tokenizer", help="llama.cpp's name for how texts are split, where it is not found out."
)
@click.option("--threads", type=click.IntRange(min=1), help="Default: the CPUs of this process.")
@click.option(
    "--continue-on-error",
    is_flag=True,
    help="Leave out, and list, tensors of a model that cannot be decoded.",
)
@click.option("--overwrite", is_flag=True, help="Replace DESTINATION if it exists.")
@json_option
def dequantize(
    source: Path,
    destination: Path,
    kind: str | None,
    dtype: str | None,
    pre_tokenizer: str | None,
    threads: int | None,
    continue_on_error: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Decode what is quantized in SOURCE, and write the weights to DESTINATION.

    SOURCE is a table of results or a folder of them, or a quantized model: a file or a folder.
    Its float tensors are written too. To gguf it is a GGUF model or a Hugging Face folder, which
    need not be quantized; what is written is a model that llama.cpp loads. Of a Hugging Face folder
    another one is written, with config.json and the tokenizer, that transformers loads.
    """
    read = ReadFiles(source)
    suffixes = {**TABLES, ".safetensors": "safetensors", ".gguf": "gguf"}
    if kind is None and destination.suffix.lower() not in suffixes and (source / CONFIG).is_file():
        kind = "folder"
    kind = format_of(destination, kind, suffixes)
    if kind != "folder":
        check_destination(destination, overwrite, sources=read.paths)
    elif dtype is not None:
        raise click.UsageError(
            "--dtype is not for a folder, which has that of the model: leave it out"
        )
    dtype = dtype or "float32"
    if dtype == "bfloat16" and kind != "gguf":
        raise click.UsageError(
            "--dtype bfloat16 is only for gguf: take float32, which loses nothing"
        )
    if pre_tokenizer is not None and kind != "gguf":
        raise click.UsageError("--pre-tokenizer is only for gguf: leave it out")
    if continue_on_error and kind in ("folder", "gguf"):
        raise click.UsageError(
            f"--continue-on-error is not for {kind}, which would be no whole model: take --to "
            "safetensors, or leave it out"
        )
    if not source.exists():
        raise FileNotFoundError(f"'{source}' does not exist")
    with read.reading():
        if kind == "folder":
            layers = _write_folder(source, destination, overwrite, read)
        elif kind == "gguf":
            layers = _write_gguf(source, destination, dtype, pre_tokenizer, overwrite, read.check)
        elif not is_result(str(source)):
            layers = _decode_model(
                source, destination, kind, dtype, continue_on_error, overwrite, read.check
            )
        elif continue_on_error:
            raise click.UsageError("--continue-on-error is for models, not tables: leave it out")
        elif kind == "safetensors":
            layers = _write_safetensors(source, destination, dtype, threads, overwrite, read.check)
        else:
            layers = _write_table(source, destination, kind, dtype, threads, overwrite, read.check)
    written = destination.rglob("*") if kind == "folder" else [destination]
    nbytes = sum(path.stat().st_size for path in written if path.is_file())
    if as_json:
        show_json({"destination": str(destination), "layers": layers, "bytes": nbytes})
    else:
        click.echo(f"{counted(layers, 'layer')} to {quoted_path(destination)}: {size_text(nbytes)}")


def _write_folder(source: Path, destination: Path, overwrite: bool, read: ReadFiles) -> int:
    if not (source / CONFIG).is_file():
        raise click.UsageError(
            f"'{source}' is no Hugging Face folder, and so has no {CONFIG} for another one. Take "
            "--to safetensors"
        )
    model = _opened(source, "so that the folder would be no whole model. --to safetensors")
    check_class(model)
    check_head(model)
    check_tensors(model)
    warn_of_no_model_type(model)
    layers = _count(model)
    folder = ModelFolder(as_floats(model))
    refuse_joined(folder.model, "transformers")
    folder.known_dtype()
    check_destination(destination, overwrite, True, read.paths, lambda: set(folder.other_files()))
    write_plain_folder(folder, destination, overwrite, read.check)
    return layers


def _opened(source: Path, otherwise: str) -> Model:
    """Open a quantized model all of which can be decoded.

    Parameters
    ----------
    source : Path
    otherwise : str
        What the error goes on with where it is not, before what then leaves out the rest.
    """
    model = open_source(source)
    model.refuse_damage()
    codes = [tensor for tensor in _undecoded(model) if not tensor.serves]
    if codes:
        also = f" (and {len(codes) - 1} more)" if len(codes) > 1 else ""
        raise click.ClickException(
            f"'{source}': {in_line(codes[0].name)}{also} cannot be decoded: "
            f"{printable(codes[0].problem)}, {otherwise} --continue-on-error leaves such out"
        )
    return _quantized(source, model)


def _opened_in_part(source: Path) -> Model:
    """Open a quantized model, and say which tensors are left out as they cannot be decoded."""
    model = open_source(source)
    left = _undecoded(model)
    for tensor in left:
        click.echo(f"Left out: {in_line(tensor.name)}, {printable(tensor.problem)}", err=True)
    return _quantized(source, model.without([tensor.name for tensor in left]))


def _undecoded(model: Model) -> list[UndecodableTensor]:
    return [tensor for tensor in model.tensors or () if isinstance(tensor, UndecodableTensor)]


def _quantized(source: Path, model: Model) -> Model:
    if not _count(model):
        raise click.ClickException(f"'{source}' has nothing that is quantized")
    return with_finite_codes(model)


def _count(model: Model) -> int:
    return sum(isinstance(tensor, CodedTensor) for tensor in model.tensors or ())


def _decode_model(
    source: Path,
    destination: Path,
    kind: str,
    dtype: str,
    in_part: bool,
    overwrite: bool,
    check: Callable[[], object],
) -> int:
    """Write the layers of a model, one after the other; `check` comes after the last one."""
    model = _opened_in_part(source) if in_part else _opened(source, "and")
    if kind == "safetensors":  # which is a checkpoint of floats
        model = as_floats(model)
    tensors = {tensor.name: tensor for tensor in model.tensors or ()}
    if joined := joined_by_mlx(model):
        click.echo(
            "Experts that MLX has joined keep its names, which no other engine loads: "
            f"{first_names(joined)}. For others decode the model before MLX",
            err=True,
        )
    readers = [(str(name), read) for name, read in model.layer_readers()]
    if kind == "safetensors":
        code, size = _DTYPES[dtype]

        def pieces(read: Callable[[], pa.RecordBatch]) -> Iterator[memoryview]:
            values = raw_floats(read(), dtype)
            yield values.astype(values.dtype.newbyteorder("<"), copy=False).view(np.uint8).data

        entries = [
            Entry.known(name, code, shape, size * math.prod(shape), partial(pieces, read))
            for name, read in readers
            for shape in [tensors[name].shape]
        ]
        with Outputs([destination], overwrite) as outputs:
            write_tensors(outputs.temporary(destination), entries)
            check()
    else:
        floats = pa.float32() if dtype == "float32" else pa.float16()
        schema = pa.schema(
            [
                ("layer_name", pa.string()),
                ("weights", pa.large_list(floats)),
                ("shape", pa.list_(pa.int64())),
            ]
        )

        def batches() -> Iterator[pa.RecordBatch]:
            for name, read in readers:
                values = raw_floats(read(), dtype)
                ends = pa.array([0, values.size], pa.int64())
                columns = [
                    pa.array([name]),
                    pa.LargeListArray.from_arrays(ends, pa.array(values, floats)),
                    pa.array([tensors[name].shape], pa.list_(pa.int64())),
                ]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)
            check()

        reader = pa.RecordBatchReader.from_batches(schema, batches())
        write_batches(reader, destination, kind, overwrite)
    return len(readers)


def _write_gguf(
    source: Path,
    destination: Path,
    dtype: str,
    pre_tokenizer: str | None,
    overwrite: bool,
    check: Callable[[], object],
) -> int:
    opened = open_source(source)
    opened.refuse_damage()
    target = FORMATS["gguf"]
    model = target.viewed(with_finite_codes(opened), pre_tokenizer)
    if not isinstance(model, LlamaCppModel):
        raise click.ClickException(
            f"'{source}' has not what llama.cpp needs: {target.loading_problem(model)}, or take "
            "--to safetensors"
        )
    if isinstance(model, FolderModel):
        _say_left_out(model.unused)
    return write_floats(model, destination, dtype, overwrite, check)


def _say_left_out(unused: Mapping[str, str]) -> None:
    """Name tensors that llama.cpp does without, by the reasons."""
    names: dict[str, list[str]] = {}
    for name, reason in unused.items():
        names.setdefault(reason, []).append(name)
    for reason, some in names.items():
        click.echo(f"Left out, {reason}: {first_names(some)}", err=True)


def _write_table(
    source: Path,
    destination: Path,
    kind: str,
    dtype: str,
    threads: int | None,
    overwrite: bool,
    check: Callable[[], object],
) -> int:
    check_rows(source)
    empty = open_results(source).schema.empty_table()
    schema = dequantize_batch_arrow(empty, dtype=dtype, threads=threads).schema
    layers = 0

    def decoded() -> Iterator[pa.RecordBatch]:
        nonlocal layers
        for batch, rows in results_in(source):
            layers += len(rows)
            yield from _decoded(batch, source, dtype, threads).to_batches()
        check()

    weights = pa.RecordBatchReader.from_batches(schema, decoded())
    write_batches(weights, destination, kind, overwrite)
    return layers


def _decoded(batch: pa.RecordBatch, source: Path, dtype: str, threads: int | None) -> pa.Table:
    with naming(source):
        table = pa.Table.from_batches([batch])
        return dequantize_batch_arrow(table, dtype=dtype, threads=threads)


def _write_safetensors(
    source: Path,
    destination: Path,
    dtype: str,
    threads: int | None,
    overwrite: bool,
    check: Callable[[], object],
) -> int:
    """Write layers as they are decoded; the source is read for their shapes first."""
    check_rows(source)
    code, size = _DTYPES[dtype]
    rows = _Rows(source)

    def pieces(row: int) -> Iterator[memoryview]:
        values = _decoded(rows[row], source, dtype, threads)["weights"][0].values.to_numpy()
        yield values.astype(values.dtype.newbyteorder("<"), copy=False).view(np.uint8).data

    layers = (layer for _, layers in results_in(source) for layer in layers)
    entries = [
        Entry.known(
            layer.name,
            code,
            layer.shape,
            size * math.prod(layer.shape),
            partial(pieces, row),
        )
        for row, layer in enumerate(layers)
    ]
    with Outputs([destination], overwrite) as outputs:
        write_tensors(outputs.temporary(destination), entries)
        check()
    return len(entries)


class _Rows:
    """Rows of results by their number: read once if they are asked for in their order."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._next = 0
        self._rows = self._from_the_first()

    def __getitem__(self, row: int) -> pa.RecordBatch:
        if row < self._next:
            self._next, self._rows = 0, self._from_the_first()
        found = next(islice(self._rows, row - self._next, None))
        self._next = row + 1
        return found

    def _from_the_first(self) -> Iterator[pa.RecordBatch]:
        return (
            batch.slice(i, 1) for batch in open_results(self._source) for i in range(batch.num_rows)
        )
