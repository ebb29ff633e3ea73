"""How `calibrate` runs models: layer by layer, and on from an interruption.

`make test-transformers` runs these, in an environment that has torch.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from calibrated_models import SIZES, TEXT, save_tokenizer, saved
from commands import failed, succeeded

import pyarrowquant

SAME = "--context", 16, "--threads", 1  # other threads may give other last bits
# Runs `calibrate`, and prints how many bytes of memory beside mapped files it took at most.
MEASURED = """
import sys
from threading import Event, Thread
import pyarrowquant
from pyarrowquant.calibration import running  # and torch, before memory is looked at

def used():
    with open("/proc/self/status") as file:
        said = dict(line.split(":", 1) for line in file)
    return sum(int(said[key].split()[0]) for key in ("RssAnon", "RssShmem")) * 1024

before = most = used()
ended = Event()

def watch():
    global most
    while not ended.wait(0.005):
        most = max(most, used())

watcher = Thread(target=watch)
watcher.start()
try:
    pyarrowquant.calibrate(*sys.argv[1:3], [sys.argv[3]], context=256, threads=1)
finally:
    ended.set()
    watcher.join()
print(most - before)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved(tmp_path / "model", "Qwen3MoeForCausalLM")
    (tmp_path / "a.txt").write_text(TEXT)
    return tmp_path


def interrupted(folder: Path, out: Path, least: int) -> None:
    """Press Ctrl-C when so many tokens are done."""

    def progress(done: int, _: int) -> None:
        if done >= least:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as not in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            pyarrowquant.calibrate(
                folder / "model", out, [folder / "a.txt"], context=16, threads=1, progress=progress
            )
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_goes_on_from_an_interruption(folder: Path) -> None:
    whole, out = folder / "whole.safetensors", folder / "out.safetensors"
    succeeded("calibrate", folder / "model", folder / "a.txt", whole, *SAME)
    interrupted(folder, out, 600)
    assert not out.exists()
    steps: list[int] = []
    pyarrowquant.calibrate(
        folder / "model",
        out,
        [folder / "a.txt"],
        context=16,
        threads=1,
        resume=True,
        progress=lambda done, _: steps.append(done),
    )
    assert 256 <= steps[0] < 600
    assert out.read_bytes() == whole.read_bytes()
    assert not list(folder.glob(".out*"))


def test_what_another_run_has_left_is_refused(folder: Path) -> None:
    out = folder / "out.safetensors"
    arguments = ["calibrate", folder / "model", folder / "a.txt", out, *SAME]
    interrupted(folder, out, 600)
    text = (folder / "a.txt").read_text()
    (folder / "a.txt").write_text(text.replace("fox", "cat"))
    error = failed(*arguments, "--resume")
    assert "cannot be continued: since that run the texts" in error
    (folder / "a.txt").write_text(text)
    partial = folder / ".out.safetensors.partial"
    data = partial.read_bytes()
    partial.write_bytes(data[:-1])
    assert "is damaged" in failed(*arguments, "--resume")
    succeeded(*arguments)
    assert not partial.exists()


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "Qwen3MoeForCausalLM"])
def test_memory_holds_one_layer(tmp_path: Path, kind: str) -> None:
    """Of a model of 1 GB, which would be 2 GB as float32."""
    sizes = {
        **SIZES,
        "vocab_size": 32_000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 10,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
    }
    experts: dict[str, Any] = {
        "moe_intermediate_size": 512,
        "num_experts": 16,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 8,
    }
    model_class = getattr(transformers, kind)
    config = model_class.config_class(**(sizes if "Llama" in kind else {**sizes, **experts}))
    with torch.device("meta"):
        model = model_class(config).to(torch.bfloat16)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.fill_(0.01)
    folder, text = tmp_path / "model", tmp_path / "a.txt"
    model.save_pretrained(folder)
    layer = 4 * sum(each.numel() for each in model.model.layers[0].parameters())
    weights = (folder / "model.safetensors").stat().st_size
    assert weights > 1e9
    del model
    save_tokenizer(folder)
    text.write_text(TEXT)
    command = [sys.executable, "-c", MEASURED, folder, tmp_path / "i.safetensors", text]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4 * layer


def test_a_process_says_nothing_but_its_progress(folder: Path) -> None:
    command = [sys.executable, "-m", "pyarrowquant", "calibrate"]
    more = [folder / "model", folder / "a.txt", folder / "i.safetensors", *SAME]
    ran = subprocess.run([*command, *map(str, more)], check=True, capture_output=True, text=True)
    others = [line for line in ran.stderr.splitlines() if not line.startswith("calibrate: ")]
    assert others == []
