"""Quantize neural-network weights held in Arrow data, in parallel, without a copy.

The Go core loads at the first call, not at import. Its work runs with the GIL released. What is
imported here loads when it is first used, so that the command line can react to a signal from the
first moment on.
"""

from importlib import import_module

from pyarrowquant._version import __version__

TYPE_CHECKING = False  # which checkers take for true
if TYPE_CHECKING:
    from pyarrowquant import distributed, formats
    from pyarrowquant._core.library import release_memory
    from pyarrowquant._core.settings import Settings
    from pyarrowquant._core.underflow import Underflow
    from pyarrowquant.arrays import numpy_to_arrow_table, quantize_batch
    from pyarrowquant.calibration.calibrate import Calibration, calibrate
    from pyarrowquant.comparison import compare
    from pyarrowquant.conversion.convert import convert, plan
    from pyarrowquant.conversion.outcome import Conversion, ConversionPlan
    from pyarrowquant.conversion.partial.interrupted import Continued
    from pyarrowquant.conversion.progress import Step
    from pyarrowquant.conversion.tensors import ConvertedTensor
    from pyarrowquant.conversion.unquantized import UnquantizedTensor
    from pyarrowquant.decoded import arrow_to_numpy, dequantize_batch
    from pyarrowquant.errors import (
        InternalError,
        LayerError,
        QuantizationError,
        SkippedLayerWarning,
        UsageError,
    )
    from pyarrowquant.evaluation.counting import Evaluation
    from pyarrowquant.evaluation.embedding import EmbeddingEvaluation
    from pyarrowquant.evaluation.evaluate import evaluate
    from pyarrowquant.reading.importance import read_importance
    from pyarrowquant.reading.models import read_weights
    from pyarrowquant.recipes.expected import Expected
    from pyarrowquant.recipes.planned import PlannedLayer
    from pyarrowquant.recipes.recipe import Recipe
    from pyarrowquant.recipes.rule import Rule
    from pyarrowquant.stream import quantize_stream
    from pyarrowquant.tables import (
        dequantize_batch_arrow,
        quantize_batch_arrow,
        validate_arrow_input,
    )

__all__ = [
    "Calibration",
    "Continued",
    "Conversion",
    "ConversionPlan",
    "ConvertedTensor",
    "EmbeddingEvaluation",
    "Evaluation",
    "Expected",
    "InternalError",
    "LayerError",
    "PlannedLayer",
    "QuantizationError",
    "Recipe",
    "Rule",
    "Settings",
    "SkippedLayerWarning",
    "Step",
    "Underflow",
    "UnquantizedTensor",
    "UsageError",
    "__version__",
    "arrow_to_numpy",
    "calibrate",
    "compare",
    "convert",
    "dequantize_batch",
    "dequantize_batch_arrow",
    "distributed",
    "evaluate",
    "formats",
    "numpy_to_arrow_table",
    "plan",
    "quantize_batch",
    "quantize_batch_arrow",
    "quantize_stream",
    "read_importance",
    "read_weights",
    "release_memory",
    "validate_arrow_input",
]

_MODULES = {
    "calibration.calibrate": ["Calibration", "calibrate"],
    "_core.library": ["release_memory"],
    "_core.settings": ["Settings"],
    "_core.underflow": ["Underflow"],
    "arrays": ["numpy_to_arrow_table", "quantize_batch"],
    "comparison": ["compare"],
    "conversion.convert": ["convert", "plan"],
    "conversion.outcome": ["Conversion", "ConversionPlan"],
    "conversion.progress": ["Step"],
    "conversion.tensors": ["ConvertedTensor"],
    "conversion.unquantized": ["UnquantizedTensor"],
    "conversion.partial.interrupted": ["Continued"],
    "decoded": ["arrow_to_numpy", "dequantize_batch"],
    "errors": [
        "InternalError",
        "LayerError",
        "QuantizationError",
        "SkippedLayerWarning",
        "UsageError",
    ],
    "evaluation.evaluate": ["evaluate"],
    "evaluation.counting": ["Evaluation"],
    "evaluation.embedding": ["EmbeddingEvaluation"],
    "recipes.expected": ["Expected"],
    "reading.importance": ["read_importance"],
    "reading.models": ["read_weights"],
    "recipes.planned": ["PlannedLayer"],
    "recipes.recipe": ["Recipe"],
    "recipes.rule": ["Rule"],
    "stream": ["quantize_stream"],
    "tables": ["dequantize_batch_arrow", "quantize_batch_arrow", "validate_arrow_input"],
}

if not TYPE_CHECKING:  # with it, a checker would take any name

    def __getattr__(name: str) -> object:
        if name in ("distributed", "formats"):
            return import_module(f"pyarrowquant.{name}")
        for module, names in _MODULES.items():
            if name in names:
                value = getattr(import_module(f"pyarrowquant.{module}"), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module 'pyarrowquant' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
