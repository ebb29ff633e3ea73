"""Quantize neural-network weights held in Arrow data, in parallel, without a copy.

The Go core loads at the first call, not at import. Its work runs with the GIL released.
"""

from pyarrowquant import formats
from pyarrowquant._lib import release_memory
from pyarrowquant._version import __version__
from pyarrowquant.arrays import numpy_to_arrow_table, quantize_batch
from pyarrowquant.comparison import compare
from pyarrowquant.errors import (
    InternalError,
    LayerError,
    QuantizationError,
    SkippedLayerWarning,
)
from pyarrowquant.expected import Expected
from pyarrowquant.reading import read_weights
from pyarrowquant.recipe import Recipe
from pyarrowquant.rule import Rule
from pyarrowquant.stream import quantize_stream
from pyarrowquant.tables import (
    dequantize_batch_arrow,
    quantize_batch_arrow,
    validate_arrow_input,
)

__all__ = [
    "Expected",
    "InternalError",
    "LayerError",
    "QuantizationError",
    "Recipe",
    "Rule",
    "SkippedLayerWarning",
    "__version__",
    "compare",
    "dequantize_batch_arrow",
    "formats",
    "numpy_to_arrow_table",
    "quantize_batch",
    "quantize_batch_arrow",
    "quantize_stream",
    "read_weights",
    "release_memory",
    "validate_arrow_input",
]
