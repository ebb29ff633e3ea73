"""What evaluate refuses without llama.cpp, which other tests have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import gguf_models
import pytest
from child import wait_until
from commands import failed


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A GGUF model and a text, where llama.cpp is not installed."""
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    text = tmp_path / "text.txt"
    text.write_text("Some words of a text.")
    return gguf_models.saved(tmp_path / "model.gguf"), text


def test_the_extra_is_named(files: tuple[Path, Path]) -> None:
    model, text = files
    said = failed("evaluate", model, "--text", text)
    assert said == (
        "Error: Evaluating needs llama-cpp-python: pip install 'pyarrowquant[evaluate]'\n"
    )


def test_what_is_no_gguf_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    model, text = files
    for command in (["evaluate", text], ["evaluate", model, "--against", text]):
        said = failed(*command, "--text", text)
        assert f"{text}: no GGUF file, no ONNX model, and no folder of a model." in said
        assert "`pyarrowquant quantize FOLDER x.gguf` makes a GGUF file" in said
    assert f"{tmp_path} is a folder" in failed("evaluate", tmp_path, "--text", text)
    assert f"{tmp_path} is a folder" in failed("evaluate", model, "--text", tmp_path)
    for missing in (["nothing.gguf", "--text", text], [model, "--text", "nothing.txt"]):
        said = failed("evaluate", *missing)
        assert (
            said
            == f"Error: No such file or folder: '{missing[-1 if missing[0] == model else 0]}'\n"
        )


def test_texts_that_are_not_utf_8(files: tuple[Path, Path]) -> None:
    model, text = files
    text.write_bytes(b"Gr\xfc\xdfe")
    assert f"{text}: the text is not UTF-8: byte 2 is 0xfc" in failed(
        "evaluate", model, "--text", text
    )


def test_options_out_of_bounds(files: tuple[Path, Path]) -> None:
    model, text = files
    assert "7 is not in the range x>=8" in failed(
        "evaluate", model, "--text", text, "--context", 7, code=2
    )
    assert "Missing option '--text'" in failed("evaluate", model, code=2)


# A llama.cpp that loads no model: it does what the file named END beside it says.
STAND_IN = """
import ctypes, os, signal, sys, types
from pathlib import Path

llama_log_callback = ctypes.CFUNCTYPE(None)
llama_log_get = llama_log_set = llama_backend_init = lambda *_: None
llama_model_default_params = types.SimpleNamespace

def llama_model_load_from_file(path, parameters):
    os.write(1, b"Printed, and no answer.\\n")
    os.write(2, b"Some line.\\n/some/where/ggml.c:7: GGML_ASSERT(rows > 0) failed\\n\\n")
    exec((Path(__file__).parent / "END").read_text())
"""


@pytest.fixture
def ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stand-in does when it is to load a model."""
    (tmp_path / "llama_cpp.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    return tmp_path / "END"


@pytest.fixture
def command(tmp_path: Path) -> list[object]:
    text = tmp_path / "text.txt"
    text.write_text("Some words of a text.")
    return ["evaluate", gguf_models.saved(tmp_path / "model.gguf"), "--text", text]


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("os.abort()", "SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os._exit(3)", "code 3"),
        ("os._exit(0)", "code 0"),
    ],
)
def test_a_llama_cpp_that_ends_is_an_error_in_a_line(
    command: list[object], ending: Path, does: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    ending.write_text(does)
    assert failed(*command) == (
        f"Error: {command[1]}: llama.cpp ended with {said}, and printed last: ggml.c:7: "
        "GGML_ASSERT(rows > 0) failed. The file is damaged, or needs another version of "
        "llama-cpp-python: make it again, or upgrade that\n"
    )
    assert capfd.readouterr() == ("", "")


def test_the_model_it_ends_by_is_named(command: list[object], ending: Path, tmp_path: Path) -> None:
    """The first one is not loaded, which is an error of its own, told by an answer."""
    ending.write_text("if b'other' in path: os.abort()")
    other = gguf_models.saved(tmp_path / "other.gguf")
    assert failed(*command) == f"Error: {command[1]}: llama.cpp cannot load it\n"
    said = failed("evaluate", other, *command[2:], "--against", command[1])
    assert said.startswith(f"Error: {other}: llama.cpp ended with SIGABRT")


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        (
            "os.write(2, b'terminate called\\n  what():  std::bad_alloc'); os.abort()",
            "SIGABRT, and printed last: what():  std::bad_alloc",
        ),
    ],
)
def test_a_llama_cpp_that_lacks_memory(
    command: list[object], ending: Path, does: str, said: str
) -> None:
    ending.write_text(does)
    error = failed(*command)
    assert error.startswith(f"Error: {command[1]}: llama.cpp ended with {said}")
    assert error.endswith("want of memory: take fewer --threads, a smaller --context or model\n")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise RuntimeError('no library')", "llama-cpp-python cannot be loaded: no library. Ins"),
        ("import os; os.abort()", "The process of llama.cpp ended with SIGABRT. Install it anew"),
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
    ],
)
def test_a_llama_cpp_that_cannot_be_imported(
    command: list[object], ending: Path, program: str, said: str
) -> None:
    ending.with_name("llama_cpp.py").write_text(program)
    assert failed(*command).startswith(f"Error: {said}")


def test_an_interrupt_ends_its_process(command: list[object], ending: Path) -> None:
    ending.write_text("Path(__file__).with_name('ID').write_text(str(os.getpid())); signal.pause()")
    place = ending.with_name("ID")
    started = subprocess.Popen(
        [sys.executable, "-m", "pyarrowquant", *map(str, command)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert wait_until(lambda: place.exists() and place.read_text() != "")
    started.send_signal(signal.SIGINT)
    assert started.communicate() == (None, "Interrupted\n")
    assert started.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(place.read_text()), 0)
