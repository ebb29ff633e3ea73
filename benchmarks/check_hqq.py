"""Method hqq leaves at most 1.005 times the squared error of the hqq package.

python benchmarks/check_hqq.py
"""

from __future__ import annotations

import numpy as np
from own import own
from quantizer import Weights
from torch_peers import hqq
from workloads import model_weights

BOUND = 1.005
GROUP_SIZE = 128


def data_sets() -> dict[str, Weights]:
    rng = np.random.default_rng(0)
    shape = (1024, 2048)
    return {
        "Gaussian": {"w": rng.standard_normal(shape, np.float32)},
        "Gaussian, small": {"w": rng.standard_normal(shape, np.float32) * np.float32(0.02)},
        "Student-t": {"w": rng.standard_t(5, shape).astype(np.float32)},
        "MiniLM": model_weights(),
    }


def squared_error(decoded: Weights, weights: Weights) -> float:
    return sum(
        float(np.square(decoded[name].astype(np.float64) - weight).sum())
        for name, weight in weights.items()
    )


def main() -> None:
    for data, weights in data_sets().items():
        for bits in (2, 3, 4):
            ours = own("hqq", bits, "float", GROUP_SIZE).prepare(weights)
            ours_error = squared_error(ours.decode(ours.call()), weights)
            theirs = {}
            for name, weight in weights.items():
                prepared = hqq(bits, GROUP_SIZE)(weight)
                theirs[name] = prepared.decode(prepared.call())
            ratio = ours_error / squared_error(theirs, weights)
            print(f"{data:16} {bits} bits: {ratio:.4f} of the package's squared error", flush=True)
            assert ratio <= BOUND, (data, bits, ratio)


if __name__ == "__main__":
    main()
