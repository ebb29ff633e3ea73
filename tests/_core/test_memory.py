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


def test_all_is_released_after_every_outcome() -> None:
    """What Go allocated and the arrays it read: none is held, however a call ends."""
    run_child("""
        import weakref
        class Owner(np.ndarray):
            pass

        def weights(bad=False):
            arrays = {}
            for i in range(8):
                array = np.sin(np.arange(300_000, dtype=np.float32)).view(Owner)
                owners.append(weakref.ref(array))
                arrays[f"layer.{i}"] = array
            if bad:
                arrays["layer.3"][50] = np.nan
            return pyarrowquant.numpy_to_arrow_table(arrays)

        def success():
            return pyarrowquant.quantize_batch_arrow(weights(), metrics=True)

        def decoded():
            return pyarrowquant.dequantize_batch_arrow(success())

        def error():
            try:
                pyarrowquant.quantize_batch_arrow(weights(bad=True))
            except pyarrowquant.QuantizationError as raised:
                assert [e.layer_name for e in raised.errors] == ["layer.3"]
            else:
                raise SystemExit("no error")

        def skipped():
            import warnings
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result = pyarrowquant.quantize_batch_arrow(weights(bad=True), 4, True)
            assert result.num_rows == 7 and len(caught) == 1
            return result

        def cancelled_stream():
            stream = pyarrowquant.quantize_stream(weights().to_reader(max_chunksize=1))
            return stream.read_next_batch()

        def failing_source():
            given = weights()
            def batches():
                yield given.to_batches()[0]
                raise OSError("the source failed")
            source = pa.RecordBatchReader.from_batches(given.schema, batches())
            stream = pyarrowquant.quantize_stream(source)
            try:
                stream.read_all()
            except OSError:
                return
            raise SystemExit("no error")

        def interrupted():
            def interrupt(name, fraction):
                signal.raise_signal(signal.SIGINT)
            try:
                pyarrowquant.quantize_batch_arrow(weights(), threads=1, progress=interrupt)
            except KeyboardInterrupt:
                return
            raise SystemExit("was not interrupted")

        for outcome in (success, decoded, error, skipped, cancelled_stream, failing_source,
                        interrupted):
            owners = []
            arrow = pa.total_allocated_bytes()
            result = outcome()
            gc.collect()
            held = [owner for owner in owners if owner() is not None]
            assert owners and not held, (outcome.__name__, len(held))
            if result is not None:
                # else the counter would show nothing
                assert library.allocated_bytes() >= 100_000, outcome.__name__
            del result
            assert nothing_left(), (outcome.__name__, library.allocated_bytes())
            assert pa.total_allocated_bytes() == arrow, outcome.__name__
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
