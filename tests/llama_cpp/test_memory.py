"""Memory: a stack of experts is in it once while it is quantized, and in part while it is cast."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import hf_folders
import numpy as np
import pytest

_EXPERTS, _INNER, _COLUMNS = 16, 1024, 1024
_STACK = 4 * _EXPERTS * _INNER * _COLUMNS
_MEASURED = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module("pyarrowquant", run_name="__main__")
finally:
    with open("/proc/self/status") as file:  # getrusage would count the process that started it
        print(next(line.split()[1] for line in file if line.startswith("VmHWM")))
"""


def _peak(*arguments: object) -> int:
    """The most bytes of memory that a command has, in a process of its own."""
    command = [sys.executable, "-c", _MEASURED, "pyarrowquant", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1]) * 1024


def _with_experts(folder: Path, count: int) -> Path:
    before = "model.layers.0"
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (hf_folders.ROWS, _COLUMNS),
        "lm_head.weight": (hf_folders.ROWS, _COLUMNS),
        "model.norm.weight": (_COLUMNS,),
        f"{before}.input_layernorm.weight": (_COLUMNS,),
        f"{before}.post_attention_layernorm.weight": (_COLUMNS,),
        f"{before}.self_attn.q_proj.weight": (_COLUMNS, _COLUMNS),
        f"{before}.self_attn.k_proj.weight": (_COLUMNS // 4, _COLUMNS),
        f"{before}.self_attn.v_proj.weight": (_COLUMNS // 4, _COLUMNS),
        f"{before}.self_attn.o_proj.weight": (_COLUMNS, _COLUMNS),
        f"{before}.block_sparse_moe.gate.weight": (count, _COLUMNS),
    }
    for expert in range(count):
        name = f"{before}.block_sparse_moe.experts.{expert}"
        shapes[f"{name}.w1.weight"] = shapes[f"{name}.w3.weight"] = (_INNER, _COLUMNS)
        shapes[f"{name}.w2.weight"] = (_COLUMNS, _INNER)
    return hf_folders.write(
        folder,
        {name: np.full(shape, 0.1, np.float32) for name, shape in shapes.items()},
        architectures=["MixtralForCausalLM"],
        hidden_size=_COLUMNS,
        intermediate_size=_INNER,
        num_hidden_layers=1,
        num_local_experts=count,
        num_experts_per_tok=1,
    )


@pytest.mark.parametrize(
    ("arguments", "stacks"),
    [
        (["quantize", "--threads", "1"], 3.0),  # of which one is results, and one decoded ahead
        (["dequantize"], 0.5),
        (["dequantize", "--dtype", "bfloat16"], 0.5),
    ],
)
def test_experts_take_no_multiple_of_their_stack(
    tmp_path: Path, arguments: Sequence[str], stacks: float
) -> None:
    command, *options = arguments
    peaks = [
        _peak(
            command,
            _with_experts(tmp_path / f"{count}", count),
            tmp_path / f"{count}.gguf",
            *options,
        )
        for count in (1, _EXPERTS)
    ]
    assert peaks[1] - peaks[0] < stacks * _STACK
