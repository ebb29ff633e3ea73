"""What the package does to the process that uses it. Each test has a process of its own."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
from child import build_with_hooks, run_child


def test_import_loads_no_library() -> None:
    run_child("""
        def loaded():
            return "_pyarrowquant" in open("/proc/self/maps").read()
        assert not loaded()
        pyarrowquant.quantize_batch_arrow(table())
        assert loaded()
    """)


def test_fork_after_use() -> None:
    """The child is told, and may drop what it inherited; the parent goes on."""
    run_child("""
        import warnings
        warnings.simplefilter("ignore")  # Python's own about threads and fork
        result = pyarrowquant.quantize_batch_arrow(big_table(64))
        child = os.fork()
        if child == 0:
            try:
                pyarrowquant.quantize_batch_arrow(table())
                os._exit(2)
            except RuntimeError as error:
                if "spawn" not in str(error) or "after the fork" not in str(error):
                    os._exit(3)
            size = len(result["quantized_data"][0].as_py())
            del result
            gc.collect()
            os._exit(0 if size == 8 << 20 else 4)
        assert os.waitpid(child, 0)[1] == 0
        if os.fork() == 0:
            sys.exit(0)  # an ordinary end, which drops the result
        assert os.wait()[1] == 0
        assert pyarrowquant.quantize_batch_arrow(big_table(64)).equals(result)
    """)


def test_use_after_fork() -> None:
    run_child("""
        child = os.fork()
        if child == 0:
            result = pyarrowquant.quantize_batch_arrow(table())
            os._exit(0 if result.num_rows == 1 else 1)
        assert os.waitpid(child, 0)[1] == 0
    """)


def test_spawned_workers(tmp_path: Path) -> None:
    """Tables go to the workers and results come back by pickle."""
    program = tmp_path / "program.py"
    program.write_text(
        """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
import pyarrow as pa
import pyarrowquant

if __name__ == "__main__":
    tables = [pa.table({"layer_name": [str(i)], "weights": [[1.0, i]]}) for i in range(4)]
    want = [pyarrowquant.quantize_batch_arrow(t) for t in tables]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        got = list(pool.map(pyarrowquant.quantize_batch_arrow, tables))
    assert all(g.equals(w) for g, w in zip(got, want))
    with context.Pool(2) as pool:
        got = pool.map(pyarrowquant.quantize_batch_arrow, tables)
    assert all(g.equals(w) for g, w in zip(got, want))
    bad = pa.table({"layer_name": ["a"], "weights": [[float("nan")]]})
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        error = pool.submit(pyarrowquant.quantize_batch_arrow, bad).exception()
    assert isinstance(error, pyarrowquant.QuantizationError), error
    assert error.errors[0].layer_name == "a"
