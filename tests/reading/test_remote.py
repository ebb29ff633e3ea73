"""Model files on filesystems of pyarrow and fsspec."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from child import run_child
from commands import failed
from conftest import Arrays
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import _registry
from models import assert_reads, floats, mappings_of
from pyarrow import fs
from safetensors.numpy import save

from pyarrowquant import numpy_to_arrow_table, read_weights

pytestmark = pytest.mark.usefixtures("nothing_leaked")


@pytest.fixture
def memory_model(model: Arrays, shards: Any) -> Any:
    memory = fsspec.filesystem("memory")
    memory.pipe("/hub/one.safetensors", save(model))
    memory.pipe("/hub/model/model-1.safetensors", save(shards[next(iter(shards))]))
    weight_map = dict.fromkeys(shards[next(iter(shards))], "model-1.safetensors")
    index = json.dumps({"weight_map": weight_map})
    memory.pipe("/hub/model/model.safetensors.index.json", index.encode())
    table = io.BytesIO()
    pq.write_table(numpy_to_arrow_table(floats(model)), table)
    memory.pipe("/hub/a.parquet", table.getvalue())
    arrow = io.BytesIO()
    plain = numpy_to_arrow_table(floats(model))
    with pa.ipc.new_stream(arrow, plain.schema) as writer:
        writer.write_table(plain)
    memory.pipe("/hub/a.arrow", arrow.getvalue())
    arrays = io.BytesIO()
    np.savez(arrays, bias=model["bias"])
    memory.pipe("/hub/a.npz", arrays.getvalue())
    yield memory
    memory.rm("/hub", recursive=True)


def test_fsspec_filesystem_and_uri(memory_model: Any, model: Arrays, shards: Any) -> None:
    some = floats(next(iter(shards.values())))
    for options in ({"filesystem": memory_model, "path": "/hub"}, {"path": "memory://hub"}):
        root = options.pop("path")
        assert_reads(read_weights(f"{root}/one.safetensors", **options), floats(model))
        one_by_one = read_weights(f"{root}/one.safetensors", batch_bytes=1, **options)
        assert_reads(one_by_one, floats(model))
        assert_reads(read_weights(f"{root}/model", **options), some)
        assert_reads(read_weights(f"{root}/a.parquet", **options), floats(model))
        assert_reads(read_weights(f"{root}/a.arrow", **options), floats(model))
        assert_reads(read_weights(f"{root}/a.npz", **options), {"bias": model["bias"]})
        with pytest.raises(FileNotFoundError, match=r"No such file or folder: '/hub/b\.npz'"):
            read_weights(f"{root}/b.npz", **options)


def test_pyarrow_filesystem_and_uri(model_file: Path, model: Arrays) -> None:
    folder = fs.SubTreeFileSystem(str(model_file.parent), fs.LocalFileSystem())
    assert_reads(read_weights("model.safetensors", filesystem=folder), floats(model))
    assert_reads(read_weights(model_file.as_uri()), floats(model))
    assert_reads(read_weights(model_file.parent.as_uri()), floats(model))


def test_local_filesystems_are_mapped(model_file: Path) -> None:
    for filesystem in (fs.LocalFileSystem(), fsspec.filesystem("file")):
        batch = read_weights(str(model_file), filesystem=filesystem).read_next_batch()
        address = batch["weights"].buffers()[-1].address
        assert any(address in mapping for mapping in mappings_of(model_file))


def test_remote_files_are_read_range_by_range(model_file: Path, model: Arrays) -> None:
    read: list[int] = []

    class CountedFile(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            data = super().read(size)
            read.append(len(data))
            return data

    class Counted(LocalFileSystem):
        protocol = "counted"

        def _open(self, path: str, *_: Any, **__: Any) -> Any:
            return CountedFile(path)

    filesystem = Counted()
    reader = read_weights(str(model_file), filesystem=filesystem, batch_bytes=1)
    header = model_file.stat().st_size - sum(array.nbytes for array in model.values())
    assert read == [8, header - 8]
    read.clear()
    sizes = [len(batch["weights"][0].as_buffer()) for batch in reader]
    assert read == sizes
    assert sorted(sizes) == sorted(array.nbytes for array in floats(model).values())


def test_without_fsspec(model_file: Path) -> None:
    run_child(f"""
        sys.modules["fsspec"] = None
        assert pyarrowquant.read_weights({str(model_file)!r}).read_all().num_rows == 5
        for call, error, message in [
            (lambda: pyarrowquant.read_weights("memory://a.npz"), ImportError,
             "'memory://a.npz' needs fsspec: pip install fsspec"),
            (lambda: pyarrowquant.read_weights("a.npz", filesystem=1), TypeError,
             "filesystem must be a pyarrow.fs.FileSystem or an fsspec filesystem, got int: 1"),
        ]:
            try:
                call()
            except error as raised:
                assert str(raised) == message, raised
            else:
                raise SystemExit("no error")
    """)


class Unreachable(fsspec.AbstractFileSystem):
    """Raises what libraries of the web do, which is no OSError."""

    protocol = "unreachable"

    class Error(Exception):
        pass

    def info(self, path: str, **_: Any) -> Any:
        raise self.Error("[Errno -2] Name or service not known\nmore")


def test_a_filesystem_that_is_not_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No traceback, whatever class of error a library has."""
    monkeypatch.setitem(_registry, "unreachable", Unreachable)
    error = failed("quantize", "unreachable://owner/model", tmp_path / "out.parquet")
    assert error == (
        "Error: 'owner/model' cannot be read by Unreachable: [Errno -2] Name or service not known. "
        "Check the address, the credentials and the network, or download it and give the path of "
        "the files\n"
    )


def test_what_is_missing_in_a_store_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    filesystem = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    with pytest.raises(FileNotFoundError, match=r"No such file or folder: 'bucket/model'$"):
        read_weights("bucket/model", filesystem=filesystem)
