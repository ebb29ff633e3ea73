"""The methods of this package at about 4 bits, without and with rescaling and importance."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from candidate import Candidate, of_matrices
from own import decoded_layers, encoded, own, table_of
from quantizer import THREADS, Prepared, Quantizer, Weights
from subject import Subject

import pyarrowquant
from pyarrowquant.formats._gguf_budget import error_weights
from pyarrowquant.reading.location import locate
from pyarrowquant.reading.models import open_model

MAKER = "pyarrowquant"
ENCODINGS = ("iq4_xs", "q4_k", "nf4")
FITTED = ("q2_k", "q3_k", "iq4_xs", "q4_k", "q5_k", "q6_k")
BUDGETS = (4.25, 4.5)
# What llama.cpp calls the kinds of layers.
KINDS = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def own_candidates(group_size: int, larger: int | None) -> Iterator[Candidate]:
    """Give all for groups of a size; with larger ones those whose groups have two numbers."""
    for zero_point in ("integer", "symmetric", "float"):
        yield from of_integers(zero_point, group_size)
    if larger is not None:
        yield from of_integers("float", larger)
    for encoding in ENCODINGS:
        yield from variants(f"mse {encoding}", codes(encoding))
    for bits in BUDGETS:
        yield from variants(f"mse fit to {bits} bits", fitted(bits))


def of_integers(zero_point: str, group_size: int) -> Iterator[Candidate]:
    settings = f"4 bits, {zero_point}, g {group_size}"
    uncalibrated = {
        f"rtn {settings}": integers("rtn", zero_point, group_size),
        f"mse {settings}, all columns the same": plain_errors(zero_point, group_size),
    }
    for name, choose in uncalibrated.items():
        yield of_matrices(MAKER, name, choose)
        yield of_matrices(MAKER, f"{name}, rescaled", choose, rescaled=True)
    yield from variants(f"mse {settings}", integers("mse", zero_point, group_size))


Choose = Callable[[Subject, Weights | None], Quantizer]


def variants(settings: str, choose: Choose) -> Iterator[Candidate]:
    """With the weights as they are and rescaled, without and with importance."""
    for calibrated in (False, True):
        for rescaled in (False, True):
            more = ", importance" * calibrated + ", rescaled" * rescaled

            def quantizer(subject: Subject, calibrated: bool = calibrated) -> Quantizer:
                return choose(subject, subject.importance if calibrated else None)

            yield of_matrices(
                MAKER, settings + more, quantizer, calibrated=calibrated, rescaled=rescaled
            )


def integers(method: str, zero_point: str, group_size: int) -> Callable[..., Quantizer]:
    def choose(_: Subject, importance: Weights | None = None) -> Quantizer:
        return own(method, 4, zero_point, group_size, importance=importance)

    return choose


def plain_errors(zero_point: str, group_size: int) -> Callable[[Subject], Quantizer]:
    """The least squared errors, as an importance of ones gives them."""

    def choose(subject: Subject) -> Quantizer:
        ones = {name: np.ones(one.shape[1], np.float32) for name, one in subject.linear.items()}
        return own("mse", 4, zero_point, group_size, importance=ones)

    return choose


def codes(encoding: str) -> Choose:
    return lambda _, importance: encoded(encoding, "mse", importance)


def fitted(bits_per_weight: float) -> Choose:
    """Encodings of llama.cpp for a budget, which weighs errors as it does for GGUF files."""

    def choose(subject: Subject, importance: Weights | None) -> Quantizer:
        weight = error_weights(open_model(locate(subject.folder, None)))

        def prepare(weights: Weights) -> Prepared:
            matters = [weight(gguf_name(name), one.shape) for name, one in weights.items()]
            table = table_of(weights, importance).append_column("matters", pa.array(matters))

            def call() -> pa.Table:
                recipe = pyarrowquant.Recipe.fit(
                    table,
                    bits_per_weight,
                    [{"encoding": name} for name in FITTED],
                    objective="relative_error",
                    weight_column="matters",
                    threads=THREADS,
                )
                made = pyarrowquant.quantize_batch_arrow(
                    table.drop_columns("matters"), recipe=recipe, threads=THREADS
                )
                return made, recipe

            return Prepared(
                call,
                lambda result: decoded_layers(result[0]),
                lambda result: int(
                    result[1].expected.bits_per_weight * sum(w.size for w in weights.values())
                ),
            )

        return Quantizer("pyarrowquant fit", f"pyarrowquant fit to {bits_per_weight}", prepare)

    return choose


def gguf_name(name: str) -> str:
    found = re.search(r"layers\.(\d+)\.\w+\.(\w+)\.weight", name)
    assert found, name
    return f"blk.{found[1]}.{KINDS[found[2]]}.weight"