"""
    )
    run_child(f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')")


@pytest.mark.parametrize("method", ["rtn", "mse", "hqq"])
@pytest.mark.parametrize("group_size", [128, -1])
def test_interrupt_ends_a_long_call(group_size: int, method: str) -> None:
    """Ctrl-C is seen within 0.1 s of processor time, which other programs do not lengthen."""
    run_child(f"""
        weights = big_table(512)
        pyarrowquant.quantize_batch_arrow(table())
        os.environ["PYARROWQUANT_KERNEL"] = "scalar"  # about a second
        delays = []
        for attempt in range(5):
            def interrupt():
                assert wait_until(lambda: library.allocated_bytes() > 0)  # the call has begun
                global sent
                sent = time.process_time()
                os.kill(os.getpid(), signal.SIGINT)
            thread = threading.Thread(target=interrupt)
            thread.start()
            try:
                pyarrowquant.quantize_batch_arrow(weights, threads=1, group_size={group_size},
                                                  method={method!r}, zero_point="float")
                raise SystemExit("was not interrupted")
            except KeyboardInterrupt:
                delays.append(time.process_time() - sent)
            thread.join()
            assert nothing_left()
        assert min(delays) < 0.1, delays
        assert pyarrowquant.quantize_batch_arrow(table()).num_rows == 1
    """)


@pytest.mark.parametrize("work", ["quantize", "dequantize", "compare", "stream"])
@pytest.mark.parametrize("count", [1000, 300000])  # in the caller's thread, and in workers
def test_interrupts_at_any_moment_leak_nothing(work: str, count: int) -> None:
    """An interrupt may come between any two lines, when Python has yet to take what Go made."""
    run_child(f"""
        import random
        weights = table(count={count})
        result = pyarrowquant.quantize_batch_arrow(weights)
        work = dict(
            quantize=lambda: pyarrowquant.quantize_batch_arrow(weights),
            dequantize=lambda: pyarrowquant.dequantize_batch_arrow(result),
            compare=lambda: pyarrowquant.compare(weights, result),
            stream=lambda: pyarrowquant.quantize_stream(weights).read_all(),
        )[{work!r}]
        work()  # imports what it needs; Python ignores signals in callbacks of its import system
        gc.collect()
        before = library.allocated_bytes()
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        random.seed(0)
        interrupts = 0
        for attempt in range(400):
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-5, 2e-3))
                while True:
                    work()
            except KeyboardInterrupt:
                interrupts += 1
        assert interrupts == 400
        gc.collect()
        left = library.allocated_bytes() - before
        assert left == 0, f"{{left}} bytes left behind by {{interrupts}} interrupts"
    """)


def test_interrupt_while_a_source_is_slow() -> None:
    """The source waits for ever."""
    run_child("""
        def interrupt():
            waits.wait()
            os.kill(os.getpid(), signal.SIGINT)
        released = []
        for attempt in range(3):
            waits = threading.Event()
            def batches():
                try:
                    yield from table().to_batches()
                    waits.set()
                    while True:  # one long wait may miss a signal that comes as it begins
                        threading.Event().wait(0.01)
                finally:
                    released.append(attempt)
            source = pa.RecordBatchReader.from_batches(table().schema, batches())
            thread = threading.Thread(target=interrupt)
            thread.start()
            try:
                for batch in pyarrowquant.quantize_stream(source):
                    pass
                raise SystemExit("was not interrupted")
            except KeyboardInterrupt:
                pass
            thread.join()
            del source, batch
            assert nothing_left()
        assert released == [0, 1, 2], released
        assert pyarrowquant.quantize_batch_arrow(table()).num_rows == 1
    """)


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hooks")
    build_with_hooks(folder)
    return folder


@pytest.mark.parametrize("where", ["worker", "export"])
def test_panic_becomes_an_error(hooked: Path, where: str) -> None:
    run_child(
        f"""
        good = pyarrowquant.quantize_batch_arrow(table())
        for count in (1000, 1000000):  # in the caller's thread, and in workers
            bad = table("pyarrowquant-panic-{where}", count)
            calls = (
                lambda: pyarrowquant.quantize_batch_arrow(bad),
                lambda: pyarrowquant.compare(bad, bad),
            )
            for call in calls:
                try:
                    call()
                    raise SystemExit("no panic")
                except pyarrowquant.InternalError as error:
                    assert "{where} panics for a test" in str(error), error
                    assert "report" in str(error)
        assert pyarrowquant.quantize_batch_arrow(table()).equals(good)
        del good
        assert nothing_left()
        """,
        path=hooked,
    )


def test_python_threads_run_during_a_call() -> None:
    """A counting thread gets on while the main thread is inside of one call."""
    run_child("""
        os.environ["PYARROWQUANT_KERNEL"] = "scalar"  # about a second
        weights = big_table(256)
        count, stop = 0, False
        def busy():
            global count
            while not stop:
                count += 1
        thread = threading.Thread(target=busy, daemon=True)
        thread.start()
        before = count
        options = {"bit_width": 4, "group_size": 128, "method": "rtn", "zero_point": "integer",
                   "scale_dtype": "float32", "threads": 1, "kernel": "scalar"}
        # Polls of the wait would give the GIL up in any case: one call of C may not.
        library._WAIT_MILLISECONDS = 60000
        result = library.quantize(weights, library.encode(options), None)
        during = count - before
        stop = True
        thread.join()
        assert during > 100000, during
    """)


@pytest.mark.parametrize("daemon", ["none", "many calls", "one long call"])
def test_interpreter_exit(daemon: str) -> None:
    """With results and a stream alive, and with a thread inside of a call, nothing is printed."""
    printed = run_child(f"""
        os.dup2(1, 2)  # what a crash prints comes after the last line of this program
        result = pyarrowquant.quantize_batch_arrow(big_table(16))
        stream = pyarrowquant.quantize_stream(big_table(1).to_reader())
        batch = stream.read_next_batch()
        if {daemon!r} != "none":
            if {daemon!r} == "one long call":
                os.environ["PYARROWQUANT_KERNEL"] = "scalar"
            weights = big_table(256 if {daemon!r} == "one long call" else 64)
            def forever():
                while True:
                    pyarrowquant.quantize_batch_arrow(weights, threads=1)
            before = library.allocated_bytes()
            threading.Thread(target=forever, daemon=True).start()
            assert wait_until(lambda: library.allocated_bytes() > before)
    """)
    assert printed == ""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="sets a register of x86")
def test_results_do_not_depend_on_the_callers_rounding() -> None:
    """Libraries built with -ffast-math flush subnormals in the threads that load them."""
    run_child("""
        import ctypes, mmap
        code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(bytes([0x0f, 0xae, 0x17, 0xc3]))  # ldmxcsr [rdi]; ret
        address = ctypes.addressof(ctypes.c_char.from_buffer(code))
        load = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
        def control(value):
            load(ctypes.addressof(ctypes.c_uint32(value)))
        weights = np.random.default_rng(0).standard_normal((2048, 512), dtype=np.float32)
        for array in (weights, weights[:1], weights * np.float32(1e-40)):
            layers = pyarrowquant.numpy_to_arrow_table({"a": array})
            for zero_point in ("integer", "float", "symmetric"):
                options = {"zero_point": zero_point, "metrics": True}
                want = pyarrowquant.quantize_batch_arrow(layers, **options)
                decoded = pyarrowquant.dequantize_batch_arrow(want)
                for setting in (0x9fc0, 0x5f80, 0x3f80):  # flush to zero, up, down
                    control(setting)
                    got = pyarrowquant.quantize_batch_arrow(layers, **options)
                    again = pyarrowquant.dequantize_batch_arrow(got)
                    control(0x1f80)
                    assert got.equals(want), (zero_point, hex(setting))
                    assert again.equals(decoded), (zero_point, hex(setting))
    """)
