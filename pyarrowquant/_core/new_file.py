"""Opens files for what PyArrow writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa


@contextmanager
def new_file(path: Path) -> Iterator[pa.OSFile]:
    """Open a file for PyArrow's writers, and name it where it cannot be closed."""
    with pa.OSFile(str(path), "wb") as sink:
        yield sink
        try:
            sink.close()
        except OSError as error:  # of which PyArrow tells no more than that
            raise OSError(f"'{path}' cannot be written: {error}") from error
