"""Memory of a comparison: nothing is decoded as a whole, nothing is kept."""

from __future__ import annotations

import pytest
from child import run_child

pytestmark = pytest.mark.usefixtures("nothing_leaked")


def test_nothing_is_decoded_as_a_whole() -> None:
    run_child("""
        import resource
        weights = big_table(128)
        result = pyarrowquant.quantize_batch_arrow(weights)
        pyarrowquant.compare(table(), table())
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        before = peak()
        for other in (result, weights):
            pyarrowquant.compare(weights, other)
            assert peak() - before < 24, (before, peak())
        del result
        assert nothing_left()
    """)


def test_tables_are_released_whatever_happens() -> None:
    run_child("""
        import weakref
        class Owner(np.ndarray):
            pass

        def weights(last=1.0):
            array = np.ones(100_000, np.float32).view(Owner)
            array[-1] = last
            owners.append(weakref.ref(array))
            return pyarrowquant.numpy_to_arrow_table({"a": array})

        owners = []
        nan = float("nan")
        for original, result in ((1.0, 1.0), (nan, 1.0), (1.0, nan), (nan, nan)):
            try:
                pyarrowquant.compare(weights(original), weights(result))
            except pyarrowquant.QuantizationError:
                pass
        for original, result in ((weights(), 3), (3, weights()), (weights(), table("b"))):
            try:
                pyarrowquant.compare(original, result)
            except (TypeError, ValueError):
                pass
        del original, result
        gc.collect()
        assert len(owners) == 11 and not any(owner() is not None for owner in owners)
        assert nothing_left()
    """)
