"""Other quantizers at about 4 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from candidate import Candidate, of_matrices
from ggml import ggml
from llm_compressor import whole_models
from peers import mlx
from quantizer import Prepared, Quantizer, Weights, each
from subject import Subject
from torch_peers import hqq, llmcompressor, nf4, sinq

GGML_TYPES = ("IQ4_XS", "Q4_0", "Q4_K")


def peer_candidates(group_size: int, larger: int | None) -> Iterator[Candidate]:
    for size in (group_size,) if larger is None else (group_size, larger):
        settings = f"4 bits, g {size}"
        yield plain("HQQ", settings, hqq(4, size))
        yield plain("MLX", settings, mlx(4, size))
        yield plain("SINQ", settings, sinq(4, size))
    for symmetric in (False, True):
        zero_point = "symmetric" if symmetric else "integer"
        for observer in ("minmax", "mse"):
            chosen = llmcompressor(f"memoryless_{observer}", 4, group_size, symmetric)
            settings = f"{observer} 4 bits, {zero_point}, g {group_size}"
            yield plain("llm-compressor", settings, chosen)
    for double in (False, True):
        yield plain("bitsandbytes", "NF4" + ", double" * double, nf4(double))
    for kind in GGML_TYPES:
        yield plain("ggml", kind, ggml(kind))
    for kind in GGML_TYPES:
        yield of_matrices("ggml", f"{kind}, importance", with_importance(kind), calibrated=True)
    yield from whole_models(group_size)


def plain(maker: str, settings: str, prepare: Callable[[np.ndarray], Prepared]) -> Candidate:
    return of_matrices(maker, settings, lambda _: Quantizer(maker, settings, each(prepare)))


def with_importance(kind: str) -> Callable[[Subject], Quantizer]:
    """The types of ggml, with our importance for an imatrix: it is the same."""

    def quantizer(subject: Subject) -> Quantizer:
        def prepare(weights: Weights) -> Prepared:
            layers = {
                name: ggml(kind, subject.importance[name])(one) for name, one in weights.items()
            }
            return Prepared(
                lambda: {name: layer.call() for name, layer in layers.items()},
                lambda result: {name: layers[name].decode(one) for name, one in result.items()},
                lambda result: sum(layers[name].stored_bits(one) for name, one in result.items()),
            )

        return Quantizer("ggml", kind, prepare)

    return quantizer
