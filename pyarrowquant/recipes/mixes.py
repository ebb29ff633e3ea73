"""Names of llama.cpp's mixes of types, which are recipes for a model and not for a layer alone."""

from __future__ import annotations

from pyarrowquant.errors import UsageError

# What each is, in a line. Bits are those of Llama 3 8B.
MIXES = {
    "Q2_K": "mix of llama.cpp, for gguf: 3.2 bits, much is lost",
    "Q3_K_S": "mix of llama.cpp, for gguf: 3.6 bits",
    "Q3_K_M": "mix of llama.cpp, for gguf: 4.0 bits",
    "Q3_K_L": "mix of llama.cpp, for gguf: 4.3 bits",
    "Q4_0": "mix of llama.cpp, for gguf: 4.6 bits, without K-quants but in the head",
    "Q4_1": "mix of llama.cpp, for gguf: 5.1 bits, likewise",
    "Q4_K_S": "mix of llama.cpp, for gguf: 4.7 bits",
    "Q4_K_M": "mix of llama.cpp, for gguf: 4.9 bits, the usual one and the default",
    "Q5_0": "mix of llama.cpp, for gguf: 5.6 bits, without K-quants but in the head",
    "Q5_1": "mix of llama.cpp, for gguf: 6.0 bits, likewise",
    "Q5_K_S": "mix of llama.cpp, for gguf: 5.6 bits",
    "Q5_K_M": "mix of llama.cpp, for gguf: 5.7 bits",
    "Q6_K": "mix of llama.cpp, for gguf: 6.6 bits",
    "Q8_0": "mix of llama.cpp, for gguf: 8.5 bits, nearly nothing is lost",
    "IQ4_NL": "mix of llama.cpp, for gguf: 4.7 bits, codes that are not evenly spaced",
    "IQ4_XS": "mix of llama.cpp, for gguf: 4.5 bits, likewise",
    "MXFP4_MOE": "mix of llama.cpp, for gguf: experts in MXFP4, all else in Q8_0",
}


# As llama-quantize has them.
_SHORT = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}


def mix_named(name: str) -> str | None:
    """Return the name of a mix as llama.cpp writes it in full; None if it is none."""
    upper = name.upper()
    upper = _SHORT.get(upper, upper)
    return upper if upper in MIXES else None


def not_for_tables(name: str) -> UsageError:
    """Make the error of a mix where there is no model that it could go by."""
    return UsageError(
        f"Recipe '{name}' goes by the tensors of a whole model of llama.cpp, and not by layers. "
        "`pyarrowquant quantize MODEL x.gguf` takes it; in Python, convert() does"
    )
