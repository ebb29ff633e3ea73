"""Memory of a process over one call and over many."""

from __future__ import annotations

from child import run_child


def test_calls_do_not_make_the_process_grow() -> None:
    run_child("""
        import psutil
        weights, bad = big_table(8), pa.table({"layer_name": ["a"], "weights": [[float("nan")]]})
        process = psutil.Process()
        def calls(count):
            for _ in range(count):
                result = pyarrowquant.quantize_batch_arrow(weights, metrics=True)
                pyarrowquant.dequantize_batch_arrow(result)
                try:
                    pyarrowquant.quantize_batch_arrow(bad)
                except pyarrowquant.QuantizationError:
                    pass
            del result
            gc.collect()
            return process.memory_info().rss
        before = calls(300)  # until the collectors of Go and Python have run
        after = calls(200)
        assert after - before < 8 << 20, (before, after)
        assert nothing_left()
    """)


def test_results_outlive_inputs() -> None:
    run_child("""
        array = np.sin(np.arange(1 << 20, dtype=np.float32))
        weights = pyarrowquant.numpy_to_arrow_table({"a": array})
        result = pyarrowquant.quantize_batch_arrow(weights)
        decoded = pyarrowquant.dequantize_batch_arrow(result)
        packed = result["quantized_data"][0].as_py()
        values = decoded["weights"][0].values.to_numpy().copy()
        array[:] = np.nan
        del array, weights
        gc.collect()
        other = np.ones(1 << 22, np.float32)  # may take the same memory
        assert result["quantized_data"][0].as_py() == packed
        del result
        gc.collect()
        pyarrowquant.quantize_batch_arrow(pyarrowquant.numpy_to_arrow_table({"b": other}))
        assert np.array_equal(decoded["weights"][0].values.to_numpy(), values)
    """)


def test_inputs_are_released() -> None:
    run_child("""
        import weakref
        class Owner(np.ndarray):
            pass
        array = np.ones(100000, np.float32).view(Owner)
        gone = weakref.ref(array)
        result = pyarrowquant.quantize_batch_arrow(pyarrowquant.numpy_to_arrow_table({"a": array}))
        del array
        gc.collect()
        assert gone() is None
    """)


def test_peak_of_one_call() -> None:
    """Input, output and at most 64 MiB, on 1 GiB of weights."""
    print(
        run_child("""
        def status(key):
            for line in open("/proc/self/status"):
                if line.startswith(key):
                    return int(line.split()[1]) << 10
        weights = big_table(1024)
        pyarrowquant.quantize_batch_arrow(table())
        before = status("VmRSS")
        open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
        result = pyarrowquant.quantize_batch_arrow(weights)
        above = status("VmHWM") - before
        print(f"peak above the input {above >> 20} MiB, result {result.nbytes >> 20} MiB")
        assert above <= result.nbytes + (64 << 20), (above, result.nbytes)
        assert above >= result.nbytes  # else the measurement is wrong
    """)
    )


def test_memory_that_is_kept_is_bounded_and_given_back() -> None:
    run_child("""
        import psutil
        process = psutil.Process()
        weights = big_table(256)
        pyarrowquant.quantize_batch_arrow(table())
        before = process.memory_info().rss
        results = [pyarrowquant.quantize_batch_arrow(weights) for _ in range(6)]
        one = results[0].nbytes
        assert process.memory_info().rss - before > 6 * one * 0.9
        del results
        gc.collect()
        kept = process.memory_info().rss - before
        assert kept < 1.5 * one + (16 << 20), (kept, one)
        pyarrowquant.release_memory()
        assert process.memory_info().rss - before < 16 << 20
    """)
