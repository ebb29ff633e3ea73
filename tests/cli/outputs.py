"""What the command line wrote, and what the library gives for the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pyarrowquant import numpy_to_arrow_table, quantize_batch_arrow


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read(path: Path) -> pa.Table:
    return pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_file(path).read_all()


def expected(weights: dict[str, np.ndarray], **options: Any) -> dict[str, dict[str, Any]]:
    options = {"method": "mse", "metrics": True, **options}
    rows = quantize_batch_arrow(numpy_to_arrow_table(weights), **options).to_pylist()
    return {row.pop("layer_name"): row for row in rows}


def by_name(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row.pop("layer_name"): row for row in table.to_pylist()}
